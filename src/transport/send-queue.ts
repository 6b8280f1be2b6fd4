import type { Socket } from 'node:net';
import { beginBatch, endBatch, runDeferred } from '#base/batch.ts';
import { send } from '#host/sockets.ts';
import { bufferBytesMin, returnBuffer, takeBuffer } from './buffer-pool.ts';

/** A reply of this size or more is not worth copying into a batch. */
const ownWriteBytesMin = 16384;
const nothing = new Uint8Array(0);
const EAGAIN = 11;

/**
 * Replies on their way to a socket, gathered into one chunk and one write for as many as are made in one turn. The
 * position is asked for anew for each reply (`bytes`, `at`), since others may have been added meanwhile.
 */
export class SendQueue {
  readonly #socket: Socket;
  #buffer: Buffer | undefined;
  #at = 0;
  /** Somebody will flush. */
  #flushing = false;
  #closed = false;
  /** What is left of them waits for the kernel to take it, in this order. */
  readonly #writing: Buffer[] = [];
  readonly #flush = (): void => this.flush();
  readonly #taken: () => void;
  readonly #written = (): void => {
    returnBuffer(this.#writing.shift()!);
    this.#taken();
  };

  /** `taken` is called when fewer bytes are `waiting` than before. */
  constructor(socket: Socket, taken: () => void) {
    this.#socket = socket;
    this.#taken = taken;
  }

  /** Bytes the kernel has not taken yet. */
  get waiting(): number {
    return this.#socket.writableLength;
  }

  /**
   * Whether the peer has closed both directions, as far as the kernel knows: a Unix or vsock peer at once, one of TCP when its
   * host has said so (RST).
   */
  get peerIsGone(): boolean {
    const sent = send(descriptorOf(this.#socket), nothing);
    return sent < 0 && sent !== -EAGAIN;
  }

  /** Makes sure that `count` bytes fit behind `at`. */
  reserve(count: number): void {
    if (this.#buffer && this.#buffer.length - this.#at >= count) return;
    this.#sendChunk();
    this.#buffer = takeBuffer(Math.max(count, bufferBytesMin));
    this.#at = 0;
  }

  /** Valid after `reserve`, until anything else is called. */
  get bytes(): Buffer {
    return this.#buffer!;
  }

  get at(): number {
    return this.#at;
  }

  /** `count` bytes from `at` on are a reply. */
  add(count: number): void {
    this.#at += count;
  }

  /** Adds a finished reply, the first `count` bytes of a chunk, which is given away with it. */
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
      this.#sendChunk();
      this.#write(buffer, count);
    }
    this.flushSoon();
  }

  /** A turn begins at whose end `flush` is called. */
  gather(): void {
    beginBatch();
    this.#flushing = true;
  }

  /** Flushes at the end of this turn, after all that finishes in it. */
  flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    process.nextTick(this.#flush);
  }

  /** The turn is over. */
  flush(): void {
    this.#flushing = false;
    endBatch();
    this.#sendChunk();
  }

  #sendChunk(): void {
    const buffer = this.#buffer;
    if (!buffer) return;
    const count = this.#at;
    this.#buffer = undefined;
    this.#at = 0;
    if (count === 0 || this.#closed) returnBuffer(buffer);
    else this.#write(buffer, count);
  }

  /** What the kernel takes at once goes past Node, whose way of writing costs more than a small request does. */
  #write(buffer: Buffer, count: number): void {
    runDeferred();
    const bytes = count === buffer.length ? buffer : buffer.subarray(0, count);
    const sent = this.#socket.writableLength === 0 ? Math.max(0, send(descriptorOf(this.#socket), bytes)) : 0;
    if (sent === count) {
      returnBuffer(buffer);
      return;
    }
    this.#writing.push(buffer);
    this.#socket.write(bytes.subarray(sent), this.#written);
  }

  /** Nothing will be sent any more. */
  close(): void {
    this.#closed = true;
    this.#sendChunk();
  }
}

/** Of an open socket, or −1: a number that was kept could be another file's by now. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { readonly _handle: { readonly fd: number } | null };
  return handle?.fd ?? -1;
}
