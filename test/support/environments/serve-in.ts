import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { command } from '../compiled.ts';
import {
  closedBefore,
  type ModelName,
  type Place,
  type Serving,
  servedAtPlace,
  serveProgram,
} from '../serve.ts';
import type { Environment } from './environments.ts';
import type { FileSystem } from './file-systems.ts';
import { serveLocal } from './local-server.ts';

/** Mounts a directory of `fileSystem` on each test directory. */
async function withMountsBelow(
  fileSystem: FileSystem,
  { directory, scratch }: Place,
  serve: () => Promise<Serving>,
): Promise<Serving> {
  const [base, own] = [join(scratch, 'below'), join(scratch, 'own')] as const;
  for (const path of [base, own]) mkdirSync(path);
  const unmount = await fileSystem.mount(base, own);
  const serving = await serve();
  const mounts: string[] = [];
  serving.prepare = path => {
    const own = join(base, `mounted-${mounts.length}`);
    mkdirSync(own);
    chmodSync(own, 0o777);
    command('mount', '--bind', own, join(directory, path));
    mounts.push(join(directory, path));
  };
  return closedBefore(serving, async () => {
    for (const path of mounts) command('umount', path);
    await unmount();
  });
}

/** Starts a server in an environment; closing it ends both. `others` are further exported directories. */
export function serveIn(
  { fileSystem, below, program, conditions }: Environment,
  model: ModelName,
  others: readonly string[] = [],
): Promise<Serving> {
  const serveAt = async (place: Place) => {
    const own = join(place.scratch, 'file-system');
    mkdirSync(own);
    const unmount = await fileSystem?.mount(place.directory, own);
    for (const name of others) mkdirSync(join(place.directory, name));
    const serve = () =>
      program ? serveProgram(place, model, program) : serveLocal(place, model, conditions);
    const serving = below ? await withMountsBelow(below, place, serve) : await serve();
    return closedBefore(serving, () => unmount?.());
  };
  return servedAtPlace(serveAt, others);
}
