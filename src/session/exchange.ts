import type { OwnedSegments, Segments } from '#base/owned.ts';
import type { Peer } from '#base/peer.ts';

/**
 * One request on its way through a session: what the transport received, and where the reply goes. The session does not
 * know what the transport is; a stream and a virtqueue hand it the same thing.
 *
 * A session answers an exchange with exactly one `commit` or one `drop`, during `Session.receive` or later. What is not
 * answered when `receive` returns must have been kept by `later()`. Memory of an exchange is valid until `receive` returns;
 * what is `Owned` of a kept one is valid until that is answered.
 */
export interface Exchange {
  /** The memory that the message lies in, often with others. Private: nobody changes it while it is read. */
  readonly head: Buffer;
  /** Where in `head` the message begins, with size[4], and where it ends, without the payload of Twrite. */
  readonly from: number;
  readonly to: number;
  /** The payload of Twrite, which may lie in guest memory and change while it is read; empty for other messages. */
  readonly payload: Segments;

  /** Where the reply's head is encoded: at least `replyHeadBytesMax` bytes of private memory from `at` on of `out`. */
  readonly out: Buffer;
  readonly at: number;

  /**
   * Memory for `count` bytes of Rread or Rreaddir data, directly behind a head of 11 bytes. Called at most once, and once
   * more after `later` or when the first was not used; `out` and `at` are read only afterwards, since making room may move
   * them.
   */
  reserveData(count: number): Segments;

  /** Sends `headBytes` bytes from `out` at `at`, followed by the first `dataBytes` bytes of the space. */
  commit(headBytes: number, dataBytes: number): void;

  /** No reply will be sent: the request was flushed, or its session is gone. */
  drop(): void;

  /**
   * The same exchange in a form that is valid until it is answered. A stream copies the payload here; a virtqueue returns
   * itself, and the guest gets its buffers back with the answer. Called at most once, and what is answered is then what it
   * returned; a space that was taken before is void. No answer is given before every call that has the payload is settled.
   */
  detach(): DetachedExchange;
}

/** An exchange that was kept. */
export interface DetachedExchange extends Exchange {
  readonly payload: OwnedSegments;
}

/** Bytes of the largest reply that is not Rread or Rreaddir: Rreadlink and Rgetlock with their strings, rounded up. */
export const replyHeadBytesMax = 8192;

/** What a session may do to its transport. */
export interface TransportPort {
  readonly peer: Peer;
  /** Closes the connection after what was committed is sent; for broken framing and for bugs of ours. */
  hangUp(reason: string): void;
  /** To be asked again whether it takes requests (`Door.takes`). In the middle of something: what follows is for a later turn. */
  resume(): void;
}

/** What a session is to its transport. */
export interface SessionPort {
  /** Takes a request; see `Exchange`. The frame's size was checked by the transport. */
  receive(exchange: Exchange): void;
  /** The largest frame the peer may send now: size[4] and payload included. Changes with every Tversion. */
  readonly frameBytesMax: number;
  /**
   * Whether a request of this type shall be handed over now, from a peer that leaves so many bytes of replies unread. After a
   * no, whatever comes next waits: the transport asks again at `Line.resume`, and when the peer has read some of it.
   */
  takes(type: number, unreadBytes: number): boolean;
  /** The transport keeps so many bytes of payloads and replies more, or less, for requests that outlive their turn. */
  account(bytes: number): void;
  /** Resolves when no request is running; with `blockedToo`, when none waits for a lock either. */
  finish(blockedToo?: boolean): Promise<void>;
  /** The connection is gone: nothing is answered any more. Resolves when the last running call is done and all is let go. */
  close(): Promise<void>;
}
