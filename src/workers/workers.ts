import { ConfigError } from '#base/config-error.ts';
import type { Logger } from '#base/log.ts';
import type { Peer } from '#base/peer.ts';
import { peerKey } from '#base/peer.ts';
import { RateLimitedLog } from '#base/rate-limited-log.ts';
import { type Endpoint, purposeOf } from '#transport/endpoint.ts';
import { closeSource, descriptorOf, type Listener, listenOnAll } from '#transport/listen.ts';
import type { Source } from '#transport/stream.ts';
import type { Handoff } from './channel.ts';
import { type Program, Worker } from './worker.ts';

interface WorkersOptions {
  readonly count: number;
  /** The program of worker `number`, from 1 on. */
  readonly program: (number: number) => Program;
  readonly log: Logger;
  /** Limit of open connections. */
  readonly connections: number;
}

/** A worker that ran for at least this long is restarted without delay. */
const steadyMsMin = 10_000;
const restartMsMin = 100;
const restartMsMax = 10_000;
/** Time after the grace period for a worker to exit by itself. */
const overtimeMs = 1000;

/** One of `count` slots: the current worker process, which is replaced when it dies. */
interface Slot {
  worker: Worker;
  /** Number of vhost-user listeners whose connections all go to this slot. */
  devices: number;
  restartMs: number;
}

/**
 * Listens, and passes each connection to the worker process with the fewest. Workers share only kernel state: files, their
 * locks and their ctimes. The connections of a worker that dies are lost, and it is replaced.
 */
export class Workers {
  readonly #options: WorkersOptions;
  /** For log lines that peers cause. */
  readonly #rateLimited: RateLimitedLog;
  readonly #slots: Slot[] = [];
  readonly #listeners = new Set<Listener>();
  readonly #freed: (() => void)[] = [];
  #last = -1;
  #closing = false;

  private constructor(options: WorkersOptions) {
    this.#options = options;
    this.#rateLimited = new RateLimitedLog(options.log);
    // No worker outlives this process.
    process.on('exit', () => this.#kill());
  }

  /** Resolves when all workers serve. Rejects with a `ConfigError`. */
  static async open(options: WorkersOptions): Promise<Workers> {
    const workers = new Workers(options);
    for (let index = 0; index < options.count; index++) {
      workers.#slots.push({ worker: workers.#start(index), devices: 0, restartMs: 0 });
    }
    const problems = await Promise.all(workers.#slots.map(({ worker }) => worker.started));
    const distinct = [...new Set(problems.flat())];
    if (distinct.length === 0) return workers;
    workers.#closing = true;
    workers.#kill();
    throw new ConfigError(distinct);
  }

  #start(index: number): Worker {
    const { program, log } = this.#options;
    const label = `worker ${index + 1}`;
    const worker = new Worker(label, program(index + 1), () => this.#notifyFreed());
    void worker.ended.then(() => {
      if (!this.#closing) this.#replace(index, worker);
    });
    log.debug(`worker ${index + 1}: process ${worker.pid}`);
    return worker;
  }

  #replace(index: number, dead: Worker): void {
    const slot = this.#slots[index]!;
    const steady = performance.now() - dead.startedAt > steadyMsMin;
    slot.restartMs = steady ? 0 : Math.min(Math.max(slot.restartMs * 2, restartMsMin), restartMsMax);
    const { log } = this.#options;
    log.error(
      `worker ${index + 1} (process ${dead.pid}) has died, ${dead.how}: ` +
        `${dead.lost} connections are gone with it; a new worker is started`,
    );
    this.#notifyFreed();
    setTimeout(async () => {
      if (this.#closing) return;
      slot.worker = this.#start(index);
      for (const problem of await slot.worker.started) log.error(`worker ${index + 1}: ${problem}`);
    }, slot.restartMs);
  }

  #kill(): void {
    for (const { worker } of this.#slots) worker.kill();
  }

  #notifyFreed(): void {
    for (const notify of this.#freed.splice(0)) notify();
  }

  /** Listens on every endpoint. If any fails, listens on none and rejects with a `ConfigError` that lists every failure. */
  async listenAll(endpoints: readonly Endpoint[]): Promise<Listener[]> {
    let devices = 0;
    const accepts = endpoints.map((endpoint, index) => {
      if (purposeOf(endpoint).kind !== 'vhost-user')
        return (source: Source, peer: Peer) => this.#accept(index, source, peer);
      const slot = this.#slots[devices++ % this.#slots.length]!;
      slot.devices++;
      return (source: Source, peer: Peer) => this.#handOver([slot], source, { endpoint: index, peer });
    });
    const log = this.#rateLimited.for('listeners', 'settings');
    const listeners = await listenOnAll(
      endpoints,
      index => accepts[index]!,
      text => log.warn(text),
    );
    for (const listener of listeners) this.#listeners.add(listener);
    return listeners;
  }

  #logRefusal({ label, origin }: Peer, reason: string): void {
    this.#rateLimited.for(peerKey(origin)).warn(`${label}: refused, since ${reason}`);
  }

  #accept(index: number, source: Source, peer: Peer): void {
    const { connections } = this.#options;
    if (this.connections >= connections) {
      this.#logRefusal(peer, `${connections} connections are open`);
      closeSource(source);
    } else this.#handOver(this.#byLoad(), source, { endpoint: index, peer });
  }

  /** Sorted by number of connections; round robin among equals. */
  #byLoad(): Slot[] {
    const slots = this.#slots;
    const from = this.#last + 1;
    const rotated = slots.map((_, i) => slots[(from + i) % slots.length]!);
    const load = ({ worker, devices }: Slot) => worker.connections + devices;
    return rotated.sort((a, b) => load(a) - load(b));
  }

  /** Passes a connection to the first worker that takes it. */
  #handOver(slots: readonly Slot[], source: Source, connection: Handoff): void {
    const descriptor = descriptorOf(source);
    const receiver = slots.find(({ worker }) => worker.handOver(connection, descriptor));
    if (receiver) this.#last = this.#slots.indexOf(receiver);
    else if (!this.#closing) this.#logRefusal(connection.peer, 'no worker can take it now');
    closeSource(source);
  }

  /** Number of open connections. */
  get connections(): number {
    return this.#slots.reduce((sum, { worker }) => sum + worker.connections, 0);
  }

  /** Resolves when no connection is open. */
  async connectionsEnded(): Promise<void> {
    while (this.connections > 0) await new Promise<void>(resolve => this.#freed.push(resolve));
  }

  /** Stops accepting, and lets the workers answer running requests. Resolves to false if one did not do so in time. */
  async close(graceMs: number): Promise<boolean> {
    this.#closing = true;
    for (const listener of this.#listeners) listener.close();
    const alive = this.#slots.map(({ worker }) => worker).filter(worker => worker.alive);
    for (const worker of alive) worker.stop();
    const timer = setTimeout(() => this.#kill(), graceMs + overtimeMs);
    const ends = await Promise.all(alive.map(worker => worker.ended));
    clearTimeout(timer);
    this.#rateLimited.close();
    return ends.every(inTime => inTime);
  }
}
