import { poison } from './poison.ts';

/** size[4] type[1] tag[2]: what every message begins with. */
const frameBytesMin = 7;

/**
 * Room for four writes of 64 KiB: with less the kernel is asked, and Node called, for each of them. What is never filled is
 * never touched, and so costs nothing.
 */
const roomBytesMin = 262144;

/** Why what was received cannot be cut into frames. */
export class FramingError extends Error {}

/**
 * Received bytes, cut into frames where they lie. Where `Framer` takes chunks from anybody and gathers split frames by
 * copying, this owns the memory that is read into: a large write costs half as much, and a reader can stop between two
 * frames of a chunk.
 *
 * A frame stays where it is until `room` is called again; only a frame that is not whole yet is moved, and memory grows to
 * the largest frame that was really begun.
 */
export class FrameBuffer {
  #bytes = Buffer.allocUnsafeSlow(roomBytesMin);
  /** Behind the frames that were handed out. */
  #start = 0;
  #end = 0;
  /** Where the frame begins that was handed out last. */
  from = 0;
  /** Bytes of the frame at `#start`, as far as it is known. */
  #wanted = frameBytesMin;

  /** Where the next bytes go. Frames that were handed out are gone. */
  room(): Buffer {
    const waiting = this.#end - this.#start;
    const needed = Math.max(this.#wanted, waiting + 1);
    if (needed > this.#bytes.length) {
      let size = this.#bytes.length;
      while (size < needed) size *= 2;
      const larger = Buffer.allocUnsafeSlow(size);
      this.#bytes.copy(larger, 0, this.#start, this.#end);
      this.#bytes = larger;
    } else if (this.#start > 0) {
      if (waiting > 0) this.#bytes.copyWithin(0, this.#start, this.#end);
    } else {
      return this.#end === 0 ? this.#bytes : this.#bytes.subarray(this.#end);
    }
    this.#start = 0;
    this.#end = waiting;
    return waiting === 0 ? this.#bytes : this.#bytes.subarray(waiting);
  }

  /** `count` bytes were put into the room. */
  arrived(count: number): void {
    this.#end += count;
  }

  /** The type of the next frame without taking it, or −1 while there is none. */
  get nextType(): number {
    return this.#end - this.#start < frameBytesMin ? -1 : this.#bytes[this.#start + 4]!;
  }

  /**
   * Moves on to the next whole frame, which lies in `bytes` from `from` to `to`; false while there is none. A view of each
   * would cost as much as answering it. Throws `BrokenFraming`; no later call makes sense then.
   */
  next(frameBytesMax: number): boolean {
    const waiting = this.#end - this.#start;
    if (waiting < 4) return false;
    const size = this.#bytes.readUInt32LE(this.#start);
    if (size < frameBytesMin) throw new FramingError(`a message says that it is ${size} bytes long`);
    if (size > frameBytesMax) {
      throw new FramingError(`a message says that it is ${size} bytes long; ${frameBytesMax} are allowed`);
    }
    this.#wanted = size;
    if (waiting < size) return false;
    this.#wanted = frameBytesMin;
    this.from = this.#start;
    this.#start += size;
    return true;
  }

  /** Nobody uses the frames any more that were handed out. */
  forget(): void {
    poison(this.#bytes, 0, this.#start);
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  get to(): number {
    return this.#start;
  }

  /** Whether the peer ended in the middle of a message. */
  get partial(): boolean {
    return this.#end > this.#start;
  }
}
