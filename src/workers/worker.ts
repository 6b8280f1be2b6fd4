import type { ChildProcess } from 'node:child_process';
import { closeFd } from '#host/fd.ts';
import { socketPair } from '#host/sockets.ts';
import { Channel, type Handoff, reportOf, type SettingsPart, settingsParts } from './channel.ts';

/** How a worker process is started and what it is told. */
export interface Program {
  /** Starts the process with the channel as its descriptor `channelDescriptor`. The caller closes `channel`. */
  readonly start: (channel: number) => ChildProcess;
  /** Sent over the channel first. JSON. */
  readonly settings: unknown;
}

export const channelDescriptor = 3;
/** Delay before settings are sent again for which the channel had no room. */
const sendAgainMs = 5;

/** A worker process, as seen by the main process. */
export class Worker {
  /** Resolves to the problems that keep it from serving; to none once it serves. */
  readonly started: Promise<readonly string[]>;
  /** Resolves when the process has ended; to true if its exit status is 0. */
  readonly ended: Promise<boolean>;
  readonly startedAt = performance.now();
  readonly #child: ChildProcess;
  readonly #channel: Channel<Handoff | SettingsPart>;
  readonly #freed: () => void;
  #resolveStarted!: (problems: readonly string[]) => void;
  #alive = true;
  #serving = false;
  #lost = 0;
  #handedOver = 0;
  #ended = 0;
  #invalidReport = false;

  /** `freed` is called when connections of the worker have ended. */
  constructor(label: string, { start, settings }: Program, freed: () => void) {
    this.#freed = freed;
    const [ours, theirs] = socketPair();
    this.#child = start(theirs);
    closeFd(theirs);
    this.ended = new Promise(resolve => {
      this.#child.on('error', () => resolve(false));
      this.#child.on('exit', code => resolve(code === 0));
    });
    this.started = new Promise(resolve => {
      this.#resolveStarted = resolve;
    });
    this.#channel = new Channel(
      ours,
      message => this.#received(message),
      () => {
        this.#serving = false;
      },
    );
    this.#sendSettings(settingsParts(settings));
    void this.ended.then(() => {
      this.stop();
      this.#alive = false;
      this.#lost = this.connections;
      this.#ended = this.#handedOver;
      this.#resolveStarted([`${label} has ended before it could serve (${this.how})`]);
    });
  }

  /** Sends the parts that the channel has room for, and the rest when the worker has read some. */
  #sendSettings(parts: readonly SettingsPart[]): void {
    const unsent = parts.findIndex(part => !this.#channel.send(part));
    if (unsent >= 0 && this.#alive) setTimeout(() => this.#sendSettings(parts.slice(unsent)), sendAgainMs);
  }

  #received(message: unknown): void {
    if (message === undefined) return;
    const report = reportOf(message);
    if (report && 'problems' in report) {
      // Only before it serves: later nobody waits for them.
      if (!this.#serving) this.#resolveStarted(report.problems);
      return;
    }
    if (!report || report.ended < this.#ended || report.ended > this.#handedOver) {
      this.#invalidReport = true;
      this.kill();
      return;
    }
    this.#serving = true;
    this.#ended = report.ended;
    this.#resolveStarted([]);
    this.#freed();
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Why it ended: signal or exit status, as text. */
  get how(): string {
    if (this.#invalidReport) return 'killed since it sent an invalid report';
    const { exitCode, signalCode } = this.#child;
    return signalCode ?? (exitCode === null ? 'it could not be started' : `exit status ${exitCode}`);
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Whether it takes connections. */
  get serving(): boolean {
    return this.#serving;
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
    this.#handedOver++;
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
