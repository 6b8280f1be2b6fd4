import type { Origin, Peer } from '#base/peer.ts';
import { peerKey } from '#base/peer.ts';
import type { Limits } from '#quota/limits.ts';
import { ServerShare } from '#quota/server-share.ts';
import { TimeSlice } from '#quota/time-slice.ts';
import type { Session } from '#session/session.ts';
import type { Stream } from '#transport/stream.ts';

/** State shared by the connections of one peer (`peerKey`). */
interface PeerState {
  readonly timeSlice: TimeSlice;
  connections: number;
}

interface Connection {
  readonly session: Session;
  readonly peer: Peer;
  /** When it was last seen attached or with a running request; at first, when it connected. */
  since: number;
}

/** A server's stream connections: their limits, and their shares of common resources. */
export class Connections {
  readonly share: ServerShare;
  readonly #limits: Limits;
  readonly #warn: (peer: Peer, text: string) => void;
  readonly #peers = new Map<string, PeerState>();
  readonly #streams = new Map<Stream, Connection>();
  readonly #sweepTimer: NodeJS.Timeout;

  /** `warn` gets a line for each connection that is closed for lack of a version or an attach. */
  constructor(limits: Limits, warn: (peer: Peer, text: string) => void) {
    this.#limits = limits;
    this.#warn = warn;
    this.share = new ServerShare(limits);
    this.#sweepTimer = setInterval(
      () => this.#sweep(),
      Math.min(limits.versionSeconds, limits.attachSeconds) * 250,
    ).unref();
  }

  get size(): number {
    return this.#streams.size;
  }

  [Symbol.iterator](): Iterator<Stream> {
    return this.#streams.keys();
  }

  /** Why the peer may not open another connection; undefined if it may. */
  refusal(peer: Peer): string | undefined {
    const { connections, connectionsPerPeer } = this.#limits;
    if (this.#streams.size >= connections) return `${connections} connections are open`;
    const own = this.#peers.get(peerKey(peer.origin))?.connections ?? 0;
    return own >= connectionsPerPeer ? `it has ${connectionsPerPeer} connections` : undefined;
  }

  timeSliceOf({ origin }: Peer): TimeSlice {
    return this.#peerState(origin).timeSlice;
  }

  #peerState(origin: Origin | undefined): PeerState {
    const key = peerKey(origin);
    let peerState = this.#peers.get(key);
    if (!peerState) {
      peerState = { timeSlice: new TimeSlice(), connections: 0 };
      this.#peers.set(key, peerState);
    }
    return peerState;
  }

  add(stream: Stream, session: Session, peer: Peer): void {
    this.#streams.set(stream, { session, peer, since: performance.now() });
    this.#peerState(peer.origin).connections++;
    void stream.closed.then(() => {
      this.#streams.delete(stream);
      const peerState = this.#peerState(peer.origin);
      if (--peerState.connections === 0) this.#peers.delete(peerKey(peer.origin));
    });
  }

  /** Closes connections without a negotiated version, and those that do not attach. */
  #sweep(): void {
    const { versionSeconds, attachSeconds } = this.#limits;
    const now = performance.now();
    for (const [stream, connection] of this.#streams) {
      const { session, peer, since } = connection;
      // A running request of an earlier version delays the next Tversion.
      if (session.hasAttached || session.counts().requests > 0) {
        connection.since = now;
        continue;
      }
      const [seconds, lacks] =
        session.msize === 0 ? [versionSeconds, 'version'] : [attachSeconds, 'attach to an export'];
      if (now - since < seconds * 1000) continue;
      this.#warn(peer, `${peer.label}: no ${lacks} for ${seconds} s; the connection is closed`);
      stream.destroy();
    }
  }

  close(): void {
    clearInterval(this.#sweepTimer);
  }
}
