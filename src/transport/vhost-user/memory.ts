import { type BigIntStats, fstatSync } from 'node:fs';
import { kindOfDescriptor } from '#host/fd.ts';
import type { Mapping } from '#host/mapping.ts';
import { VhostUserError } from './messages.ts';
import { type Windows, windowBytesMax } from './windows.ts';

/** A memory region as the monitor describes it: its addresses in the guest and in the monitor, and its offset in the file. */
export interface RegionLayout {
  readonly guestAddress: number;
  readonly bytes: number;
  readonly monitorAddress: number;
  readonly fileOffset: number;
}

/** A part of a region that fits into one buffer in every supported Node, with the views that the ring needs. */
export interface Window {
  readonly guestAddress: number;
  readonly end: number;
  readonly bytes: Buffer;
  readonly words16: Uint16Array;
  readonly words32: Uint32Array;
}

interface Region extends RegionLayout {
  /** Identity of a region that is sent again: addresses, size, offset and file. */
  readonly key: string;
  readonly windows: readonly Window[];
  readonly mappings: readonly Mapping[];
}

const pageBytes = 4096;
/** Removed regions that requests still use. More than a monitor has at a time (QEMU: 509). */
const removedMax = 1024;

/**
 * The memory of one guest, as shared by its monitor. Addresses are translated at each use, and again after each change. A
 * view stays valid after its region was removed (`Mapping`).
 */
export class GuestMemory {
  /** Incremented by each change. Addresses that were translated in an earlier generation must be translated again. */
  generation = 0;
  #regions: Region[] = [];
  #removed: Region[] = [];
  #last: Window | undefined;
  readonly #windows: Windows;

  constructor(windows: Windows) {
    this.#windows = windows;
  }

  get regionCount(): number {
    return this.#regions.length;
  }

  /** Replaces all regions. Unchanged ones keep their windows. */
  setTable(layouts: readonly RegionLayout[], descriptors: readonly number[]): void {
    const before = this.#regions;
    this.#regions = [];
    try {
      for (const [at, layout] of layouts.entries()) this.#add(layout, descriptors[at]!, before);
    } finally {
      const kept = new Set(this.#regions);
      this.#retire(before.filter(region => !kept.has(region)));
    }
  }

  add(layout: RegionLayout, descriptor: number): void {
    this.generation++;
    this.#add(layout, descriptor, []);
  }

  remove(layout: RegionLayout): void {
    const { guestAddress, bytes, monitorAddress } = layout;
    const removed = this.#regions.filter(
      region =>
        region.guestAddress === guestAddress &&
        region.bytes === bytes &&
        region.monitorAddress === monitorAddress,
    );
    if (removed.length === 0) throw new VhostUserError('a memory region is removed that was never added');
    this.#regions = this.#regions.filter(region => !removed.includes(region));
    this.#retire(removed);
  }

  clear(): void {
    this.#retire(this.#regions);
    this.#regions = [];
  }

  /** Returns the memory of removed regions to the host. Must be called only while no system call uses it. */
  release(): void {
    for (const { mappings } of this.#removed) {
      for (const mapping of mappings) void this.#windows.detach(mapping);
    }
    this.#removed = [];
  }

  /** Whether a region was accessed beyond the end of its file. */
  faulted(): boolean {
    return this.#regions.some(({ mappings }) => mappings.some(mapping => mapping.faulted()));
  }

  /** Translates a monitor's address to the guest's; undefined if no region contains it. */
  guestAddressOf(monitorAddress: number): number | undefined {
    for (const region of this.#regions) {
      const offset = monitorAddress - region.monitorAddress;
      if (offset >= 0 && offset < region.bytes) return region.guestAddress + offset;
    }
    return undefined;
  }

  /** The window that contains the address; undefined if none. */
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
    this.generation++;
    this.#removed.push(...regions);
    this.#last = undefined;
    if (this.#removed.length > removedMax)
      throw new VhostUserError('memory is changed faster than requests that use it end');
  }

  #add(layout: RegionLayout, descriptor: number, before: readonly Region[]): void {
    // Nothing else is asked or mapped: a page fault would ask a FUSE daemon, too.
    if (kindOfDescriptor(descriptor) !== 'memory') {
      throw new VhostUserError(
        'guest memory is no memfd and no file of tmpfs or hugetlbfs; give the guest shared memory ' +
          '(QEMU: -object memory-backend-memfd,share=on)',
      );
    }
    const stat = fstatSync(descriptor, { bigint: true });
    checkLayout(layout, stat);
    for (const other of this.#regions) {
      if (overlap(layout.guestAddress, other.guestAddress, layout.bytes, other.bytes)) {
        throw new VhostUserError('two memory regions overlap in the guest');
      }
      if (overlap(layout.monitorAddress, other.monitorAddress, layout.bytes, other.bytes)) {
        throw new VhostUserError('two memory regions overlap in the monitor');
      }
    }
    const { guestAddress, bytes, monitorAddress, fileOffset } = layout;
    const key = [guestAddress, bytes, monitorAddress, fileOffset, stat.dev, stat.ino].join();
    this.#regions.push(
      before.find(region => region.key === key) ?? this.#map(layout, key, descriptor, Number(stat.blksize)),
    );
  }

  /** `blockBytes`: the size of the file's pages, of which hugetlbfs maps whole ones only. */
  #map(layout: RegionLayout, key: string, descriptor: number, blockBytes: number): Region {
    const windows: Window[] = [];
    const mappings: Mapping[] = [];
    try {
      let length = 0;
      for (let at = 0; at < layout.bytes; at += length) {
        const guestAddress = layout.guestAddress + at;
        // Windows end at multiples of windowBytesMax, so that no ring with the usual alignment lies in two.
        length = Math.min(windowBytesMax - (guestAddress % windowBytesMax), layout.bytes - at);
        const alignment = Math.max(pageBytes, blockBytes);
        const mapping = this.#windows.map(descriptor, layout.fileOffset + at, length, alignment);
        mappings.push(mapping);
        windows.push(windowOf(mapping, guestAddress, length));
      }
    } catch (error) {
      for (const mapping of mappings) void this.#windows.detach(mapping);
      throw error;
    }
    return { ...layout, key, windows, mappings };
  }
}

function windowOf({ buffer, start }: Mapping, guestAddress: number, bytes: number): Window {
  return {
    guestAddress,
    end: guestAddress + bytes,
    bytes: Buffer.from(buffer, start, bytes),
    words16: new Uint16Array(buffer, start, bytes >> 1),
    words32: new Uint32Array(buffer, start, bytes >> 2),
  };
}

function overlap(a: number, b: number, aBytes: number, bBytes: number): boolean {
  return a < b + bBytes && b < a + aBytes;
}

function checkLayout(layout: RegionLayout, stat: BigIntStats): void {
  const { guestAddress, bytes, monitorAddress, fileOffset } = layout;
  const numbers = [guestAddress, bytes, monitorAddress, fileOffset];
  if (bytes === 0 || numbers.some(number => number % pageBytes !== 0)) {
    throw new VhostUserError('a memory region does not begin and end with a page');
  }
  if (!numbers.every(number => Number.isSafeInteger(number + bytes))) {
    throw new VhostUserError('a memory region lies beyond what addresses can reach');
  }
  if (BigInt(fileOffset + bytes) > stat.size)
    throw new VhostUserError('a memory region ends beyond its file');
}

const none: readonly Uint8Array[] = [];

/**
 * A chain's buffers of one direction, in order. Adjacent buffers are merged; a buffer that crosses the end of a region
 * continues in the adjacent one, if any.
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

  /** Appends a buffer. False if a part of it is not mapped. */
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
   * Translates the same addresses in changed memory. False if some are not mapped now; then nothing is changed, and it may be
   * tried again after the next change.
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

  /** Copies the first `count` bytes to `into`, or as many as there are. Returns their number. */
  read(into: Buffer, count = into.length): number {
    let done = 0;
    for (let i = 0; i < this.#count && done < count; i++) {
      const start = this.#starts[i]!;
      const part = Math.min(this.#lengths[i]!, count - done);
      this.#windows[i]!.bytes.copy(into, done, start, start + part);
      done += part;
    }
    return done;
  }

  /** Copies the first `count` bytes of `from` to offset `skip`. They must fit. */
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

  /** Views of up to `count` bytes from offset `skip`. */
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
      views.push(new Uint8Array(bytes.buffer, bytes.byteOffset + this.#starts[i]! + skip, part));
      count -= part;
      skip = 0;
    }
    return views;
  }
}
