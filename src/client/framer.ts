import { headerBytes } from '#protocol/constants.ts';

/**
 * Cuts frames out of a stream of chunks, which may be split anywhere. A frame that lies whole in a chunk is handed out as
 * a view of it; only a frame that is split is assembled in memory of its own, which grows no faster than bytes arrive.
 */
export class Framer {
  #pending: Buffer = Buffer.alloc(0);
  #have = 0;
  /** Set when the stream is broken for good: what was wrong. */
  fault: string | undefined;

  /**
   * Takes a chunk and calls `frame` for each whole frame, in order. `frame` may change what `bytesMax` answers, the size
   * that the next frame may have. A view that is handed out is valid until `frame` returns. Returns false, and sets
   * `fault`, when a size is impossible: then the stream cannot be followed any more.
   */
  push(chunk: Buffer, bytesMax: () => number, frame: (frame: Buffer) => void): boolean {
    if (this.fault !== undefined) return false;
    let at = 0;
    while (at < chunk.length) {
      if (this.#have > 0) {
        at += this.#assemble(chunk, at, bytesMax, frame);
      } else {
        const size = chunk.length - at >= 4 ? chunk.readUInt32LE(at) : undefined;
        if (size !== undefined && !this.#possible(size, bytesMax())) return false;
        if (size === undefined || size > chunk.length - at) {
          this.#keep(chunk.subarray(at));
          return true;
        }
        frame(chunk.subarray(at, at + size));
        at += size;
      }
      if (this.fault !== undefined) return false;
    }
    return true;
  }

  /** Adds to the split frame what it lacks; returns how much of the chunk that took. */
  #assemble(chunk: Buffer, at: number, bytesMax: () => number, frame: (frame: Buffer) => void): number {
    const start = at;
    if (this.#have < 4) {
      const count = Math.min(4 - this.#have, chunk.length - at);
      this.#keep(chunk.subarray(at, at + count));
      at += count;
      if (this.#have < 4) return at - start;
    }
    const size = this.#pending.readUInt32LE(0);
    if (!this.#possible(size, bytesMax())) return at - start;
    const count = Math.min(size - this.#have, chunk.length - at);
    this.#keep(chunk.subarray(at, at + count));
    at += count;
    if (this.#have === size) {
      const whole = this.#pending.subarray(0, size);
      this.#have = 0;
      frame(whole);
    }
    return at - start;
  }

  #possible(size: number, bytesMax: number): boolean {
    if (size < headerBytes) this.fault = `a frame of ${size} bytes`;
    else if (size > bytesMax) this.fault = `a frame of ${size} bytes where ${bytesMax} are allowed`;
    return this.fault === undefined;
  }

  #keep(bytes: Buffer): void {
    const have = this.#have + bytes.length;
    if (have > this.#pending.length) {
      const grown = Buffer.allocUnsafe(Math.max(have, this.#pending.length * 2, 512));
      this.#pending.copy(grown, 0, 0, this.#have);
      this.#pending = grown;
    }
    bytes.copy(this.#pending, this.#have);
    this.#have = have;
  }
}
