import type { OwnedSegments, Segments } from '#base/owned.ts';
import type { Peer } from '#base/peer.ts';

/**
 * A received request and memory for its reply; implemented by streams and virtqueues.
 *
 * The session calls `commit` or `drop` exactly once. Before `Session.receive` returns it must have called one of these or
 * `detach`. Memory is valid until `receive` returns; `Owned` memory of a detached exchange until `commit` or `drop`.
 */
export interface Exchange {
  /** Holds the message, often among others. Private: nothing changes it during `receive`. */
  readonly head: Buffer;
  /** Begin and end of the message in `head`, without the payload of Twrite. */
  readonly from: number;
  readonly to: number;
  /** Payload of Twrite; empty for other messages. May be guest memory, which can change while it is read. */
  readonly payload: Segments;

  /** Private memory for the reply's head: `replyHeadBytesMax` bytes or more from `at`. */
  readonly out: Buffer;
  readonly at: number;

  /**
   * Memory for `count` bytes of Rread or Rreaddir data, behind a head of 11 bytes. Called at most once, and once more after
   * `detach` or if the first result was not used. Read `out` and `at` after this call: it may change them.
   */
  reserveData(count: number): Segments;

  /** As `CallContext.defer` of the backend. */
  defer(act: () => void): boolean;

  /** Sends `headBytes` bytes of `out` and `dataBytes` bytes of the memory from `reserveData`. */
  commit(headBytes: number, dataBytes: number): void;

  /** Ends the exchange without a reply, after a flush or the session's end. */
  drop(): void;

  /**
   * Returns an exchange that is valid until `commit` or `drop` and replaces this one. A stream copies the payload; a virtqueue
   * keeps the guest's buffers until the reply. Called at most once; invalidates memory from `reserveData`. Every call that uses
   * the payload must settle before `commit` or `drop`.
   */
  detach(): DetachedExchange;
}

export interface DetachedExchange extends Exchange {
  readonly payload: OwnedSegments;
}

/** Bound of a reply without data: Rreadlink (PATH_MAX) and Rgetlock with their strings, rounded up. */
export const replyHeadBytesMax = 8192;

/** The transport as its session sees it. */
export interface TransportPort {
  readonly peer: Peer;
  /** Closes the connection after sending the committed replies. For reused tags and internal errors. */
  hangUp(reason: string): void;
  /**
   * `SessionPort.takes` may return true again. Called from within the session: the transport must hand over requests in a later
   * event-loop callback.
   */
  resume(): void;
}

/** The session as its transport sees it. */
export interface SessionPort {
  /** Processes a request, whose size the transport has checked. */
  receive(exchange: Exchange): void;
  /** The largest frame, with size[4] and payload, that the peer may send now. Tversion changes it. */
  readonly frameBytesMax: number;
  /**
   * Whether to hand over a request of this type; `unreadBytes` is the size of the replies that the peer has not read. After
   * false, the transport stops until `TransportPort.resume` or until the peer has read replies.
   */
  takes(type: number, unreadBytes: number): boolean;
  /** Counts bytes that the transport keeps for detached exchanges; negative when freed. */
  account(bytes: number): void;
  /** Resolves when no request runs; with `blockedToo`, when none waits for a lock either. */
  finish(blockedToo?: boolean): Promise<void>;
  /** Ends the session without further replies. Resolves when all calls have ended and everything is released. */
  close(): Promise<void>;
}
