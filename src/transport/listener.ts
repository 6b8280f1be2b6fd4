import type { Peer } from '#base/peer.ts';
import type { Audience } from './audience.ts';
import type { Endpoint } from './endpoint.ts';
import type { Source } from './stream.ts';

/** Called for every connection, in the event-loop callback that accepts it. */
export type Accept = (source: Source, peer: Peer) => void;

export interface Listener {
  readonly endpoint: Endpoint;
  /** The actual address: with the port that the kernel chose, or the descriptor that a name stands for. */
  readonly uri: string;
  /** Whether it is an inherited connection, after which no other comes. */
  readonly single: boolean;
  readonly audience: Audience;
  /** Stops accepting. Open connections stay. */
  close(): void;
  /** Stops accepting, and returns the open socket as an endpoint. A socket file stays in place. */
  detach(): Endpoint;
}

/** Why listening failed, and what to do about it. */
export class ListenError extends Error {}
