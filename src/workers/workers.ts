import { ConfigError } from '#base/config-error.ts';
import type { Logger } from '#base/log.ts';
import type { Peer } from '#base/peer.ts';
import { peerKey } from '#base/peer.ts';
import { RateLimitedLog } from '#base/rate-limited-log.ts';
import { type Endpoint, purposeOf } from '#transport/endpoint.ts';
import { closeSource, type Listener, listenOnAll } from '#transport/listen.ts';
import type { Source } from '#transport/stream.ts';
import type { Handoff } from './channel.ts';
import { type Program, Worker } from './worker.ts';

export interface WorkersOptions {
  readonly count: number;
  readonly program: Program;
  readonly log: Logger;
  /** How many there may be at a time. */
  readonly connections: number;
}

/** A worker that lives as long as this has no share in why an earlier one died. */
const steadyMsMin = 10_000;
const restartMsMin = 100;
const restartMsMax = 10_000;
/** For a worker to end by itself when its time for that is over. */
const overtimeMs = 1000;

/** The place of a worker, in which one follows the other. */
interface Place {
  worker: Worker;
  /** Listeners of its own: a device's connections all go to one process. */
  devices: number;
  restartMs: number;
}

/**
 * Listens, and hands every connection to the one of several processes that has the fewest. What the processes have in
 * common is in the kernel: files, their locks and their ctimes. One that dies takes its connections along and is replaced.
 */
export class Workers {
  readonly #options: WorkersOptions;
  /** For what peers bring about. */
  readonly #rateLimited: RateLimitedLog;
  readonly #places: Place[] = [];
  readonly #listeners = new Set<Listener>();
  readonly #freed: (() => void)[] = [];
  #last = -1;
  #closing = false;

  private constructor(options: WorkersOptions) {
    this.#options = options;
    this.#rateLimited = new RateLimitedLog(options.log);
    // However this process ends, it leaves nobody behind.
    process.on('exit', () => this.#kill());
  }

  /** Resolves when all serve. Rejects with `StartFaults`. */
  static async open(options: WorkersOptions): Promise<Workers> {
    const workers = new Workers(options);
    for (let index = 0; index < options.count; index++) {
      workers.#places.push({ worker: workers.#start(index), devices: 0, restartMs: 0 });
    }
    const problems = await Promise.all(workers.#places.map(({ worker }) => worker.started));
    const distinct = [...new Set(problems.flat())];
    if (distinct.length === 0) return workers;
    workers.#closing = true;
    workers.#kill();
    throw new ConfigError(distinct);
  }

  #start(index: number): Worker {
    const { program, log } = this.#options;
    const worker = new Worker(index + 1, program, () => this.#tellFreed());
    void worker.ended.then(() => {
      if (!this.#closing) this.#replace(index, worker);
    });
    log.debug(`worker ${index + 1}: process ${worker.pid}`);
    return worker;
  }

  #replace(index: number, dead: Worker): void {
    const place = this.#places[index]!;
    const steady = performance.now() - dead.born > steadyMsMin;
    place.restartMs = steady ? 0 : Math.min(Math.max(place.restartMs * 2, restartMsMin), restartMsMax);
    const { log } = this.#options;
    log.error(
      `worker ${index + 1} (process ${dead.pid}) has died, ${dead.how}: ` +
        `${dead.lost} connections are gone with it; another one is started`,
    );
    this.#tellFreed();
    setTimeout(async () => {
      if (this.#closing) return;
      place.worker = this.#start(index);
      for (const problem of await place.worker.started) log.error(`worker ${index + 1}: ${problem}`);
    }, place.restartMs);
  }

  #kill(): void {
    for (const { worker } of this.#places) worker.kill();
  }

  #tellFreed(): void {
    for (const tell of this.#freed.splice(0)) tell();
  }

  /** Listens on all of them, or on none: then rejects with `StartFaults` for all that failed. */
  async listenAll(endpoints: readonly Endpoint[]): Promise<Listener[]> {
    let devices = 0;
    const accepts = endpoints.map((endpoint, index) => {
      if (purposeOf(endpoint).kind !== 'vhost-user')
        return (source: Source, peer: Peer) => this.#accept(index, source, peer);
      const place = this.#places[devices++ % this.#places.length]!;
      place.devices++;
      return (source: Source, peer: Peer) =>
        this.#give([place], source, { endpoint: index, peer, counted: false });
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

  #refused({ label, origin }: Peer, why: string): void {
    this.#rateLimited.for(peerKey(origin)).warn(`${label}: refused, since ${why}`);
  }

  #accept(index: number, source: Source, peer: Peer): void {
    const { connections } = this.#options;
    if (this.connections >= connections) {
      this.#refused(peer, `${connections} connections are open`);
      closeSource(source);
    } else this.#give(this.#byLoad(), source, { endpoint: index, peer, counted: true });
  }

  /** Those with the fewest connections first; equals take turns. */
  #byLoad(): Place[] {
    const places = this.#places;
    const from = this.#last + 1;
    const inTurn = places.map((_, i) => places[(from + i) % places.length]!);
    const load = ({ worker, devices }: Place) => worker.connections + devices;
    return inTurn.sort((a, b) => load(a) - load(b));
  }

  /** Hands a connection to the first that takes it. */
  #give(places: readonly Place[], source: Source, connection: Handoff): void {
    const descriptor = 'fd' in source ? source.fd : (source.handle as { readonly fd: number }).fd;
    const taker = places.find(({ worker }) => worker.give(connection, descriptor));
    if (taker) this.#last = this.#places.indexOf(taker);
    else if (!this.#closing) this.#refused(connection.peer, 'no worker takes it at the moment');
    closeSource(source);
  }

  /** How many connections are open. */
  get connections(): number {
    return this.#places.reduce((sum, { worker }) => sum + worker.connections, 0);
  }

  /** Resolves when no connection is open. */
  async connectionsEnded(): Promise<void> {
    while (this.connections > 0) await new Promise<void>(resolve => this.#freed.push(resolve));
  }

  /** Takes no more connections, and lets the workers finish what runs. Resolves to false when one did not in time. */
  async close(graceMs: number): Promise<boolean> {
    this.#closing = true;
    for (const listener of this.#listeners) listener.close();
    const living = this.#places.map(({ worker }) => worker).filter(worker => worker.living);
    for (const worker of living) worker.stop();
    const timer = setTimeout(() => this.#kill(), graceMs + overtimeMs);
    const ends = await Promise.all(living.map(worker => worker.ended));
    clearTimeout(timer);
    this.#rateLimited.close();
    return ends.every(inTime => inTime);
  }
}
