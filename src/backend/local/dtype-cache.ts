import type { Attr } from '#base/attr.ts';
import { DIRENT_COOKIE, DIRENT_NAME, DIRENT_NAME_BYTES, DIRENT_QID_PATH, DIRENT_TYPE } from '#base/layout.ts';
import { DT_DIR, DT_REG } from '#protocol/constants.ts';
import type { LocalNode } from './node.ts';
import type { LocalOpen } from './open-file.ts';

/** A server that creates an object before it writes its record, as QEMU does, has written it after this time. */
const settledMsMin = 2000;
/** Most directories and exceptions in the cache, about 100 bytes each. */
const cachedMax = 65_536;

/** High half of 2^53, from which on numbers are not exact. */
const exactHighMax = 0x20_0000;

/** By inode number, the types of a directory's entries that are neither files nor directories. */
export type DTypes = ReadonlyMap<number, number>;

interface CachedListing {
  readonly gen: number;
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  readonly exceptions: DTypes;
}

/** A listing in progress, from the start on, of a directory that has not changed. */
interface Scan {
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  nextLow: number;
  nextHigh: number;
  readonly exceptions: Map<number, number>;
}

/**
 * Types that are in mapped records, from complete listings: reading the record of each entry costs ten times as much as the
 * listing. Valid while the directory's ctime is unchanged: then the same objects have the same names, an inode number with a
 * name is not reused, and the type of an object never changes.
 */
export class DTypeCache {
  /** By directory, in order of last use. */
  readonly #known = new Map<string, CachedListing>();
  readonly #scans = new WeakMap<LocalOpen, Scan>();
  #count = 0;

  /** `attr`: the directory's attributes now. */
  of(dir: LocalNode, attr: Attr): DTypes | undefined {
    const key = keyOf(dir);
    const known = this.#known.get(key);
    if (!known) return undefined;
    this.#delete(key, known);
    if (!isUnchanged(known, attr) || known.gen !== dir.gen) return undefined;
    this.#put(key, known);
    return known.exceptions;
  }

  /** Learns from entries listed from a cookie on, with types from records. `attr`: the directory's attributes before. */
  learn(dir: LocalOpen, attr: Attr, low: number, high: number, packed: Buffer, bytes: number): void {
    const scan = low === 0 && high === 0 ? beginScan(dir.node, attr) : this.#scans.get(dir);
    this.#scans.delete(dir);
    if (!scan || !isUnchanged(scan, attr) || scan.nextLow !== low || scan.nextHigh !== high) return;
    if (bytes > 0) {
      if (addTo(scan, packed, bytes)) this.#scans.set(dir, scan);
      return;
    }
    const { ctimeSec, ctimeNsec, exceptions } = scan;
    const key = keyOf(dir.node);
    const old = this.#known.get(key);
    if (old) this.#delete(key, old);
    this.#put(key, { gen: dir.node.gen, ctimeSec, ctimeNsec, exceptions });
    for (const [other, oldest] of this.#known) {
      if (this.#count <= cachedMax) break;
      this.#delete(other, oldest);
    }
  }

  #put(key: string, known: CachedListing): void {
    this.#known.set(key, known);
    this.#count += 1 + known.exceptions.size;
  }

  #delete(key: string, known: CachedListing): void {
    this.#known.delete(key);
    this.#count -= 1 + known.exceptions.size;
  }
}

export function keyOf({ volume, ino }: LocalNode): string {
  return `${volume.mountId}:${volume.dev}:${ino}`;
}

function isUnchanged(seen: { ctimeSec: number; ctimeNsec: number }, attr: Attr): boolean {
  return seen.ctimeSec === attr.ctimeSec && seen.ctimeNsec === attr.ctimeNsec;
}

function beginScan({ volume }: LocalNode, attr: Attr): Scan | undefined {
  const { ctimeSec, ctimeNsec } = attr;
  const ageMs = Date.now() - ctimeSec * 1000 - ctimeNsec / 1e6;
  if (volume.ctimeTells === 'unknown' || ageMs < settledMsMin) return undefined;
  return { ctimeSec, ctimeNsec, nextLow: 0, nextHigh: 0, exceptions: new Map() };
}

/** Adds entries to a scan. False if there are too many, or inode numbers of 2^53 and more. */
function addTo(scan: Scan, packed: Buffer, bytes: number): boolean {
  const { exceptions } = scan;
  let last = 0;
  for (let at = 0; at < bytes; at += DIRENT_NAME + packed.readUInt16LE(at + DIRENT_NAME_BYTES)) {
    last = at;
    const type = packed[at + DIRENT_TYPE]!;
    if (type === DT_REG || type === DT_DIR) continue;
    const high = packed.readUInt32LE(at + DIRENT_QID_PATH + 4);
    if (high >= exactHighMax || exceptions.size === cachedMax) return false;
    exceptions.set(high * 0x1_0000_0000 + packed.readUInt32LE(at + DIRENT_QID_PATH), type);
  }
  scan.nextLow = packed.readUInt32LE(last + DIRENT_COOKIE);
  scan.nextHigh = packed.readUInt32LE(last + DIRENT_COOKIE + 4);
  return true;
}
