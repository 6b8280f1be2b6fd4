import { chownSync, mkdirSync } from 'node:fs';
import { ConfigError } from '#base/config-error.ts';
import { Errno } from '#base/errno.ts';
import type { Logger } from '#base/log.ts';
import { audienceProblems, audienceWarnings } from '#exports/audience.ts';
import { type ExportOptions, exportName, exportProblems } from '#exports/exports.ts';
import { isTreeModule } from '#exports/tree-module.ts';
import { hasRecords, procFaults } from '#exports/validate.ts';
import { sendMessage } from '#host/message.ts';
import { exitInOrder, exitUnfinished, userNamed } from '#host/process.ts';
import { datagramTo } from '#host/sockets.ts';
import { defaultLimits } from '#quota/limits.ts';
import { Server } from '#server.ts';
import { bindAll, closeBound } from '#transport/bind.ts';
import { type Endpoint, purposeOf } from '#transport/endpoint.ts';
import { inheritedSockets, type Listener } from '#transport/listen.ts';
import { Workers } from '#workers/workers.ts';
import { exportWarnings } from './export-warnings.ts';
import { graceMsMax, surviveFaults } from './faults.ts';
import { applyConfinerSeccomp, enterMain } from './guest-sandbox.ts';
import { openGuests } from './guests.ts';
import { makeLogger } from './logging.ts';
import { deviceHints, mountHint } from './mount-hint.ts';
import type { ServeOptions } from './options.ts';
import {
  applySeccomp,
  enterSandbox,
  type Handover,
  handedOver,
  hostServices,
  runsTwice,
  sandboxFaults,
} from './sandbox.ts';
import { workerProgram } from './worker-settings.ts';

const defaultListen: Endpoint = { kind: 'tcp', host: '127.0.0.1', port: 5640 };
const defaultPath = 'share';

/** The exports of the options; without any ./share. */
function exportsOf({ exports, securityModel }: ServeOptions): readonly ExportOptions[] {
  return exports.length > 0 ? exports : [{ path: defaultPath, securityModel }];
}

/** npm forwards a signal that the terminal already sent to the whole process group: two within this time count as one. */
const sameSignalMs = 500;

/** Starts the server; returns when it serves. On problems lists them all on standard error, and exits with status 2. */
export async function serve(options: ServeOptions, optionProblems: readonly string[]): Promise<void> {
  const handover = handedOver();
  const problems = handover ? [] : [...optionProblems, ...procFaults(), ...sandboxFaults(options)];
  if (problems.length > 0) refuse([...problems, ...(await exportProblems(options.exports))]);
  const log = makeLogger(options.logLevel);
  surviveFaults(log);
  try {
    const counted = { ...options, ...(handover && { workers: handover.workers }) };
    if (counted.exports.length === 0) makeDefault(counted, log);
    const exports = exportsOf(counted);
    const chosen = handover ? exports : await withModel(exports, counted, log);
    await start({ ...counted, exports: chosen }, handover, log);
  } catch (error) {
    if (handover) closeBound(handover.listen);
    if (!(error instanceof ConfigError)) throw error;
    refuse(error.problems);
  }
}

function refuse(problems: readonly string[]): never {
  const lines = problems.map(problem => `  - ${problem}\n`).join('');
  process.stderr.write(`ninepd cannot start:\n${lines}Nothing was started.\n`);
  process.exit(2);
}

const unprotected =
  'SANDBOX OFF: a guest that takes over this process can do on this machine whatever its user can';

async function start(options: ServeOptions, handover: Handover | undefined, log: Logger): Promise<void> {
  if (handover) return run(options, handover, handover.listen, notifier(handover.notify, log), log);
  for (const warning of exportWarnings(options.exports)) log.warn(warning);
  if (!options.sandbox) log.warn(unprotected);
  // With --user, permissions are checked when this process is that user.
  const problems = options.user === undefined ? await exportProblems(options.exports) : [];
  if (problems.length > 0) throw new ConfigError(problems);
  const bound = await bindAll(endpoints(options.listen), text => log.warn(text));
  try {
    checkAudience(bound, options);
    const confines = options.sandbox && options.isolation === 'guest';
    if (confines) await enterMain(options, bound, manager(log), log);
    else if (runsTwice(options)) enterSandbox(options, bound, manager(log), log);
    else await run(options, undefined, bound, notifier(manager(log), log), log);
  } catch (error) {
    closeBound(bound);
    throw error;
  }
}

function checkAudience(bound: readonly Endpoint[], { exports, insecureLoopback }: ServeOptions): void {
  const reachable = bound.flatMap(one => (one.kind === 'bound' ? [one] : []));
  const problems = insecureLoopback ? [] : audienceProblems(reachable, exports);
  if (problems.length > 0) throw new ConfigError(problems);
}

type Notify = (state: string) => void;

async function run(
  options: ServeOptions,
  handover: Handover | undefined,
  listen: readonly Endpoint[],
  notify: Notify,
  log: Logger,
): Promise<void> {
  const server = await opened(options, listen, handover, log);
  const end = (why: string) => stop(server, notify, log, why);
  stopOnSignals(end);
  const listeners = await server.listenAll(listen);
  for (const { uri } of listeners) process.stderr.write(`listening on ${uri}\n`);
  for (const warning of audienceWarnings(listeners, options.exports)) log.warn(warning);
  for (const { uri } of listeners) {
    for (const hint of deviceHints(uri)) log.info(hint);
    for (const one of options.exports) {
      const hint = mountHint(uri, { name: exportName(one) }, options.msizeMax);
      if (hint !== undefined) log.info(hint);
    }
  }
  notify('READY=1');
  if (listeners.every((one: Listener) => one.single)) {
    void server.connectionsEnded().then(() => end('the only connection has ended'));
  }
}

/** A server in this process, or the main process of workers. */
async function opened(
  options: ServeOptions,
  listen: readonly Endpoint[],
  handover: Handover | undefined,
  log: Logger,
): Promise<Serving> {
  const { workers, exports, msizeMax, limits, isolation } = options;
  const single = isolation === 'none' && workers === 1;
  if (handover && isolation === 'none')
    applySeccomp(handover, options, single ? 'serves' : 'starts workers', log);
  if (single)
    return Server.open({ exports, msizeMax, limits, log, ...hostServices(handover?.groups[0], log) });
  // The first run has checked them, with the rights of the one that starts the program.
  const problems = handover && isolation === 'guest' ? [] : await exportProblems(exports);
  if (problems.length > 0) throw new ConfigError(problems);
  if (handover?.sandbox && isolation === 'guest') applyConfinerSeccomp(log);
  if (isolation === 'guest') return openGuests(options, listen, handover, log);
  const program = (number: number) =>
    workerProgram({
      ...{ options: { ...options, listen: listen.map(purposeOf) }, moreExports: false },
      ...{ prefix: `worker ${number}: `, groups: handover?.groups[number - 1] },
      ...(handover ? { confined: handover } : {}),
    });
  const { connections = defaultLimits.connections } = limits;
  return Workers.open({ count: workers, program, log, connections });
}

/** The common interface of Server, Workers and Guests. */
type Serving = Pick<Server, 'listenAll' | 'connectionsEnded' | 'close'>;

/** Creates the directory of the default export if it is missing, owned by the user that serves it. */
function makeDefault({ user }: ServeOptions, log: Logger): void {
  if (!makeDirectory(defaultPath)) return;
  log.info(`created ./${defaultPath}`);
  const owner = user === undefined ? undefined : userNamed(user);
  if (owner) chownSync(defaultPath, owner.uid, owner.gid);
}

/**
 * The model of the quick start: `none` for a user who is not root, who serves files of its own, unless the directory has records of
 * `mapped`. The choice is added to the arguments, for the second run and the workers.
 */
async function withModel(
  exports: readonly ExportOptions[],
  { quickStart }: ServeOptions,
  log: Logger,
): Promise<readonly ExportOptions[]> {
  const [one] = exports;
  if (!quickStart || one === undefined || isTreeModule(one) || process.getuid!() === 0) return exports;
  if (await hasRecords(one.path)) {
    log.info(
      `export ${one.path}: it was served with security_model=mapped, and is again; --security-model none ignores its records`,
    );
    return exports;
  }
  log.info(
    `export ${one.path}: security_model=none, since you are not root: guests' files are yours, their exec bits and symlinks real. ` +
      'For guests that you do not trust use --security-model mapped',
  );
  process.argv.splice(2, 0, '--security-model', 'none');
  return [{ ...one, securityModel: 'none' }];
}

/** True if it was missing. */
function makeDirectory(path: string): boolean {
  try {
    return mkdirSync(path, { recursive: true }) !== undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigError([
      `./${path}, which is served when no directory is named, cannot be created here (${code}): name one, as in ninepd serve DIR`,
    ]);
  }
}

function endpoints(listen: readonly Endpoint[]): readonly Endpoint[] {
  if (listen.length > 0) return listen;
  const inherited = inheritedSockets(process.env);
  return inherited.length > 0 ? inherited.map(({ fd }) => ({ kind: 'fd', fd })) : [defaultListen];
}

function stopOnSignals(end: (why: string) => Promise<never>): void {
  let first: number | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    if (first === undefined) {
      first = performance.now();
      void end(signal);
    } else if (performance.now() - first > sameSignalMs) {
      process.stderr.write(`ninepd: stopped at once by a second ${signal}; requests were left unanswered\n`);
      exitUnfinished();
    }
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
}

async function stop(server: Serving, notify: Notify, log: Logger, why: string): Promise<never> {
  log.info(`stopping: ${why}`);
  notify('STOPPING=1');
  if (await server.close(graceMsMax)) {
    log.info('stopped');
    exitInOrder();
  }
  process.stderr.write(`ninepd: stopped after ${graceMsMax / 1000} s with requests still running\n`);
  exitUnfinished();
}

/** A socket to the service manager, if any: sd_notify(3). Created at start, before the seccomp filter forbids sockets. */
function manager(log: Logger): number | undefined {
  const socket = process.env.NOTIFY_SOCKET;
  if (!socket) return undefined;
  try {
    return datagramTo(socket);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    log.warn(`the service manager cannot be reached at ${socket}: ${error}`);
    return undefined;
  }
}

function notifier(fd: number | undefined, log: Logger): Notify {
  return state => {
    const sent = fd === undefined ? 0 : sendMessage(fd, Buffer.from(state));
    if (sent < 0) log.warn(`the service manager could not be notified of ${state}: ${Errno.of(-sent)}`);
  };
}
