import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { ConfigError } from '#base/config-error.ts';
import type { Logger } from '#base/log.ts';
import type { Origin, Peer } from '#base/peer.ts';
import { peerKey } from '#base/peer.ts';
import { Access } from '#exports/access.ts';
import { type ExportOptions, exportName } from '#exports/exports.ts';
import { isTreeModule } from '#exports/tree-module.ts';
import { launchFailed } from '#host/launch.ts';
import { groupsOf, userNamed } from '#host/process.ts';
import { noSession } from '#host/syscalls.ts';
import { defaultLimits } from '#quota/limits.ts';
import { isLoopback } from '#transport/audience.ts';
import { type Endpoint, purposeOf, uriOf } from '#transport/endpoint.ts';
import { type Guest, Guests } from '#workers/guests.ts';
import { Worker } from '#workers/worker.ts';
import { confinementOf } from './guest-sandbox.ts';
import type { ServeOptions } from './options.ts';
import { type Confined, groupsWanted, type Handover, usersOf } from './sandbox.ts';
import { workerProgram } from './worker-settings.ts';

interface User {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

/** The main process for `--isolation guest`: a worker for each guest, with the exports that it may use. */
export async function openGuests(
  options: ServeOptions,
  listen: readonly Endpoint[],
  handover: Handover | undefined,
  log: Logger,
): Promise<Guests> {
  const user = await userOf(options);
  const listeners = listen.map(purposeOf);
  checkExportNames(listeners, options.exports);
  // The code of a module may fail in more ways than the first run has checked.
  if ((user && handover) || options.exports.some(isTreeModule)) await tryWorker(user, options, handover);
  const rules = options.exports.map(({ allow }) => new Access(allow ? { allow } : {}));
  const accesses = options.exports.map(one => new Access(one));
  const guestOf = (index: number, peer: Peer): Guest | string => {
    const endpoint = listeners[index]!;
    const only = 'exportName' in endpoint ? endpoint.exportName : undefined;
    const listed = options.exports.map((_, at) => at).filter(at => isFor(options.exports[at]!, only));
    const refusals = listed.map(at => accesses[at]!.refusal(peer));
    if (refusals.every(refusal => refusal !== undefined)) return `it may use no export: ${refusals[0]}`;
    const usable = listed.filter(at => rules[at]!.refusal(peer) === undefined);
    return {
      key: [uriOf(endpoint), origin(peer.origin), usable.length < listed.length ? `exports ${usable}` : '']
        .filter(Boolean)
        .join(' '),
      program: () => {
        const exports = usable.map(at => absolute(options.exports[at]!));
        const own = { ...options, exports, listen: [endpoint] };
        const confined = confinedOf(handover);
        const workerUser = user ?? ownerOf(exports);
        return workerProgram({
          ...{ options: own, moreExports: usable.length < options.exports.length, prefix: '' },
          ...(confined ? { confined, confinement: confinementOf(own, handover!, workerUser) } : {}),
          groups: confined && groupsWanted(exports) ? 'start' : undefined,
        });
      },
    };
  };
  const { connections, guests, workerIdleSeconds } = { ...defaultLimits, ...options.limits };
  return new Guests({ log, guestOf, workers: guests, connections, idleMs: workerIdleSeconds * 1000 });
}

/** Starts a worker that serves nobody, to find out now whether its user may use the program, and whether every export opens. */
async function tryWorker(
  user: User | undefined,
  options: ServeOptions,
  handover: Handover | undefined,
): Promise<void> {
  const all = { ...options, exports: options.exports.map(absolute), listen: [] };
  const confined = confinedOf(handover);
  const program = workerProgram({
    ...{ options: { ...all, logLevel: 'fatal' }, moreExports: false, prefix: '' },
    ...(confined
      ? { confined, confinement: confinementOf(all, handover!, user ?? ownerOf(all.exports)) }
      : {}),
  });
  const worker = new Worker('a worker', program, () => undefined);
  const problems = await worker.started;
  worker.stop();
  const ended = await worker.ended;
  if (problems.length === 0 && ended) return;
  throw new ConfigError(
    user && problems.some(problem => problem.includes(`status ${launchFailed}`))
      ? [`--user ${options.user}: that user may not read ${process.execPath} or the files of this program`]
      : problems,
  );
}

function confinedOf(handover: Handover | undefined): Confined | undefined {
  if (!handover?.sandbox) return undefined;
  const { landlock, namespaces } = handover;
  return {
    sandbox: true,
    privateRoot: namespaces !== undefined,
    ...(landlock === undefined ? {} : { landlock }),
  };
}

const isFor = (one: ExportOptions, name: string | undefined) =>
  name === undefined || exportName(one) === name;

/**
 * The name of an export is its absolute path unless it has another, so both stay as they are. So does a slash at the end, by which a
 * directory is told from a module.
 */
function absolute(one: ExportOptions): ExportOptions {
  return { ...one, path: `${resolve(one.path)}${/[^/]\/+$/.test(one.path) ? '/' : ''}` };
}

function checkExportNames(listeners: readonly Endpoint[], exports: readonly ExportOptions[]): void {
  const problems = listeners.flatMap(endpoint => {
    const name = 'exportName' in endpoint ? endpoint.exportName : undefined;
    return exports.some(one => isFor(one, name))
      ? []
      : [`${uriOf(endpoint)}: there is no export "${name}": name one that is exported, or leave export= out`];
  });
  if (problems.length > 0) throw new ConfigError(problems);
}

/**
 * What tells guests of one listener apart. Connections from this host's own addresses cannot be told apart: QEMU's user networking
 * makes them for its guests, and any user of the host can choose among 127.0.0.0/8.
 */
function origin(from: Origin | undefined): string {
  if (from?.kind === 'unix') return `uid ${from.uid} gid ${from.gid}`;
  if (from?.kind === 'tcp' && isLoopback(from.address)) return '';
  return peerKey(from);
}

/** The user of `--user`, whom all workers become. */
async function userOf({ user }: ServeOptions): Promise<User | undefined> {
  const found = user === undefined || process.getuid!() !== 0 ? undefined : userNamed(user);
  if (!found) return undefined;
  return { ...found, groups: (await groupsOf(found.uid, noSession))?.groups ?? [found.gid] };
}

/**
 * Whom a worker that root starts becomes: the owner of its first export, so that what guests create is not root's. Passthrough
 * stays root, since it becomes the guests' users; so does an export that belongs to root, without capabilities.
 */
function ownerOf(exports: readonly ExportOptions[]): User | undefined {
  if (process.getuid!() !== 0 || usersOf(exports)) return undefined;
  const { uid, gid } = statSync(exports[0]!.path);
  return uid === 0 ? undefined : { uid, gid, groups: [gid] };
}
