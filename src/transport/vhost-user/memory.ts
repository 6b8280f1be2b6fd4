import { type BigIntStats, fstatSync } from 'node:fs';
import { Errno } from '#base/errno.ts';
import { Mapping } from '#host/vhost.ts';
import { VhostUserError } from './messages.ts';

/** A region as the monitor describes it: where the guest and the monitor see it, and where it lies in its file. */
export interface RegionLayout {
  readonly guestAddress: number;
  readonly bytes: number;
  readonly monitorAddress: number;
  readonly fileOffset: number;
}

/** A piece of a region, small enough for one ArrayBuffer in every Node, with the views the ring needs. */
export interface Window {
  readonly guestAddress: number;
  readonly end: number;
  readonly bytes: Buffer;
  readonly words16: Uint16Array;
  readonly words32: Uint32Array;
}

interface Region extends RegionLayout {
  /** Tells a region that is sent again from another at its place. */
  readonly key: string;
  readonly windows: readonly Window[];
  readonly mappings: readonly Mapping[];
}

const pageBytes = 4096;
/** Node 20 has no buffer above 4 GiB. */
const windowBytesMax = 2 ** 30;
/** Regions that have gone and are still used by requests: more than a monitor ever has at a time (QEMU: 509). */
const goneMax = 1024;

/**
 * The memory of one guest: what the monitor shares of it. Addresses are looked up anew at each use and after each change, and
 * a view that was given out stays usable after its region has gone (`Mapping`).
 */
export class GuestMemory {
  /** Another one after each change: what was looked up before is to be looked up again. */
  era = 0;
  #regions: Region[] = [];
  #gone: Region[] = [];
  #last: Window | undefined;

  get regionCount(): number {
    return this.#regions.length;
  }

  /** Replaces everything. Regions that stay as they were keep their windows. */
  setTable(places: readonly RegionLayout[], descriptors: readonly number[]): void {
    const before = this.#regions;
    this.#regions = [];
    try {
      for (const [at, place] of places.entries()) this.#add(place, descriptors[at]!, before);
    } finally {
      const kept = new Set(this.#regions);
      this.#retire(before.filter(region => !kept.has(region)));
    }
  }

  add(place: RegionLayout, descriptor: number): void {
    this.era++;
    this.#add(place, descriptor, []);
  }

  remove(place: RegionLayout): void {
    const { guestAddress, bytes, monitorAddress } = place;
    const gone = this.#regions.filter(
      region =>
        region.guestAddress === guestAddress &&
        region.bytes === bytes &&
        region.monitorAddress === monitorAddress,
    );
    if (gone.length === 0) throw new VhostUserError('a memory region that was never added is taken away');
    this.#regions = this.#regions.filter(region => !gone.includes(region));
    this.#retire(gone);
  }

  clear(): void {
    this.#retire(this.#regions);
    this.#regions = [];
  }

  /** Gives the memory of regions that have gone back to the host; to be called when no system call works on them. */
  release(): void {
    for (const { mappings } of this.#gone) {
      // A host without memory for the replacement keeps the mapping until its last view is collected.
      for (const mapping of mappings) attemptToSever(mapping);
    }
    this.#gone = [];
  }

  /** Whether the file of a region turned out to be too short for it. */
  faulted(): boolean {
    return this.#regions.some(({ mappings }) => mappings.some(mapping => mapping.faulted()));
  }

  /** The guest's address of one of the monitor's, or undefined. */
  guestAddressOf(monitorAddress: number): number | undefined {
    for (const region of this.#regions) {
      const offset = monitorAddress - region.monitorAddress;
      if (offset >= 0 && offset < region.bytes) return region.guestAddress + offset;
    }
    return undefined;
  }

  /** The window that an address lies in, or undefined. */
  windowAt(guestAddress: number): Window | undefined {
    const last = this.#last;
    if (last && guestAddress >= last.guestAddress && guestAddress < last.end) return last;
    for (const { windows } of this.#regions) {
      for (const window of windows) {
        if (guestAddress < window.guestAddress || guestAddress >= window.end) continue;
        this.#last = window;
        return window;
      }
    }
    return undefined;
  }

  #retire(regions: readonly Region[]): void {
    this.era++;
    this.#gone.push(...regions);
    this.#last = undefined;
    if (this.#gone.length > goneMax)
      throw new VhostUserError('memory is changed faster than requests that use it end');
  }

  #add(place: RegionLayout, descriptor: number, before: readonly Region[]): void {
    const stat = fstatSync(descriptor, { bigint: true });
    checkPlace(place, stat);
    for (const other of this.#regions) {
      if (overlap(place.guestAddress, other.guestAddress, place.bytes, other.bytes)) {
        throw new VhostUserError('two memory regions overlap in the guest');
      }
      if (overlap(place.monitorAddress, other.monitorAddress, place.bytes, other.bytes)) {
        throw new VhostUserError('two memory regions overlap in the monitor');
      }
    }
    const { guestAddress, bytes, monitorAddress, fileOffset } = place;
    const key = [guestAddress, bytes, monitorAddress, fileOffset, stat.dev, stat.ino].join();
    this.#regions.push(before.find(region => region.key === key) ?? mapRegion(place, key, descriptor));
  }
}

function attemptToSever(mapping: Mapping): void {
  try {
    mapping.sever();
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
  }
}

function overlap(a: number, b: number, aBytes: number, bBytes: number): boolean {
  return a < b + bBytes && b < a + aBytes;
}

function checkPlace(place: RegionLayout, stat: BigIntStats): void {
  const { guestAddress, bytes, monitorAddress, fileOffset } = place;
  const numbers = [guestAddress, bytes, monitorAddress, fileOffset];
  if (bytes === 0 || numbers.some(number => number % pageBytes !== 0)) {
    throw new VhostUserError('a memory region does not begin and end with a page');
  }
  if (!numbers.every(number => Number.isSafeInteger(number + bytes))) {
    throw new VhostUserError('a memory region lies beyond what addresses can reach');
  }
  if (!stat.isFile()) {
    throw new VhostUserError(
      'guest memory is not a file that can be shared; give the guest shared memory ' +
        '(QEMU: -object memory-backend-memfd,share=on)',
    );
  }
  if (BigInt(fileOffset + bytes) > stat.size)
    throw new VhostUserError('a memory region ends beyond its file');
}

function mapRegion(place: RegionLayout, key: string, descriptor: number): Region {
  const windows: Window[] = [];
  const mappings: Mapping[] = [];
  try {
    let length = 0;
    for (let at = 0; at < place.bytes; at += length) {
      const guestAddress = place.guestAddress + at;
      // Windows end at multiples of their size, so that no ring, aligned as guests align them, lies in two.
      length = Math.min(windowBytesMax - (guestAddress % windowBytesMax), place.bytes - at);
      const mapping = new Mapping(descriptor, place.fileOffset + at, length);
      const { buffer } = mapping;
      mappings.push(mapping);
      windows.push({
        guestAddress,
        end: guestAddress + length,
        bytes: Buffer.from(buffer),
        words16: new Uint16Array(buffer),
        words32: new Uint32Array(buffer),
      });
    }
  } catch (error) {
    if (error instanceof Errno) throw new VhostUserError(`guest memory cannot be mapped: ${error}`);
    throw error;
  }
  return { ...place, key, windows, mappings };
}

const none: readonly Uint8Array[] = [];

/**
 * The bytes that a chain's buffers of one direction lie in, in order. Neighbours are joined, and a buffer that goes over
 * the end of a region continues in the next one where there is one.
 */
export class IoVec {
  #windows: Window[] = [];
  #starts: number[] = [];
  #lengths: number[] = [];
  #count = 0;
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  clear(): void {
    this.#count = 0;
    this.#bytes = 0;
    this.#windows.length = 0;
  }

  /** False when some of these addresses are no memory. */
  add(memory: GuestMemory, guestAddress: number, length: number): boolean {
    this.#bytes += length;
    while (length > 0) {
      const window = memory.windowAt(guestAddress);
      if (window === undefined) return false;
      const part = Math.min(length, window.end - guestAddress);
      this.#push(window, guestAddress - window.guestAddress, part);
      guestAddress += part;
      length -= part;
    }
    return true;
  }

  /**
   * Looks the same addresses up in memory that has changed. False when some are no memory now; then all stays as it was, and
   * may be tried again after the next change.
   */
  translate(memory: GuestMemory): boolean {
    const found = new IoVec();
    for (let i = 0; i < this.#count; i++) {
      const address = this.#windows[i]!.guestAddress + this.#starts[i]!;
      if (!found.add(memory, address, this.#lengths[i]!)) return false;
    }
    this.#windows = found.#windows;
    this.#starts = found.#starts;
    this.#lengths = found.#lengths;
    this.#count = found.#count;
    return true;
  }

  #push(window: Window, start: number, length: number): void {
    const last = this.#count - 1;
    if (last >= 0 && this.#windows[last] === window && this.#starts[last]! + this.#lengths[last]! === start) {
      this.#lengths[last]! += length;
      return;
    }
    this.#windows[this.#count] = window;
    this.#starts[this.#count] = start;
    this.#lengths[this.#count] = length;
    this.#count++;
  }

  /** Copies the first bytes out, as many as `into` takes and there are. */
  read(into: Buffer): number {
    let done = 0;
    for (let i = 0; i < this.#count && done < into.length; i++) {
      const start = this.#starts[i]!;
      const part = Math.min(this.#lengths[i]!, into.length - done);
      this.#windows[i]!.bytes.copy(into, done, start, start + part);
      done += part;
    }
    return done;
  }

  /** Copies the first `count` bytes of `from` in, behind the first `skip`; there must be room. */
  write(from: Buffer, count: number, skip = 0): void {
    let done = 0;
    for (let i = 0; i < this.#count && done < count; i++) {
      const length = this.#lengths[i]! - skip;
      if (length <= 0) {
        skip -= this.#lengths[i]!;
        continue;
      }
      const part = Math.min(length, count - done);
      from.copy(this.#windows[i]!.bytes, this.#starts[i]! + skip, done, done + part);
      done += part;
      skip = 0;
    }
  }

  /** The bytes themselves, behind the first `skip`: up to `count` of them. */
  views(skip: number, count: number): readonly Uint8Array[] {
    if (count <= 0) return none;
    const views: Uint8Array[] = [];
    for (let i = 0; i < this.#count && count > 0; i++) {
      const length = this.#lengths[i]! - skip;
      if (length <= 0) {
        skip -= this.#lengths[i]!;
        continue;
      }
      const { bytes } = this.#windows[i]!;
      const part = Math.min(length, count);
      views.push(new Uint8Array(bytes.buffer, this.#starts[i]! + skip, part));
      count -= part;
      skip = 0;
    }
    return views;
  }
}
