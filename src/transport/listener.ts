import type { Peer } from '#base/peer.ts';
import type { Audience } from './audience.ts';
import type { Endpoint } from './endpoint.ts';
import type { Source } from './stream.ts';

/** Called for every connection, in the turn in which it came. */
export type Accept = (source: Source, peer: Peer) => void;

export interface Listener {
  readonly endpoint: Endpoint;
  /** Where it really listens: the port that the system chose, the descriptor that the name stood for. */
  readonly uri: string;
  /** Whether this is the one connection the process was started with; there will be no other. */
  readonly single: boolean;
  readonly audience: Audience;
  /** Takes no more connections; those there are live on. */
  close(): void;
  /** Gives the socket to another program, and leaves it open and its file in place. Takes no more connections. */
  detach(): Endpoint;
}

/** Why an endpoint cannot be listened on, in words that say what to do. */
export class ListenError extends Error {}
