import { type GuestMemory, IoVec, type Window } from './memory.ts';
import { Unmapped, VirtioError } from './virtio-error.ts';

/** Where the parts of a split virtqueue lie in the guest, and how it is used. */
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
/** Descriptors of an indirect table; Linux takes no more buffers than the queue has places, QEMU allows 1024. */
const indirectMax = 1024;

/**
 * The device's side of a split virtqueue (virtio 1.2 §2.7). The guest writes to the same memory at any time, so every
 * value is read once and checked, and the indices are read and written with `Atomics`: in V8 these are sequentially
 * consistent on any memory, shared or not, and order the plain accesses around them.
 */
export class SplitRing {
  readonly place: RingLayout;
  /** The next request to take; a 16-bit number that goes round. */
  next: number;

  readonly #memory: GuestMemory;
  readonly #taken: Uint8Array;
  readonly #table = Buffer.allocUnsafeSlow(indirectMax * descriptorBytes);
  readonly #tableWords = new Uint32Array(this.#table.buffer, this.#table.byteOffset);
  readonly #tablePlace = new IoVec();
  #descriptors!: Part;
  #available!: Part;
  #usedPart!: Part;
  #used: number;
  #signalled: number;

  /** `next` is where the queue stopped before, 0 for a new one. Throws Broken when it does not lie in memory. */
  constructor(memory: GuestMemory, place: RingLayout, next: number) {
    this.#memory = memory;
    this.place = place;
    this.next = next & 0xffff;
    this.#taken = new Uint8Array(place.size);
    this.locate();
    this.#used = this.#usedPart.window.words16[(this.#usedPart.start >> 1) + 1]!;
    this.#signalled = this.#used;
  }

  /** Looks the parts up once more, after the guest's memory changed. */
  locate(): void {
    const { size, descriptors, available, used } = this.place;
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

  /** Whether the guest still has the ring as this side left it: a guest that starts anew begins with an empty one. */
  get continues(): boolean {
    const { window, start } = this.#usedPart;
    return window.words16[(start >> 1) + 1] === this.#used;
  }

  /** Whether the guest has offered anything that was not taken. */
  get waiting(): boolean {
    const { window, start } = this.#available;
    return Atomics.load(window.words16, (start >> 1) + 1) !== this.next;
  }

  /** The head of the next chain, or −1 when there is none. */
  popAvail(): number {
    const { window, start } = this.#available;
    const { size } = this.place;
    const first = start >> 1;
    const waiting = (Atomics.load(window.words16, first + 1) - this.next) & 0xffff;
    if (waiting === 0) return -1;
    if (waiting > size) {
      throw new VirtioError(`the available ring claims ${waiting} requests, more than its ${size} places`);
    }
    const head = window.words16[first + 2 + (this.next & (size - 1))]!;
    if (head >= size) throw new VirtioError(`descriptor ${head} of a ring of ${size}`);
    if (this.#taken[head] !== 0)
      throw new VirtioError(`descriptor ${head} is offered again before it was used`);
    this.#taken[head] = 1;
    this.next = (this.next + 1) & 0xffff;
    return head;
  }

  /** The chain that was taken last is offered still. */
  putBack(head: number): void {
    this.#taken[head] = 0;
    this.next = (this.next - 1) & 0xffff;
  }

  /** Collects the buffers of a chain: those to read, then those to write. */
  collect(head: number, readable: IoVec, writable: IoVec): void {
    const { window, start } = this.#descriptors;
    let words = window.words32;
    let first = start >> 2;
    let limit = this.place.size;
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

  /** Copies an indirect table to private memory. The count of its descriptors. */
  #readTable(address: number, length: number): number {
    if (!this.place.indirect) throw new VirtioError('an indirect table, which was not agreed on');
    if (length % descriptorBytes !== 0 || length > this.#table.length) {
      throw new VirtioError(`an indirect table of ${length} bytes`);
    }
    this.#tablePlace.clear();
    if (!this.#tablePlace.add(this.#memory, address, length)) {
      throw new Unmapped("an indirect table lies outside of the guest's memory");
    }
    this.#tablePlace.read(this.#table);
    return length / descriptorBytes;
  }

  /** Gives a chain back, with so many bytes written to it. */
  pushUsed(head: number, bytes: number): void {
    const { window, start } = this.#usedPart;
    const entry = (start >> 2) + 1 + 2 * (this.#used & (this.place.size - 1));
    window.words32[entry] = head;
    window.words32[entry + 1] = bytes;
    this.#taken[head] = 0;
    this.#used = (this.#used + 1) & 0xffff;
    Atomics.store(window.words16, (start >> 1) + 1, this.#used);
  }

  /** Asks the guest not to kick for a while, since the ring is looked at anyway. */
  disableKicks(): void {
    if (!this.place.eventIndex) this.#tellGuest(1);
  }

  /** Asks the guest to kick for its next request. True when there is one already, of which it may not have told. */
  enableKicks(): boolean {
    this.#tellGuest(0);
    return this.waiting;
  }

  #tellGuest(flags: number): void {
    const { window, start } = this.#usedPart;
    const first = start >> 1;
    if (this.place.eventIndex) Atomics.store(window.words16, first + 2 + 4 * this.place.size, this.next);
    else Atomics.store(window.words16, first, flags);
  }

  /** Whether the guest wants to be told of what was given back since the last time this was asked. */
  wantsSignal(): boolean {
    const before = this.#signalled;
    this.#signalled = this.#used;
    if (before === this.#used) return false;
    const { window, start } = this.#available;
    const first = start >> 1;
    if (!this.place.eventIndex) return (Atomics.load(window.words16, first) & 1) === 0;
    const event = Atomics.load(window.words16, first + 2 + this.place.size);
    return ((this.#used - event - 1) & 0xffff) < ((this.#used - before) & 0xffff);
  }
}
