import { headerBytes } from '#protocol/constants.ts';

/**
 * Splits a stream into frames. Frames within one chunk are views of it; others are assembled in a buffer that grows with the
 * bytes received, not with the announced size.
 */
export class Framer {
  #pending: Buffer = Buffer.alloc(0);
  #pendingBytes = 0;
  /** Set after an invalid size: the description of the error. */
  fault: string | undefined;

  /**
   * Calls `frame` for each complete frame, with a view that is valid during the call. `bytesMax` returns the largest size of the
   * next frame; `frame` may change it. An invalid size sets `fault` and returns false: the stream is then unusable.
   */
  push(chunk: Buffer, bytesMax: () => number, frame: (frame: Buffer) => void): boolean {
    if (this.fault !== undefined) return false;
    let at = 0;
    while (at < chunk.length) {
      if (this.#pendingBytes > 0) {
        at += this.#assemble(chunk, at, bytesMax, frame);
      } else {
        const size = chunk.length - at >= 4 ? chunk.readUInt32LE(at) : undefined;
        if (size !== undefined && !this.#isValidSize(size, bytesMax())) return false;
        if (size === undefined || size > chunk.length - at) {
          this.#append(chunk.subarray(at));
          return true;
        }
        frame(chunk.subarray(at, at + size));
        at += size;
      }
      if (this.fault !== undefined) return false;
    }
    return true;
  }

  /** Appends the missing bytes to the pending frame; returns the number of bytes used from the chunk. */
  #assemble(chunk: Buffer, at: number, bytesMax: () => number, frame: (frame: Buffer) => void): number {
    const start = at;
    if (this.#pendingBytes < 4) {
      const count = Math.min(4 - this.#pendingBytes, chunk.length - at);
      this.#append(chunk.subarray(at, at + count));
      at += count;
      if (this.#pendingBytes < 4) return at - start;
    }
    const size = this.#pending.readUInt32LE(0);
    if (!this.#isValidSize(size, bytesMax())) return at - start;
    const count = Math.min(size - this.#pendingBytes, chunk.length - at);
    this.#append(chunk.subarray(at, at + count));
    at += count;
    if (this.#pendingBytes === size) {
      const whole = this.#pending.subarray(0, size);
      this.#pendingBytes = 0;
      frame(whole);
    }
    return at - start;
  }

  #isValidSize(size: number, bytesMax: number): boolean {
    if (size < headerBytes) this.fault = `a frame of ${size} bytes, less than a header`;
    else if (size > bytesMax) this.fault = `a frame of ${size} bytes, but at most ${bytesMax} are allowed`;
    return this.fault === undefined;
  }

  #append(bytes: Buffer): void {
    const total = this.#pendingBytes + bytes.length;
    if (total > this.#pending.length) {
      const grown = Buffer.allocUnsafe(Math.max(total, this.#pending.length * 2, 512));
      this.#pending.copy(grown, 0, 0, this.#pendingBytes);
      this.#pending = grown;
    }
    bytes.copy(this.#pending, this.#pendingBytes);
    this.#pendingBytes = total;
  }
}
