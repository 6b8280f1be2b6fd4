import type { Socket } from 'node:net';
import { chunkBytesMin, giveBackChunk, takeChunk } from './chunks.ts';

/** A reply of this size or more is not worth copying into a batch. */
const ownWriteBytesMin = 16384;

/**
 * Replies on their way to a socket, gathered into one chunk and one write for as many as are made in one turn. The
 * position is asked for anew for each reply (`bytes`, `at`), since others may have been added meanwhile.
 */
export class Outbox {
  readonly #socket: Socket;
  #chunk: Buffer | undefined;
  #at = 0;
  #flushing = false;
  #closed = false;
  /** One for each write, in their order; those that the kernel took at once are given back already. */
  readonly #writing: (Buffer | undefined)[] = [];
  readonly #flush = (): void => {
    this.#flushing = false;
    this.flush();
  };
  readonly #written = (): void => {
    const chunk = this.#writing.shift();
    if (chunk) giveBackChunk(chunk);
  };

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Bytes the kernel has not taken yet. */
  get waiting(): number {
    return this.#socket.writableLength;
  }

  /** Makes sure that `count` bytes fit behind `at`. */
  reserve(count: number): void {
    if (this.#chunk && this.#chunk.length - this.#at >= count) return;
    this.flush();
    this.#chunk = takeChunk(Math.max(count, chunkBytesMin));
    this.#at = 0;
  }

  /** Valid after `reserve`, until anything else is called. */
  get bytes(): Buffer {
    return this.#chunk!;
  }

  get at(): number {
    return this.#at;
  }

  /** `count` bytes from `at` on are a reply. */
  add(count: number): void {
    this.#at += count;
  }

  /** Adds a finished reply, the first `count` bytes of a chunk, which is given away with it. */
  append(chunk: Buffer, count: number): void {
    if (this.#closed) {
      giveBackChunk(chunk);
      return;
    }
    if (count < ownWriteBytesMin) {
      this.reserve(count);
      chunk.copy(this.bytes, this.#at, 0, count);
      this.#at += count;
      giveBackChunk(chunk);
    } else {
      this.flush();
      this.#write(chunk, count);
    }
    this.flushSoon();
  }

  /** Flushes at the end of this turn, after all that finishes in it. */
  flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    process.nextTick(this.#flush);
  }

  flush(): void {
    const chunk = this.#chunk;
    if (!chunk) return;
    const count = this.#at;
    this.#chunk = undefined;
    this.#at = 0;
    if (count === 0 || this.#closed) giveBackChunk(chunk);
    else this.#write(chunk, count);
  }

  #write(chunk: Buffer, count: number): void {
    this.#writing.push(chunk);
    this.#socket.write(chunk.subarray(0, count), this.#written);
    // libuv tries at once; when nothing is left over, the memory is free before the callback comes.
    if (this.#socket.writableLength === 0) {
      this.#writing[this.#writing.length - 1] = undefined;
      giveBackChunk(chunk);
    }
  }

  /** Nothing will be sent any more. */
  close(): void {
    this.#closed = true;
    this.flush();
  }
}
