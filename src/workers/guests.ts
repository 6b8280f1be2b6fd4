import type { Logger } from '#base/log.ts';
import type { Peer } from '#base/peer.ts';
import { peerKey } from '#base/peer.ts';
import { RateLimitedLog } from '#base/rate-limited-log.ts';
import type { Endpoint } from '#transport/endpoint.ts';
import { closeSource, descriptorOf, type Listener, listenOnAll } from '#transport/listen.ts';
import type { Source } from '#transport/stream.ts';
import { type Program, Worker } from './worker.ts';

/** A guest as the main process knows it. */
export interface Guest {
  /** Equal for all connections of a guest. */
  readonly key: string;
  /** The worker's program. Called when the guest has none. */
  readonly program: () => Program;
}

export interface GuestsOptions {
  readonly log: Logger;
  /** Which guest a connection belongs to. A string says why it is refused. */
  readonly guestOf: (endpoint: number, peer: Peer) => Guest | string;
  /** Limit of workers at a time. */
  readonly workers: number;
  /** Limit of open connections. */
  readonly connections: number;
  /** A worker without connections ends after this time. */
  readonly idleMs: number;
}

/** A worker that ran for at least this long is replaced without delay. */
const steadyMsMin = 10_000;
const restartMsMin = 100;
const restartMsMax = 10_000;
/** Time after the grace period for a worker to exit by itself. */
const overtimeMs = 1000;
/** Connections of one guest that wait for its worker to start. */
const waitingMax = 128;

interface Waiting {
  readonly source: Source;
  readonly peer: Peer;
}

/** A guest's worker process. */
interface Slot {
  readonly key: string;
  worker: Worker;
  waiting: Waiting[];
  idleTimer: NodeJS.Timeout | undefined;
  /** It was able to serve. */
  served: boolean;
}

/**
 * Listens, and passes each connection to its guest's own worker process, which is started with the guest's first connection and
 * ends some time after the last. Reads nothing from a connection. A worker that dies takes only its guest's connections along.
 */
export class Guests {
  readonly #options: GuestsOptions;
  /** For log lines that peers cause. */
  readonly #rateLimited: RateLimitedLog;
  readonly #slots = new Map<string, Slot>();
  /** Workers that were told to end. */
  readonly #ending = new Set<Worker>();
  /** Guests whose worker died soon: when the next may start, and how long it is delayed. */
  readonly #delays = new Map<string, { readonly until: number; readonly ms: number }>();
  readonly #listeners = new Set<Listener>();
  readonly #freed: (() => void)[] = [];
  #closing = false;

  constructor(options: GuestsOptions) {
    this.#options = options;
    this.#rateLimited = new RateLimitedLog(options.log);
    process.on('exit', () => this.#kill());
  }

  /** Listens on every endpoint. If any fails, listens on none and rejects with a `ConfigError` that lists every failure. */
  async listenAll(endpoints: readonly Endpoint[]): Promise<Listener[]> {
    const log = this.#rateLimited.for('listeners', 'settings');
    const listeners = await listenOnAll(
      endpoints,
      index => (source, peer) => this.#accept(index, source, peer),
      text => log.warn(text),
    );
    for (const listener of listeners) this.#listeners.add(listener);
    return listeners;
  }

  #accept(endpoint: number, source: Source, peer: Peer): void {
    const refusal = this.#refusal(endpoint, source, peer);
    if (refusal === undefined) return;
    if (!this.#closing) this.#logOf(peer).warn(`${peer.label}: refused, since ${refusal}`);
    closeSource(source);
  }

  #logOf({ origin }: Peer): Logger {
    return this.#rateLimited.for(peerKey(origin));
  }

  /** Passes the connection on or keeps it until the worker has started; otherwise says why not. */
  #refusal(endpoint: number, source: Source, peer: Peer): string | undefined {
    const { connections, guestOf, workers } = this.#options;
    if (this.#closing) return 'the server is stopping';
    if (this.connections >= connections) return `${connections} connections are open`;
    const guest = guestOf(endpoint, peer);
    if (typeof guest === 'string') return guest;
    let slot = this.#slots.get(guest.key);
    if (!slot) {
      const delay = this.#delays.get(guest.key);
      if (delay && performance.now() < delay.until) return 'the worker of its guest has just died';
      if (this.#slots.size >= workers && !this.#endIdle()) return `${workers} guests are connected`;
      slot = this.#start(guest);
    }
    clearTimeout(slot.idleTimer);
    if (slot.worker.serving) return this.#handOver(slot, source, peer);
    if (slot.waiting.length >= waitingMax) return `${waitingMax} connections wait for its worker to start`;
    slot.waiting.push({ source, peer });
    return undefined;
  }

  #handOver(slot: Slot, source: Source, peer: Peer): string | undefined {
    if (!slot.worker.handOver({ endpoint: 0, peer }, descriptorOf(source)))
      return 'its worker cannot take it now';
    closeSource(source);
    return undefined;
  }

  #start({ key, program }: Guest): Slot {
    const { log } = this.#options;
    const worker = new Worker(`the worker of ${key}`, program(), () => this.#connectionsEnded(slot));
    const slot: Slot = { key, worker, waiting: [], idleTimer: undefined, served: false };
    this.#slots.set(key, slot);
    log.debug(`${key}: worker process ${worker.pid}`);
    void worker.started.then(problems => this.#started(slot, problems));
    void worker.ended.then(() => this.#ended(slot));
    return slot;
  }

  #started(slot: Slot, problems: readonly string[]): void {
    slot.served = problems.length === 0;
    for (const { source, peer } of slot.waiting.splice(0)) {
      const refusal = problems.length > 0 ? 'its worker could not start' : this.#handOver(slot, source, peer);
      if (refusal === undefined) continue;
      this.#logOf(peer).warn(`${peer.label}: refused, since ${refusal}`);
      closeSource(source);
    }
    const log = this.#rateLimited.for(slot.key);
    if (!this.#ending.has(slot.worker)) for (const problem of problems) log.error(`${slot.key}: ${problem}`);
  }

  #ended({ key, worker, idleTimer, served }: Slot): void {
    clearTimeout(idleTimer);
    if (this.#slots.get(key)?.worker === worker) this.#slots.delete(key);
    const asked = this.#ending.delete(worker) || this.#closing;
    this.#notifyFreed();
    if (asked) return;
    const steady = performance.now() - worker.startedAt > steadyMsMin;
    const before = steady ? 0 : (this.#delays.get(key)?.ms ?? 0);
    const ms = Math.min(Math.max(before * 2, restartMsMin), restartMsMax);
    // Delays in the past are of no use.
    for (const [other, { until }] of this.#delays) if (until < performance.now()) this.#delays.delete(other);
    this.#delays.set(key, { until: performance.now() + (steady ? 0 : ms), ms });
    if (!served) return;
    this.#rateLimited
      .for(key)
      .error(
        `${key}: the worker (process ${worker.pid}) has died, ${worker.how}: ${worker.lost} connections are gone ` +
          'with it; the next connection starts another',
      );
  }

  #connectionsEnded(slot: Slot): void {
    this.#notifyFreed();
    clearTimeout(slot.idleTimer);
    if (slot.worker.connections > 0 || slot.waiting.length > 0) return;
    slot.idleTimer = setTimeout(() => this.#end(slot), this.#options.idleMs);
  }

  #end(slot: Slot): void {
    clearTimeout(slot.idleTimer);
    this.#slots.delete(slot.key);
    this.#ending.add(slot.worker);
    slot.worker.stop();
  }

  /** Ends a worker that has no connection, to make room for another. False if there is none. */
  #endIdle(): boolean {
    for (const slot of this.#slots.values()) {
      if (!slot.worker.serving || slot.worker.connections > 0) continue;
      this.#end(slot);
      return true;
    }
    return false;
  }

  #notifyFreed(): void {
    for (const notify of this.#freed.splice(0)) notify();
  }

  #kill(): void {
    for (const { worker } of this.#slots.values()) worker.kill();
    for (const worker of this.#ending) worker.kill();
  }

  /** Number of open connections, those that wait for a worker included. */
  get connections(): number {
    let sum = 0;
    for (const { worker, waiting } of this.#slots.values()) sum += worker.connections + waiting.length;
    return sum;
  }

  /** Resolves when no connection is open. */
  async connectionsEnded(): Promise<void> {
    while (this.connections > 0) await new Promise<void>(resolve => this.#freed.push(resolve));
  }

  /** Stops accepting, and lets the workers answer running requests. Resolves to false if one did not do so in time. */
  async close(graceMs: number): Promise<boolean> {
    this.#closing = true;
    for (const listener of this.#listeners) listener.close();
    const workers = [...this.#slots.values()].map(({ worker, waiting }) => {
      for (const { source } of waiting.splice(0)) closeSource(source);
      return worker;
    });
    for (const worker of workers) worker.stop();
    const timer = setTimeout(() => this.#kill(), graceMs + overtimeMs);
    const ends = await Promise.all([...workers, ...this.#ending].map(worker => worker.ended));
    clearTimeout(timer);
    this.#rateLimited.close();
    return ends.every(inTime => inTime);
  }
}
