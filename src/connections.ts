import type { Origin, Peer } from '#base/peer.ts';
import { peerKey } from '#base/peer.ts';
import type { Limits } from '#quota/limits.ts';
import { ServerShare } from '#quota/server-share.ts';
import { TimeSlice } from '#quota/time-slice.ts';
import type { Session } from '#session/session.ts';
import type { Stream } from '#transport/stream.ts';

/** What the connections of one machine, address or user have in common. */
interface PeerState {
  readonly timeSlice: TimeSlice;
  connections: number;
}

interface Connection {
  readonly session: Session;
  readonly peer: Peer;
  /** When it last was seen with a version, or came. */
  since: number;
}

/** The connections of a server: how many there may be, and what each may use of what is for all. */
export class Connections {
  readonly share: ServerShare;
  readonly #limits: Limits;
  readonly #complain: (peer: Peer, text: string) => void;
  readonly #peers = new Map<string, PeerState>();
  readonly #streams = new Map<Stream, Connection>();
  readonly #sweeping: NodeJS.Timeout;

  /** `complain` is told of connections that are closed from here. */
  constructor(limits: Limits, complain: (peer: Peer, text: string) => void) {
    this.#limits = limits;
    this.#complain = complain;
    this.share = new ServerShare(limits);
    this.#sweeping = setInterval(() => this.#sweep(), limits.versionSeconds * 250).unref();
  }

  get size(): number {
    return this.#streams.size;
  }

  [Symbol.iterator](): Iterator<Stream> {
    return this.#streams.keys();
  }

  /** Why there may be no further one of this peer, or undefined. */
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

  /** Closes those that hold a place without using it. */
  #sweep(): void {
    const { versionSeconds } = this.#limits;
    const now = performance.now();
    for (const [stream, connection] of this.#streams) {
      const { session, peer, since } = connection;
      // What still runs of an older version keeps the next one waiting.
      if (session.msize > 0 || session.counts().requests > 0) connection.since = now;
      else if (now - since >= versionSeconds * 1000) {
        this.#complain(peer, `${peer.label}: no version for ${versionSeconds} s; the connection is closed`);
        stream.destroy();
      }
    }
  }

  close(): void {
    clearInterval(this.#sweeping);
  }
}
