import { ConfigError } from '#base/config-error.ts';
import { type Logger, silent } from '#base/log.ts';
import type { Peer } from '#base/peer.ts';
import { peerKey } from '#base/peer.ts';
import { RateLimitedLog } from '#base/rate-limited-log.ts';
import {
  type Export,
  type ExportOptions,
  Exports,
  exportProblems,
  type TreeExport,
} from '#exports/exports.ts';
import { exportsFor } from '#exports/resolve.ts';
import { defaultLimits, type Limits, limitFaults, msizeBytesDefault } from '#quota/limits.ts';
import type { GroupsOf } from '#security/passthrough.ts';
import type { TransportPort } from '#session/exchange.ts';
import { Session } from '#session/session.ts';
import { type Endpoint, endpointOf, purposeOf } from '#transport/endpoint.ts';
import { type Accept, closeSource, ListenError, type Listener, listenOnAll } from '#transport/listen.ts';
import { type Source, Stream } from '#transport/stream.ts';
import { VhostUserListener } from '#transport/vhost-user/listener.ts';
import { Connections } from './connections.ts';

export interface ServerOptions {
  /** At least one; the first is what a guest gets that asks for none. */
  readonly exports: readonly (ExportOptions | TreeExport)[];
  /** The largest msize to agree to, in bytes; 1 MiB when left out. */
  readonly msizeMax?: number;
  /** Bounds other than the usual ones, by their names. */
  readonly limits?: Partial<Limits>;
  /** What `passthrough` learns of a user; the host's user database when left out. */
  readonly groupsOf?: GroupsOf;
  /** Where to say what happens; nowhere when left out. */
  readonly log?: Logger;
  /** Called when a connection has ended. */
  readonly connectionEnded?: () => void;
}

/**
 * A server for any number of listeners. It sets the umask of the process to 0, since permission bits are the guests'
 * business, and leaves everything else of the process alone.
 */
export class Server {
  readonly exports: Exports;
  readonly #msizeMax: number;
  readonly #log: RateLimitedLog;
  readonly #connectionEnded: () => void;
  readonly #listeners = new Set<Listener>();
  readonly #limits: Limits;
  readonly #connections: Connections;
  readonly #faces = new Set<VhostUserListener>();
  #closing = false;

  private constructor(exports: Exports, options: ServerOptions) {
    const { msizeMax = msizeBytesDefault, log = silent, connectionEnded = () => undefined } = options;
    this.exports = exports;
    this.#msizeMax = msizeMax;
    this.#log = new RateLimitedLog(log);
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#connections = new Connections(this.#limits, (peer, text) => this.#logOf(peer).warn(text));
    this.#connectionEnded = connectionEnded;
  }

  /** Opens the exports. Rejects with `StartFaults`, which names everything that is wrong with them. */
  static async open(options: ServerOptions): Promise<Server> {
    process.umask(0);
    const problems = limitFaults(options.limits ?? {});
    if (problems.length > 0) throw new ConfigError([...problems, ...(await exportProblems(options.exports))]);
    return new Server(await Exports.open(options.exports, options), options);
  }

  /** Listens on one more URI, and resolves to where that really is. Rejects with `StartFaults`. */
  async listen(uri: string): Promise<string> {
    const endpoint = endpointOf(uri);
    if (typeof endpoint === 'string') throw new ConfigError([`${uri}: ${endpoint}`]);
    const [listener] = await this.listenAll([endpoint]);
    return listener!.uri;
  }

  /** Listens on all of them, or on none: then rejects with `StartFaults` for all that failed. */
  async listenAll(endpoints: readonly Endpoint[]): Promise<Listener[]> {
    const log = this.#log.for('listeners', 'settings');
    const listeners = await listenOnAll(
      endpoints,
      at => this.acceptFor(endpoints[at]!),
      text => log.warn(text),
    );
    for (const listener of listeners) this.#listeners.add(listener);
    return listeners;
  }

  #logOf({ origin }: Peer): Logger {
    return this.#log.for(peerKey(origin));
  }

  #session(line: TransportPort, log: Logger, only?: Export): Session {
    const { peer } = line;
    const exports = exportsFor(this.exports, peer, only, text => log.info(`${peer.label}: ${text}`));
    const { share } = this.#connections;
    return new Session({
      exports,
      transport: line,
      log,
      msizeMax: this.#msizeMax,
      limits: this.#limits,
      share: share,
    });
  }

  /** What becomes of the connections of a listener; for who listens himself. Throws a `ListenFault`. */
  acceptFor(given: Endpoint): Accept {
    const endpoint = purposeOf(given);
    if (endpoint.kind !== 'vhost-user') {
      const busyPoll = 'busyPoll' in endpoint ? endpoint.busyPoll : 0;
      return (source, peer) => this.#accept(source, peer, busyPoll);
    }
    const only = this.#named(endpoint.exportName);
    // A device is one guest's, whoever runs its monitor.
    const log = this.#log.for(`vhost-user ${endpoint.path}`, 'settings');
    const face = new VhostUserListener(endpoint, line => this.#session(line, log, only), log);
    this.#faces.add(face);
    return (source, peer) => face.accept(source, peer);
  }

  #named(name: string | undefined): Export | undefined {
    if (name === undefined) return undefined;
    const only = this.exports.find(Buffer.from(name).toString('latin1'));
    if (only) return only;
    throw new ListenError(`there is no export "${name}": name one that is exported, or leave export= out`);
  }

  #accept(source: Source, peer: Peer, busyPoll: number | undefined): void {
    const connections = this.#connections;
    const log = this.#logOf(peer);
    const refusal = connections.refusal(peer);
    if (this.#closing || refusal !== undefined) {
      if (!this.#closing) log.warn(`${peer.label}: refused, since ${refusal}`);
      closeSource(source);
      return;
    }
    let session!: Session;
    const open = (line: TransportPort) => {
      session = this.#session(line, log);
      return session;
    };
    const turns = connections.timeSliceOf(peer);
    const stream = new Stream(source, peer, open, text => log.warn(text), turns, busyPoll);
    connections.add(stream, session, peer);
    log.info(`${peer.label}: connected`);
    void stream.closed.then(() => {
      log.info(`${peer.label}: closed`);
      this.#connectionEnded();
    });
  }

  /** How many connections are open. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Resolves when no connection is open. */
  async connectionsEnded(): Promise<void> {
    while (this.#connections.size > 0) await Promise.all([...this.#connections].map(one => one.closed));
  }

  /**
   * Takes no more connections and requests, lets what runs be finished and answered, and lets go of everything. Resolves
   * to false when that took longer than `graceMs`; connections are cut then.
   */
  async close(graceMs = 10_000): Promise<boolean> {
    this.#closing = true;
    for (const listener of this.#listeners) listener.close();
    this.#listeners.clear();
    for (const stream of this.#connections) void stream.finish();
    const devicesEnded = Promise.all([...this.#faces].map(face => face.finish()));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>(resolve => {
      timer = setTimeout(() => resolve(false), graceMs);
    });
    const inTime = await Promise.race([
      Promise.all([this.connectionsEnded(), devicesEnded]).then(() => true),
      late,
    ]);
    clearTimeout(timer);
    this.#connections.close();
    for (const stream of this.#connections) stream.destroy();
    for (const face of this.#faces) void face.close();
    this.#log.close();
    // What still runs still uses the trees.
    if (inTime) this.exports.close();
    return inTime;
  }
}
