import { type ChildProcess, spawn } from 'node:child_process';
import { socketPair } from '#host/sockets.ts';
import { closeFd } from '#host/vhost.ts';
import { Channel, type Handoff, type Report } from './channel.ts';

/** A program of Node's with its arguments; it gets its number in `workerVariable` and its channel as `channelDescriptor`. */
export interface Program {
  readonly path: string;
  readonly args: readonly string[];
  /** What the worker of that number is given besides; the descriptors follow the channel, in their order. */
  readonly share?: (number: number) => Share;
}

export interface Share {
  readonly env: Readonly<Record<string, string>>;
  readonly descriptors: readonly number[];
}

export const workerVariable = 'NINEPD_WORKER';
export const channelDescriptor = 3;

/** What the service manager tells the first process only: sd_listen_fds(3), sd_notify(3). */
const notForWorkers = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'NOTIFY_SOCKET'];

/** One worker process from its start to its end, as the first process sees it. */
export class Worker {
  /** Resolves to what keeps it from serving: nothing, once it serves. */
  readonly started: Promise<readonly string[]>;
  /** Resolves when it has ended, to true when that was as it should be. */
  readonly ended: Promise<boolean>;
  readonly born = performance.now();
  readonly #child: ChildProcess;
  readonly #channel: Channel<Handoff, Report>;
  #living = true;
  #serving = false;
  #lost = 0;
  #given = 0;
  #finished = 0;

  /** `freed` is called when connections of it have ended. */
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
      this.#finished = report.ended;
      started([]);
      freed();
    };
    this.#channel = new Channel(ours, received, () => {
      this.#serving = false;
    });
    void this.ended.then(() => {
      this.stop();
      this.#living = false;
      this.#lost = this.connections;
      this.#finished = this.#given;
      started([`worker ${number} has ended before it could serve (${this.how})`]);
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** How it has ended. */
  get how(): string {
    const { exitCode, signalCode } = this.#child;
    return signalCode ?? (exitCode === null ? 'it could not be started' : `exit status ${exitCode}`);
  }

  get living(): boolean {
    return this.#living;
  }

  /** How many connections ended with it. */
  get lost(): number {
    return this.#lost;
  }

  /** Connections that it was given and that have not ended. */
  get connections(): number {
    return this.#given - this.#finished;
  }

  /** Hands over a connected socket, which stays the caller's to close. False when it takes none. */
  give(connection: Handoff, descriptor: number): boolean {
    if (!this.#serving || !this.#channel.send(connection, [descriptor])) return false;
    if (connection.counted) this.#given++;
    return true;
  }

  /** Lets it finish what runs, and end. */
  stop(): void {
    this.#serving = false;
    this.#channel.close();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
