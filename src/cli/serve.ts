import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Errno } from '../errno.ts';
import { procFaults } from '../export-checks.ts';
import { type ExportOptions, exportFaults, exportName } from '../exports.ts';
import { exposures } from '../exposure.ts';
import { sendDatagram } from '../host/sockets.ts';
import { defaultLimits } from '../limits.ts';
import type { Logger } from '../log.ts';
import { Server } from '../server.ts';
import { StartFaults } from '../start-faults.ts';
import type { Endpoint } from '../transport/endpoint.ts';
import { inheritedSockets, type Listener } from '../transport/listen.ts';
import { Workers } from '../workers/workers.ts';
import { makeLogger } from './logging.ts';
import { deviceHints, mountHint } from './mount-hint.ts';
import type { ServeOptions } from './options.ts';

export const defaultListen: Endpoint = { kind: 'tcp', host: '127.0.0.1', port: 5640 };
export const defaultExport: ExportOptions = { path: 'share' };

/** How long running requests may take after the first signal. */
export const graceMsMax = 10_000;
/** npm passes on a signal that the terminal has sent to everybody: two in so short a time are one. */
const sameSignalMs = 500;

/** Starts the server, or names every fault on standard error and ends with status 2. Returns when it is serving. */
export async function serve(options: ServeOptions, optionFaults: readonly string[]): Promise<void> {
  const faults = [...optionFaults, ...procFaults()];
  if (faults.length > 0) refuse([...faults, ...(await exportFaults(options.exports))]);
  const log = makeLogger(options.logLevel);
  surviveFaults(log);
  try {
    await start(options, log);
  } catch (error) {
    if (!(error instanceof StartFaults)) throw error;
    refuse(error.faults);
  }
}

function refuse(faults: readonly string[]): never {
  const lines = faults.map(fault => `  - ${fault}\n`).join('');
  process.stderr.write(`ninepd cannot start:\n${lines}Nothing was started.\n`);
  process.exit(2);
}

async function start(options: ServeOptions, log: Logger): Promise<void> {
  const exports = options.exports.length > 0 ? options.exports : [madeExport(log)];
  warnOfModes(exports, log);
  const server = await opened(options, exports, log);
  stopOnSignals(server, log);
  const listeners = await server.listenAll(endpoints(options.listen));
  for (const { uri } of listeners) process.stderr.write(`listening on ${uri}\n`);
  for (const warning of exposures(listeners, exports)) log.warn(warning);
  for (const { uri } of listeners) {
    for (const hint of deviceHints(uri)) log.info(hint);
    for (const one of exports) {
      const hint = mountHint(uri, { name: exportName(one) }, options.msizeMax);
      if (hint !== undefined) log.info(hint);
    }
  }
  notify('READY=1', log);
  if (listeners.every((one: Listener) => one.single)) {
    void server.connectionsEnded().then(() => stop(server, log, 'the only connection has ended'));
  }
}

/** This process alone, or the first of several. */
async function opened(
  { workers, msizeMax, limits }: ServeOptions,
  exports: readonly ExportOptions[],
  log: Logger,
): Promise<Serving> {
  if (workers === 1) return Server.open({ exports, msizeMax, limits, log });
  const faults = await exportFaults(exports);
  if (faults.length > 0) throw new StartFaults(faults);
  const path = fileURLToPath(new URL('./worker.js', import.meta.url));
  const { connections = defaultLimits.connections } = limits;
  return Workers.open({ count: workers, program: { path, args: process.argv.slice(2) }, log, connections });
}

/** What a server does for this program, in whatever number of processes. */
type Serving = Pick<Server, 'listenAll' | 'connectionsEnded' | 'close'>;

/** What one guest has brought about is no reason to leave the others. */
export function surviveFaults(log: Logger): void {
  // A message of a reader that has gone.
  process.stderr.on('error', () => undefined);
  // A file that grows beyond RLIMIT_FSIZE is the guest's EFBIG, not the server's end: setrlimit(2).
  process.on('SIGXFSZ', () => undefined);
  // A bug of ours.
  process.on('unhandledRejection', error =>
    log.error(`a bug: ${error instanceof Error ? error.stack : error}`),
  );
}

function madeExport(log: Logger): ExportOptions {
  const { path } = defaultExport;
  if (mkdirSync(path, { recursive: true }) !== undefined) log.info(`made ./${path}`);
  return defaultExport;
}

function warnOfModes(exports: readonly ExportOptions[], log: Logger): void {
  for (const { path, fmode = 0o600, dmode = 0o700 } of exports) {
    const lacks = (fmode & 0o600) !== 0o600 ? 'fmode' : (dmode & 0o700) !== 0o700 ? 'dmode' : undefined;
    if (lacks === undefined) continue;
    const octal = `0${(lacks === 'fmode' ? fmode : dmode).toString(8)}`;
    log.warn(`export ${path}: ${lacks}=${octal} keeps the server from its own files unless it is root`);
  }
}

function endpoints(listen: readonly Endpoint[]): readonly Endpoint[] {
  if (listen.length > 0) return listen;
  const inherited = inheritedSockets(process.env);
  return inherited.length > 0 ? inherited.map(({ fd }) => ({ kind: 'fd', fd })) : [defaultListen];
}

function stopOnSignals(server: Serving, log: Logger): void {
  let first: number | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    if (first === undefined) {
      first = performance.now();
      void stop(server, log, signal);
    } else if (performance.now() - first > sameSignalMs) {
      process.stderr.write(`ninepd: stopped at once by a second ${signal}; requests were left unanswered\n`);
      process.exit(1);
    }
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
}

async function stop(server: Serving, log: Logger, why: string): Promise<void> {
  log.info(`stopping: ${why}`);
  notify('STOPPING=1', log);
  if (await server.close(graceMsMax)) {
    log.info('stopped');
    process.exit(0);
  }
  process.stderr.write(`ninepd: stopped after ${graceMsMax / 1000} s with requests still running\n`);
  process.exit(1);
}

/** Tells the service manager, if there is one: sd_notify(3). */
function notify(state: string, log: Logger): void {
  const socket = process.env.NOTIFY_SOCKET;
  if (!socket) return;
  try {
    sendDatagram(socket, state);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    log.warn(`the service manager could not be told ${state}: ${error}`);
  }
}
