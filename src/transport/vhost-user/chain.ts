import { asOwned, type OwnedSegments, type Segments } from '#base/owned.ts';
import { poison } from '#base/poison.ts';
import { type DetachedExchange, replyHeadBytesMax } from '#session/exchange.ts';
import { IoVec } from './memory.ts';
import type { SplitRing } from './ring.ts';
import { VirtioError } from './virtio-error.ts';

/** The payload of Twrite begins behind size[4] type[1] tag[2] fid[4] offset[8] count[4]. */
const writeHeadBytes = 23;
/** The data of Rread and Rreaddir begins behind size[4] type[1] tag[2] count[4]. */
const readHeadBytes = 11;
const Rlerror = 7;
const rlerrorBytes = 11;
const Treaddir = 40;
const Twrite = 118;
const EMSGSIZE = 90;
const messageBytesMin = 7;
/** Two strings of 64 KiB: no message is longer, besides Twrite, whose payload is not copied. */
const headBytesMax = 2 ** 17 + 2 ** 10;
const headBytesUsual = 8192;

const noPayload: OwnedSegments = [];

/** The device, as a chain uses it. */
export interface ChainOwner {
  /** Whether the chain's guest memory may be written now. */
  reachable(chain: Chain): boolean;
  /** A call may use guest memory after this event-loop callback, until the chain is completed. */
  memoryPinned(): void;
  /** The exchange is answered. `deliver` writes the reply and returns its length; it is called once the ring may be used. */
  completed(chain: Chain, deliver: () => number): void;
}

/** A request on the virtqueue: the buffers of its descriptor chain, and private memory for the heads of request and reply. */
export class Chain implements DetachedExchange {
  readonly from = 0;
  to = 0;
  /**
   * Guest memory. It stays mapped until the chain is completed (`pinsMemory`); a Twrite completes after its write has
   * settled.
   */
  payload: OwnedSegments = noPayload;
  readonly out = Buffer.allocUnsafeSlow(replyHeadBytesMax);
  readonly at = 0;

  /** The ring that the chain came from, and its head descriptor. */
  ring: SplitRing | undefined;
  index = 0;
  /** Whether a call may use the guest's memory after the event-loop callback. */
  pinsMemory = false;
  readonly readable = new IoVec();
  readonly writable = new IoVec();
  /** `GuestMemory.generation` at the time the buffers were translated. */
  generation = 0;

  readonly #owner: ChainOwner;
  readonly #memory = Buffer.allocUnsafeSlow(headBytesUsual);
  head: Buffer = this.#memory;
  #copied: Buffer | undefined;
  #payloadBytes = 0;
  #open = false;

  constructor(owner: ChainOwner) {
    this.#owner = owner;
  }

  /** Copies the request's head out of the collected buffers, and returns its type. Throws VirtioError for an invalid request. */
  readHead(): number {
    const { readable } = this;
    if (readable.bytes < messageBytesMin) throw new VirtioError(`a request of ${readable.bytes} bytes`);
    const head = this.#memory;
    // Of a write, which is the long one, nothing but the head is copied.
    const there = readable.read(head, readable.bytes > head.length ? writeHeadBytes : head.length);
    const size = head.readUInt32LE(0);
    if (size < messageBytesMin || size > readable.bytes) {
      throw new VirtioError(`a message of ${size} bytes in ${readable.bytes} bytes of buffers`);
    }
    const headBytes = head[4] === Twrite ? Math.min(size, writeHeadBytes) : size;
    if (headBytes > headBytesMax) throw new VirtioError(`a message of ${size} bytes that is no Twrite`);
    this.head = headBytes > there ? this.#readLonger(head, there, headBytes) : head;
    this.to = headBytes;
    this.#payloadBytes = size - headBytes;
    return this.head[4]!;
  }

  /** Starts the exchange. */
  open(): void {
    this.#open = true;
    this.pinsMemory = false;
    this.#copied = undefined;
    this.payload =
      this.#payloadBytes === 0 ? noPayload : this.readable.views(this.to, this.#payloadBytes).map(asOwned);
  }

  /** Keeps the bytes that were read and checked already, since the guest may have changed them. */
  #readLonger(head: Buffer, there: number, bytes: number): Buffer {
    const longer = Buffer.allocUnsafeSlow(bytes);
    this.readable.read(longer);
    head.copy(longer, 0, 0, there);
    return longer;
  }

  /** Makes the chain ready for another request. */
  recycle(): void {
    this.ring = undefined;
    poison(this.head);
    poison(this.out);
  }

  /** A driver's buffer that is too small makes a short read. */
  reserveData(count: number): Segments {
    const room = Math.max(0, Math.min(count, this.writable.bytes - readHeadBytes));
    if (this.#owner.reachable(this)) {
      const views = this.writable.views(readHeadBytes, room);
      // readdir packs entries into one contiguous buffer.
      if (this.head[4] !== Treaddir || views.length === 1) return views;
    }
    this.#copied = Buffer.allocUnsafe(room);
    return [this.#copied];
  }

  /** Each reply is written to the guest's memory at once. */
  defer(): boolean {
    return false;
  }

  commit(headBytes: number, dataBytes: number): void {
    this.#close(() => this.#write(headBytes, dataBytes));
  }

  /** Returns the chain with length 0, upon which the driver discards the request (as QEMU's 9pfs does). */
  drop(): void {
    this.#close(() => 0);
  }

  detach(): DetachedExchange {
    if (this.payload !== noPayload) {
      this.pinsMemory = true;
      this.#owner.memoryPinned();
    }
    return this;
  }

  #close(deliver: () => number): void {
    if (!this.#open) throw new Error('an exchange was answered twice');
    this.#open = false;
    this.#owner.completed(this, deliver);
  }

  #write(headBytes: number, dataBytes: number): number {
    const bytes = headBytes + dataBytes;
    if (bytes > this.writable.bytes) return this.#writeTooLong(bytes);
    this.writable.write(this.out, headBytes);
    if (this.#copied !== undefined) this.writable.write(this.#copied, dataBytes, headBytes);
    return bytes;
  }

  #writeTooLong(bytes: number): number {
    const room = this.writable.bytes;
    if (room < rlerrorBytes) throw new VirtioError(`a reply of ${bytes} bytes for ${room} bytes of buffers`);
    this.out.writeUInt32LE(rlerrorBytes, 0);
    this.out.writeUInt8(Rlerror, 4);
    this.out.writeUInt32LE(EMSGSIZE, 7);
    this.writable.write(this.out, rlerrorBytes);
    return rlerrorBytes;
  }
}
