import { type Differences, type Environment, environmentsNamed } from './environments/environments.ts';
import { serveIn } from './environments/serve-in.ts';
import { type ModelName, type Serving, serveDirectory, servedAtPlace, serveMemory } from './serve.ts';

/** A server under test. */
export interface Backend {
  readonly name: string;
  /** Its files are visible on the host. */
  readonly host: boolean;
  /** The server itself checks permissions. */
  readonly permissions: boolean;
  /** Links, devices and modes are the host's. */
  readonly real: boolean;
  /** The server owns everything: chown has no effect; set-id bits, devices, trusted.* and security.* are refused. */
  readonly serverOwns: boolean;
  readonly differs: Differences;
  /** Factor for numbers of repetitions; below 1 if it is slow. */
  readonly scale: number;
  /** `others` are further exported directories in it; only if its files are visible on the host. */
  serve(others?: readonly string[]): Promise<Serving>;
}

const ofModel = (model: ModelName) => ({
  host: true,
  permissions: model === 'passthrough',
  real: !model.startsWith('mapped'),
  serverOwns: model === 'none',
});

const ofRecordFiles: Differences = { requests: 'may wait', xattrs: 'none', listedTypes: 'directories' };

const onHost = (model: ModelName): Backend => ({
  ...ofModel(model),
  name: model,
  scale: 1,
  differs: model === 'mapped-file' ? ofRecordFiles : {},
  serve: others => servedAtPlace(place => serveDirectory(place, model), others),
});

const inMemory: Backend = {
  name: 'memory',
  host: false,
  permissions: false,
  real: false,
  serverOwns: false,
  scale: 1,
  differs: {},
  serve: () => serveMemory(),
};

const inEnvironment = (environment: Environment, model: ModelName): Backend => ({
  ...ofModel(model),
  name: `${model}, ${environment.name}`,
  scale: environment.scale,
  differs: environment.differs,
  serve: others => serveIn(environment, model, others),
});

/** In the environments of NINEPD_ENVIRONMENTS (`npm run test:environments`); default: the usual ones. */
export const backends: readonly Backend[] =
  process.env.NINEPD_ENVIRONMENTS === undefined
    ? [onHost('mapped'), onHost('mapped-file'), onHost('passthrough'), onHost('none'), inMemory]
    : environmentsNamed(process.env.NINEPD_ENVIRONMENTS).flatMap(one =>
        one.models.map(model => inEnvironment(one, model)),
      );
