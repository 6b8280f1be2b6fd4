import { type ChildProcess, spawn } from 'node:child_process';
import { closeFd } from '#host/fd.ts';
import { socketPair } from '#host/sockets.ts';
import { Channel, type Handoff, type Report } from './channel.ts';

/** The script of a worker and its arguments. It gets its number in `workerVariable`, and its channel at `channelDescriptor`. */
export interface Program {
  readonly path: string;
  readonly args: readonly string[];
  /** What worker `number` gets in addition. Its descriptors follow the channel, in order. */
  readonly share?: (number: number) => Share;
}

export interface Share {
  readonly env: Readonly<Record<string, string>>;
  readonly descriptors: readonly number[];
}

export const workerVariable = 'NINEPD_WORKER';
export const channelDescriptor = 3;

/** The service manager's variables for the main process only: sd_listen_fds(3), sd_notify(3). */
const notForWorkers = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'NOTIFY_SOCKET'];

/** A worker process, as seen by the main process. */
export class Worker {
  /** Resolves to the problems that keep it from serving; to none once it serves. */
  readonly started: Promise<readonly string[]>;
  /** Resolves when the process has ended; to true if its exit status is 0. */
  readonly ended: Promise<boolean>;
  readonly startedAt = performance.now();
  readonly #child: ChildProcess;
  readonly #channel: Channel<Handoff, Report>;
  #alive = true;
  #serving = false;
  #lost = 0;
  #handedOver = 0;
  #ended = 0;

  /** `freed` is called when connections of the worker have ended. */
  constructor(number: number, { path, args, share }: Program, freed: () => void) {
    const [ours, theirs] = socketPair();
    const shared = share?.(number) ?? { env: {}, descriptors: [] };
    const env: NodeJS.ProcessEnv = { ...process.env, ...shared.env, [workerVariable]: String(number) };
    for (const name of notForWorkers) delete env[name];
    this.#child = spawn(process.execPath, [...process.execArgv, path, ...args], {
      env,
      stdio: ['ignore', 'inherit', 'inherit', theirs, ...shared.descriptors],
    });
    closeFd(theirs);
    this.ended = new Promise(resolve => {
      this.#child.on('error', () => resolve(false));
      this.#child.on('exit', code => resolve(code === 0));
    });
    let started!: (problems: readonly string[]) => void;
    this.started = new Promise(resolve => {
      started = resolve;
    });
    const received = (report: Report | undefined) => {
      if (report === undefined) return;
      if ('problems' in report) return started(report.problems);
      this.#serving = true;
      this.#ended = report.ended;
      started([]);
      freed();
    };
    this.#channel = new Channel(ours, received, () => {
      this.#serving = false;
    });
    void this.ended.then(() => {
      this.stop();
      this.#alive = false;
      this.#lost = this.connections;
      this.#ended = this.#handedOver;
      started([`worker ${number} has ended before it could serve (${this.how})`]);
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Signal or exit status, as text. */
  get how(): string {
    const { exitCode, signalCode } = this.#child;
    return signalCode ?? (exitCode === null ? 'it could not be started' : `exit status ${exitCode}`);
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** How many connections were open when it ended. */
  get lost(): number {
    return this.#lost;
  }

  /** Number of its open connections. */
  get connections(): number {
    return this.#handedOver - this.#ended;
  }

  /** Passes a connected socket; the caller still closes its descriptor. False if the worker takes none now. */
  handOver(connection: Handoff, descriptor: number): boolean {
    if (!this.#serving || !this.#channel.send(connection, [descriptor])) return false;
    if (connection.counted) this.#handedOver++;
    return true;
  }

  /** Tells it to answer running requests and exit. */
  stop(): void {
    this.#serving = false;
    this.#channel.close();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
