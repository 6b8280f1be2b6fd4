import { poison } from '#base/poison.ts';
import { headerBytes } from './constants.ts';

/**
 * Room for four writes of 64 KiB; with less, each of them costs a read(2) and a callback from Node. Pages that are never filled
 * are never allocated.
 */
const roomBytesMin = 262144;

/** The received bytes are not valid framing. */
export class FramingError extends Error {}

/**
 * Receive buffer of a stream, cut into frames in place: a frame is not copied, and the reader can stop between two frames.
 *
 * A frame stays in place until the next `room`, which moves only an incomplete frame. The buffer grows to the largest frame that
 * a peer has started to send.
 */
export class FrameBuffer {
  #bytes = Buffer.allocUnsafeSlow(roomBytesMin);
  /** End of the frames that were handed out. */
  #start = 0;
  #end = 0;
  /** Start of the current frame. */
  from = 0;
  /** Size of the frame at `#start`; the header's size until it is known. */
  #frameBytes = headerBytes;

  /** Memory to receive into. Invalidates all frames that were handed out. */
  room(): Buffer {
    const waiting = this.#end - this.#start;
    const needed = Math.max(this.#frameBytes, waiting + 1);
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

  /** `count` bytes were received into `room`. */
  arrived(count: number): void {
    this.#end += count;
  }

  /**
   * Copies bytes in that were received elsewhere, and calls `onFrame` for each complete frame with a view that is valid during
   * the call. `frameBytesMax` returns the limit of the next frame; `onFrame` may change it. Throws `FramingError`.
   */
  push(chunk: Buffer, frameBytesMax: () => number, onFrame: (frame: Buffer) => void): void {
    for (let at = 0; at < chunk.length; ) {
      const count = chunk.copy(this.room(), 0, at);
      at += count;
      this.arrived(count);
      while (this.next(frameBytesMax())) onFrame(this.#bytes.subarray(this.from, this.to));
    }
  }

  /** Type of the next frame, without advancing; −1 until its header is there. */
  get nextType(): number {
    return this.#end - this.#start < headerBytes ? -1 : this.#bytes[this.#start + 4]!;
  }

  /**
   * Advances to the next complete frame: `bytes` from `from` to `to`. False if there is none. Returns no view of it, since
   * making one costs as much as answering a small request. Throws `FramingError`, after which the buffer is unusable.
   */
  next(frameBytesMax: number): boolean {
    const waiting = this.#end - this.#start;
    if (waiting < 4) return false;
    const size = this.#bytes.readUInt32LE(this.#start);
    if (size < headerBytes) throw new FramingError(`a message claims a size of ${size} bytes`);
    if (size > frameBytesMax) {
      throw new FramingError(`a message claims a size of ${size} bytes; ${frameBytesMax} are allowed`);
    }
    this.#frameBytes = size;
    if (waiting < size) return false;
    this.#frameBytes = headerBytes;
    this.from = this.#start;
    this.#start += size;
    return true;
  }

  /** The frames that were handed out are no longer used. */
  forget(): void {
    poison(this.#bytes, 0, this.#start);
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  get to(): number {
    return this.#start;
  }

  /** Whether an incomplete frame is buffered. */
  get partial(): boolean {
    return this.#end > this.#start;
  }
}
