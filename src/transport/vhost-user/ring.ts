import { type GuestMemory, IoVec, type Window } from './memory.ts';
import { Unmapped, VirtioError } from './virtio-error.ts';

/** Size, guest addresses and negotiated features of a split virtqueue. */
export interface RingLayout {
  readonly size: number;
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  readonly indirect: boolean;
  readonly eventIndex: boolean;
}

interface Part {
  readonly window: Window;
  readonly start: number;
}

const descriptorBytes = 16;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
/** Descriptors in an indirect table. Linux uses no more than the queue's size; QEMU allows 1024. */
const indirectMax = 1024;

/**
 * The device side of a split virtqueue (virtio 1.2 §2.7). The guest may write to the memory at any time, so every value is
 * read once and then checked. Indices are accessed with `Atomics`, which in V8 are sequentially consistent on any memory,
 * shared or not, and order the plain accesses around them.
 */
export class SplitRing {
  readonly layout: RingLayout;
  /** Index of the next request; 16 bits, wraps around. */
  next: number;

  readonly #memory: GuestMemory;
  readonly #inFlight: Uint8Array;
  readonly #table = Buffer.allocUnsafeSlow(indirectMax * descriptorBytes);
  readonly #tableWords = new Uint32Array(this.#table.buffer, this.#table.byteOffset);
  readonly #tableBuffer = new IoVec();
  #descriptors!: Part;
  #available!: Part;
  #usedPart!: Part;
  #used: number;
  #signalled: number;

  /** `next` is the index at which the queue stopped; 0 for a new one. Throws VirtioError if it lies outside of memory. */
  constructor(memory: GuestMemory, layout: RingLayout, next: number) {
    this.#memory = memory;
    this.layout = layout;
    this.next = next & 0xffff;
    this.#inFlight = new Uint8Array(layout.size);
    this.locate();
    this.#used = this.#usedPart.window.words16[(this.#usedPart.start >> 1) + 1]!;
    this.#signalled = this.#used;
  }

  /** Translates the addresses of the ring's parts, again after each change of the guest's memory. */
  locate(): void {
    const { size, descriptors, available, used } = this.layout;
    this.#descriptors = this.#part('descriptor table', descriptors, size * descriptorBytes, 16);
    this.#available = this.#part('available ring', available, 6 + 2 * size, 2);
    this.#usedPart = this.#part('used ring', used, 6 + 8 * size, 4);
  }

  #part(name: string, address: number, bytes: number, alignment: number): Part {
    const window = this.#memory.windowAt(address);
    if (address % alignment !== 0) throw new VirtioError(`the ${name} is not aligned to ${alignment} bytes`);
    if (window === undefined || address + bytes > window.end) {
      throw new Unmapped(`the ${name} lies outside of the guest's memory`);
    }
    return { window, start: address - window.guestAddress };
  }

  /** Whether the used index is the one that this side wrote last; a restarted guest has reset it to 0. */
  get unchanged(): boolean {
    const { window, start } = this.#usedPart;
    return window.words16[(start >> 1) + 1] === this.#used;
  }

  /** Whether the available ring has an entry that was not popped. */
  get hasAvail(): boolean {
    const { window, start } = this.#available;
    return Atomics.load(window.words16, (start >> 1) + 1) !== this.next;
  }

  /** Pops the head of the next chain; −1 if there is none. */
  popAvail(): number {
    const { window, start } = this.#available;
    const { size } = this.layout;
    const first = start >> 1;
    const waiting = (Atomics.load(window.words16, first + 1) - this.next) & 0xffff;
    if (waiting === 0) return -1;
    if (waiting > size) {
      throw new VirtioError(`the available ring claims ${waiting} requests, more than its ${size} entries`);
    }
    const head = window.words16[first + 2 + (this.next & (size - 1))]!;
    if (head >= size) throw new VirtioError(`descriptor ${head} of a ring of ${size}`);
    if (this.#inFlight[head] !== 0)
      throw new VirtioError(`descriptor ${head} is offered again before it was used`);
    this.#inFlight[head] = 1;
    this.next = (this.next + 1) & 0xffff;
    return head;
  }

  /** Undoes the last `popAvail`. */
  putBack(head: number): void {
    this.#inFlight[head] = 0;
    this.next = (this.next - 1) & 0xffff;
  }

  /** Collects the buffers of a chain: readable ones first, then writable ones, as virtio requires. */
  collect(head: number, readable: IoVec, writable: IoVec): void {
    const { window, start } = this.#descriptors;
    let words = window.words32;
    let first = start >> 2;
    let limit = this.layout.size;
    let index = head;
    let steps = 0;
    let inTable = false;
    readable.clear();
    writable.clear();
    for (;;) {
      if (index >= limit) throw new VirtioError(`a chain goes on at descriptor ${index} of ${limit}`);
      if (steps++ === limit) throw new VirtioError('a chain of descriptors runs in a circle');
      const at = first + index * 4;
      const address = words[at]! + words[at + 1]! * 2 ** 32;
      const length = words[at + 2]!;
      const rest = words[at + 3]!;
      const flags = rest & 0xffff;
      if (length === 0) throw new VirtioError('a descriptor of no bytes');
      if (flags & INDIRECT) {
        if (inTable) throw new VirtioError('an indirect table inside an indirect table');
        if (flags & NEXT) throw new VirtioError('an indirect table with a descriptor behind it');
        limit = this.#readTable(address, length);
        words = this.#tableWords;
        first = index = steps = 0;
        inTable = true;
        continue;
      }
      this.#addBuffer(flags & WRITE ? writable : readable, writable, address, length);
      if (!(flags & NEXT)) return;
      index = rest >>> 16;
    }
  }

  #addBuffer(to: IoVec, writable: IoVec, address: number, length: number): void {
    if (to !== writable && writable.bytes > 0) throw new VirtioError('a buffer to read behind one to write');
    if (!to.add(this.#memory, address, length)) {
      throw new Unmapped(
        `a buffer of ${length} bytes at 0x${address.toString(16)} lies outside of the guest's memory`,
      );
    }
  }

  /** Copies an indirect table to private memory. Returns the number of its descriptors. */
  #readTable(address: number, length: number): number {
    if (!this.layout.indirect) throw new VirtioError('an indirect table, which was not agreed on');
    if (length % descriptorBytes !== 0 || length > this.#table.length) {
      throw new VirtioError(`an indirect table of ${length} bytes`);
    }
    this.#tableBuffer.clear();
    if (!this.#tableBuffer.add(this.#memory, address, length)) {
      throw new Unmapped("an indirect table lies outside of the guest's memory");
    }
    this.#tableBuffer.read(this.#table);
    return length / descriptorBytes;
  }

  /** Returns a chain to the guest, with `bytes` bytes written to it. */
  pushUsed(head: number, bytes: number): void {
    const { window, start } = this.#usedPart;
    const entry = (start >> 2) + 1 + 2 * (this.#used & (this.layout.size - 1));
    window.words32[entry] = head;
    window.words32[entry + 1] = bytes;
    this.#inFlight[head] = 0;
    this.#used = (this.#used + 1) & 0xffff;
    Atomics.store(window.words16, (start >> 1) + 1, this.#used);
  }

  /** Asks the guest not to kick. With EVENT_IDX writes nothing: the old event index stays. */
  disableKicks(): void {
    if (!this.layout.eventIndex) this.#setKicks(1);
  }

  /** Asks the guest to kick for its next request. True if there is one already, for which it may not have kicked. */
  enableKicks(): boolean {
    this.#setKicks(0);
    return this.hasAvail;
  }

  #setKicks(flags: number): void {
    const { window, start } = this.#usedPart;
    const first = start >> 1;
    if (this.layout.eventIndex) Atomics.store(window.words16, first + 2 + 4 * this.layout.size, this.next);
    else Atomics.store(window.words16, first, flags);
  }

  /** Whether the guest asked for an interrupt for the chains that were returned since the last call. */
  wantsSignal(): boolean {
    const before = this.#signalled;
    this.#signalled = this.#used;
    if (before === this.#used) return false;
    const { window, start } = this.#available;
    const first = start >> 1;
    if (!this.layout.eventIndex) return (Atomics.load(window.words16, first) & 1) === 0;
    const event = Atomics.load(window.words16, first + 2 + this.layout.size);
    return ((this.#used - event - 1) & 0xffff) < ((this.#used - before) & 0xffff);
  }
}
