import type { Limits } from './limits.ts';
import { partyOf } from './party.ts';
import type { Origin, Peer } from './session/door.ts';
import type { Session } from './session/session.ts';
import { Shares } from './session/shares.ts';
import type { Stream } from './transport/stream.ts';
import { Turns } from './transport/turns.ts';

/** What the connections of one machine, address or user have in common. */
interface Party {
  readonly turns: Turns;
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
  readonly shares: Shares;
  readonly #limits: Limits;
  readonly #complain: (peer: Peer, text: string) => void;
  readonly #parties = new Map<string, Party>();
  readonly #streams = new Map<Stream, Connection>();
  readonly #sweeping: NodeJS.Timeout;

  /** `complain` is told of connections that are closed from here. */
  constructor(limits: Limits, complain: (peer: Peer, text: string) => void) {
    this.#limits = limits;
    this.#complain = complain;
    this.shares = new Shares(limits);
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
    const own = this.#parties.get(partyOf(peer.origin))?.connections ?? 0;
    return own >= connectionsPerPeer ? `it has ${connectionsPerPeer} connections` : undefined;
  }

  turnsOf({ origin }: Peer): Turns {
    return this.#party(origin).turns;
  }

  #party(origin: Origin | undefined): Party {
    const key = partyOf(origin);
    let party = this.#parties.get(key);
    if (!party) {
      party = { turns: new Turns(), connections: 0 };
      this.#parties.set(key, party);
    }
    return party;
  }

  add(stream: Stream, session: Session, peer: Peer): void {
    this.#streams.set(stream, { session, peer, since: performance.now() });
    this.#party(peer.origin).connections++;
    void stream.closed.then(() => {
      this.#streams.delete(stream);
      const party = this.#party(peer.origin);
      if (--party.connections === 0) this.#parties.delete(partyOf(peer.origin));
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
