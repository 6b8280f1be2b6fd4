import type { Socket } from 'node:net';
import { sendMessage } from '#host/message.ts';
import { bufferBytesMin, returnBuffer, takeBuffer } from './buffer-pool.ts';
import { fdOf } from './handle.ts';

/** A detached reply of this size or more is written from its own buffer instead of being copied. */
const ownWriteBytesMin = 16384;
const nothing = new Uint8Array(0);
const EAGAIN = 11;

/**
 * Replies to a socket: those made in one event-loop callback go into one buffer and leave in one write. Read `bytes` and `at` for
 * each reply, since other replies may have been added.
 */
export class SendQueue {
  readonly #socket: Socket;
  #buffer: Buffer | undefined;
  #at = 0;
  #flushScheduled = false;
  /** Between `gather` and `flush`. */
  #gathering = false;
  readonly #deferred: (() => void)[] = [];
  #closed = false;
  /** Buffers that the kernel has not drained completely, in order. */
  readonly #writing: Buffer[] = [];
  readonly #flush = (): void => this.flush();
  readonly #drained: () => void;
  readonly #written = (): void => {
    returnBuffer(this.#writing.shift()!);
    this.#drained();
  };

  /** `drained` is called when `waiting` has shrunk. */
  constructor(socket: Socket, drained: () => void) {
    this.#socket = socket;
    this.#drained = drained;
  }

  /** Bytes that the kernel has not taken yet. */
  get waiting(): number {
    return this.#socket.writableLength;
  }

  /**
   * Whether the peer has closed both directions, as far as the kernel knows: at once for a Unix or vsock peer, for a TCP peer when its
   * host has sent RST.
   */
  get peerIsGone(): boolean {
    const sent = sendMessage(fdOf(this.#socket), nothing);
    return sent < 0 && sent !== -EAGAIN;
  }

  /** Makes room for `count` bytes after `at`. */
  reserve(count: number): void {
    if (this.#buffer && this.#buffer.length - this.#at >= count) return;
    this.#sendBuffer();
    this.#buffer = takeBuffer(Math.max(count, bufferBytesMin));
    this.#at = 0;
  }

  /** Valid after `reserve` until the next call of another method. */
  get bytes(): Buffer {
    return this.#buffer!;
  }

  get at(): number {
    return this.#at;
  }

  /** Queues the `count` bytes from `at` as a reply. */
  add(count: number): void {
    this.#at += count;
  }

  /** Queues the first `count` bytes of `buffer` as a reply, and takes ownership of `buffer`. */
  append(buffer: Buffer, count: number): void {
    if (this.#closed) {
      returnBuffer(buffer);
      return;
    }
    if (count < ownWriteBytesMin) {
      this.reserve(count);
      buffer.copy(this.bytes, this.#at, 0, count);
      this.#at += count;
      returnBuffer(buffer);
    } else {
      this.#sendBuffer();
      this.#write(buffer, count);
    }
    this.flushSoon();
  }

  /** Starts a batch of replies; the caller ends it with `flush`. */
  gather(): void {
    this.#gathering = true;
    this.#flushScheduled = true;
  }

  /** Within a batch, calls `act` before the next reply is sent. Otherwise false. */
  defer(act: () => void): boolean {
    if (this.#gathering) this.#deferred.push(act);
    return this.#gathering;
  }

  #runDeferred(): void {
    while (this.#deferred.length > 0) this.#deferred.pop()!();
  }

  /** Flushes by process.nextTick, after the current callback. */
  flushSoon(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    process.nextTick(this.#flush);
  }

  /** Ends the batch, and sends it. */
  flush(): void {
    this.#flushScheduled = false;
    this.#gathering = false;
    this.#runDeferred();
    this.#sendBuffer();
  }

  #sendBuffer(): void {
    const buffer = this.#buffer;
    if (!buffer) return;
    const count = this.#at;
    this.#buffer = undefined;
    this.#at = 0;
    if (count === 0 || this.#closed) returnBuffer(buffer);
    else this.#write(buffer, count);
  }

  /** Sends with a direct system call first: Node's stream write costs more than a small request. */
  #write(buffer: Buffer, count: number): void {
    this.#runDeferred();
    const bytes = count === buffer.length ? buffer : buffer.subarray(0, count);
    const sent = this.#socket.writableLength === 0 ? Math.max(0, sendMessage(fdOf(this.#socket), bytes)) : 0;
    if (sent === count) {
      returnBuffer(buffer);
      return;
    }
    this.#writing.push(buffer);
    this.#socket.write(bytes.subarray(sent), this.#written);
  }

  /** Discards the unsent buffer and every later reply. */
  close(): void {
    this.#closed = true;
    this.#sendBuffer();
  }
}
