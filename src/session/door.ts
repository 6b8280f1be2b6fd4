import type { Segments } from '../host/syscalls.ts';

/**
 * One request on its way through a session: what the transport received, and where the reply goes. The session does not
 * know what the transport is; a stream and a virtqueue hand it the same thing.
 *
 * A session answers an exchange with exactly one `commit` or one `drop`, during `Session.receive` or later. What is not
 * answered when `receive` returns must have been kept by `later()`.
 */
export interface Exchange {
  /** The message from size[4] on, without the payload of Twrite. Private memory: nobody changes it while it is read. */
  readonly head: Buffer;
  /** The payload of Twrite, which may lie in guest memory and change while it is read; empty for other messages. */
  readonly payload: Segments;

  /** Where the reply's head is encoded: at least `replyHeadBytesMax` bytes of private memory from `at` on. */
  readonly out: Buffer;
  readonly at: number;

  /**
   * Memory for `count` bytes of Rread or Rreaddir data, directly behind a head of 11 bytes. Called at most once, and `out`
   * and `at` are read only afterwards, since making room may move them.
   */
  space(count: number): Segments;

  /** Sends `headBytes` bytes from `out` at `at`, followed by the first `dataBytes` bytes of the space. */
  commit(headBytes: number, dataBytes: number): void;

  /** No reply will be sent: the request was flushed, or its session is gone. */
  drop(): void;

  /**
   * The same exchange in a form that outlives this turn: payload and space stay valid until it is answered. A stream
   * copies the payload here; a virtqueue returns itself.
   */
  later(): Exchange;
}

/** Bytes of the largest reply that is not Rread or Rreaddir: Rreadlink and Rgetlock with their strings, rounded up. */
export const replyHeadBytesMax = 8192;

/** What a transport tells a session of its peer; for logs and, where the export asks, for access rules. */
export interface Peer {
  /** As in logs: `tcp 127.0.0.1:51234`, `unix pid 4711 uid 1000`, `vsock cid 5 port 1030`. */
  readonly label: string;
}

/** What a session may do to its transport. */
export interface Line {
  readonly peer: Peer;
  /** Closes the connection after what was committed is sent; for broken framing and for bugs of ours. */
  hangUp(reason: string): void;
}
