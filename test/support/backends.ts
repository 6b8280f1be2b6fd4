import { type Differences, type Environment, environmentsNamed } from './environments/environments.ts';
import { serveIn } from './environments/serve-in.ts';
import { type ModelName, type Serving, serveDirectory, servedAtPlace, serveMemory } from './serve.ts';

/** Something that a client talks to. */
export interface Backend {
  readonly name: string;
  /** Its files can be seen on the host. */
  readonly host: boolean;
  /** The server itself checks permissions. */
  readonly permissions: boolean;
  readonly differs: Differences;
  /** The share that it does of what is repeated a thousand times and more. */
  readonly scale: number;
  /** `others` are directories of it that are exported besides; only where its files can be seen on the host. */
  serve(others?: readonly string[]): Promise<Serving>;
}

const ofModel = (model: ModelName) => ({ host: true, permissions: model === 'passthrough' });

const onHost = (model: ModelName): Backend => ({
  ...ofModel(model),
  name: model,
  scale: 1,
  differs: {},
  serve: others => servedAtPlace(place => serveDirectory(place, model), others),
});

const inMemory: Backend = {
  name: 'memory',
  host: false,
  permissions: false,
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

/** In the environments that NINEPD_ENVIRONMENTS names (`npm run test:environments`); without it the usual ones. */
export const backends: readonly Backend[] =
  process.env.NINEPD_ENVIRONMENTS === undefined
    ? [onHost('mapped'), onHost('passthrough'), inMemory]
    : environmentsNamed(process.env.NINEPD_ENVIRONMENTS).flatMap(one =>
        one.models.map(model => inEnvironment(one, model)),
      );
