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
  /** At least one. The first is the default, for an empty aname. */
  readonly exports: readonly (ExportOptions | TreeExport)[];
  /** The largest msize to agree to, in bytes. Default: 1 MiB. */
  readonly msizeMax?: number;
  /** Limits that differ from `defaultLimits`. */
  readonly limits?: Partial<Limits>;
  /** How `passthrough` looks up a user's groups. Default: the host's user database. */
  readonly groupsOf?: GroupsOf;
  /** Default: no log. */
  readonly log?: Logger;
  /** Called after a connection has closed or was refused. */
  readonly connectionEnded?: () => void;
  /** There are exports of which this server is not told: an unknown name gives EACCES, as a denied one does. */
  readonly moreExports?: boolean;
}

/**
 * A server with any number of listeners. Sets the umask of the process to 0, so that guests choose permission bits; changes no
 * other property of the process.
 */
export class Server {
  readonly exports: Exports;
  readonly #msizeMax: number;
  readonly #log: RateLimitedLog;
  readonly #connectionEnded: () => void;
  readonly #moreExports: boolean;
  readonly #listeners = new Set<Listener>();
  readonly #limits: Limits;
  readonly #connections: Connections;
  readonly #vhostListeners = new Set<VhostUserListener>();
  #closing = false;

  private constructor(exports: Exports, options: ServerOptions) {
    const { msizeMax = msizeBytesDefault, log = silent, connectionEnded = () => undefined } = options;
    this.exports = exports;
    this.#msizeMax = msizeMax;
    this.#log = new RateLimitedLog(log);
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#connections = new Connections(this.#limits, (peer, text) => this.#logOf(peer).warn(text));
    this.#connectionEnded = connectionEnded;
    this.#moreExports = options.moreExports ?? false;
  }

  /** Opens the exports. Rejects with a `ConfigError` that lists every problem. */
  static async open(options: ServerOptions): Promise<Server> {
    process.umask(0);
    const problems = limitFaults(options.limits ?? {});
    if (problems.length > 0) throw new ConfigError([...problems, ...(await exportProblems(options.exports))]);
    return new Server(await Exports.open(options.exports, options), options);
  }

  /** Listens on a URI. Resolves to the URI with the actual port. Rejects with a `ConfigError`. */
  async listen(uri: string): Promise<string> {
    const endpoint = endpointOf(uri);
    if (typeof endpoint === 'string') throw new ConfigError([`${uri}: ${endpoint}`]);
    const [listener] = await this.listenAll([endpoint]);
    return listener!.uri;
  }

  /** Listens on every endpoint. If any fails, listens on none and rejects with a `ConfigError` that lists every failure. */
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

  #session(port: TransportPort, log: Logger, only?: Export): Session {
    const { peer } = port;
    const exports = exportsFor(this.exports, peer, only, this.#moreExports, text =>
      log.info(`${peer.label}: ${text}`),
    );
    const { share } = this.#connections;
    return new Session({
      exports,
      transport: port,
      log,
      msizeMax: this.#msizeMax,
      limits: this.#limits,
      share,
    });
  }

  /** The accept callback for an endpoint, for callers with their own listener. Throws a `ListenError` for an unknown export. */
  acceptFor(given: Endpoint): Accept {
    const endpoint = purposeOf(given);
    if (endpoint.kind !== 'vhost-user') {
      const busyPoll = 'busyPoll' in endpoint ? endpoint.busyPoll : 0;
      return (source, peer) => this.#accept(source, peer, busyPoll);
    }
    const only = this.#named(endpoint.exportName);
    // Keyed by socket: it serves one guest, whatever user its monitor runs as.
    const log = this.#log.for(`vhost-user ${endpoint.path}`, 'settings');
    const listener = new VhostUserListener(
      endpoint,
      port => this.#session(port, log, only),
      log,
      this.#connectionEnded,
    );
    this.#vhostListeners.add(listener);
    return (source, peer) => {
      const refusal = this.exports.refusal(peer, only);
      if (refusal === undefined) return listener.accept(source, peer);
      log.warn(
        `vhost-user ${endpoint.path}: ${peer.label} is refused, since no export is for it: ${refusal}`,
      );
      closeSource(source);
    };
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
    const forNobody = this.exports.refusal(peer);
    const refusal = forNobody === undefined ? connections.refusal(peer) : `no export is for it: ${forNobody}`;
    if (this.#closing || refusal !== undefined) {
      if (!this.#closing) log.warn(`${peer.label}: refused, since ${refusal}`);
      closeSource(source);
      this.#connectionEnded();
      return;
    }
    let session!: Session;
    const open = (port: TransportPort) => {
      session = this.#session(port, log);
      return session;
    };
    const timeSlice = connections.timeSliceOf(peer);
    const stream = new Stream(source, peer, open, text => log.warn(text), timeSlice, busyPoll);
    connections.add(stream, session, peer);
    log.info(`${peer.label}: connected`);
    void stream.closed.then(() => {
      log.info(`${peer.label}: closed`);
      this.#connectionEnded();
    });
  }

  /** Number of open stream connections. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Number of vhost-user monitors that are connected. */
  get monitors(): number {
    return [...this.#vhostListeners].filter(listener => listener.connected).length;
  }

  /** Resolves when no stream connection is open. */
  async connectionsEnded(): Promise<void> {
    while (this.#connections.size > 0) await Promise.all([...this.#connections].map(one => one.closed));
  }

  /**
   * Stops accepting connections and reading requests, waits until running requests are answered, and closes everything.
   * Resolves to false if that takes longer than `graceMs`; then it closes the connections without waiting.
   */
  async close(graceMs = 10_000): Promise<boolean> {
    this.#closing = true;
    for (const listener of this.#listeners) listener.close();
    this.#listeners.clear();
    for (const stream of this.#connections) void stream.finish();
    const devicesEnded = Promise.all([...this.#vhostListeners].map(listener => listener.finish()));
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<boolean>(resolve => {
      timer = setTimeout(() => resolve(false), graceMs);
    });
    const inTime = await Promise.race([
      Promise.all([this.connectionsEnded(), devicesEnded]).then(() => true),
      timeout,
    ]);
    clearTimeout(timer);
    this.#connections.close();
    for (const stream of this.#connections) stream.destroy();
    for (const listener of this.#vhostListeners) void listener.close();
    this.#log.close();
    // Otherwise running calls still use the trees.
    if (inTime) this.exports.close();
    return inTime;
  }
}
