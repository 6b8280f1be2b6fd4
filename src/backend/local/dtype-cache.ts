import type { Attr } from '#base/attr.ts';
import { DIRENT_COOKIE, DIRENT_NAME, DIRENT_NAME_BYTES, DIRENT_QID_PATH, DIRENT_TYPE } from '#base/layout.ts';
import { DT_DIR, DT_REG } from '#protocol/constants.ts';
import type { LocalNode } from './node.ts';
import type { LocalOpen } from './open-file.ts';

/** Whoever makes an object under its name before it is stamped, as QEMU does, is done after so long. */
const settledMsMin = 2000;
/** Directories and exceptions that are remembered in all; each costs some 100 bytes. */
const rememberedMax = 65_536;

/** Inode numbers below 2^53 are exact as numbers. */
const exactHighMax = 0x20_0000;

/** By inode number, the types of a directory's entries that are neither files nor directories. */
export type DTypes = ReadonlyMap<number, number>;

interface Known {
  readonly gen: number;
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  readonly exceptions: DTypes;
}

/** A listing from the start on, as long as the directory has not changed under it. */
interface Scan {
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  nextLow: number;
  nextHigh: number;
  readonly exceptions: Map<number, number>;
}

/**
 * What whole listings have shown of the types that only a record tells: to ask for each entry's costs ten times as much as
 * the listing. It holds while the directory's ctime is the same: then the same objects have the same names, an inode number
 * that has a name is not given to another object, and an object's type never changes.
 */
export class DTypeCache {
  /** By directory; the one that was asked for last stands last. */
  readonly #known = new Map<string, Known>();
  readonly #scans = new WeakMap<LocalOpen, Scan>();
  #remembered = 0;

  /** `attr` describes the directory now. */
  of(dir: LocalNode, attr: Attr): DTypes | undefined {
    const key = keyOf(dir);
    const known = this.#known.get(key);
    if (!known) return undefined;
    this.#forget(key, known);
    if (!isOf(known, attr) || known.gen !== dir.gen) return undefined;
    this.#remember(key, known);
    return known.exceptions;
  }

  /** Takes note of entries that were listed from a cookie on, each asked for its type; `attr` is from before. */
  learn(dir: LocalOpen, attr: Attr, low: number, high: number, packed: Buffer, bytes: number): void {
    const scan = low === 0 && high === 0 ? begin(dir.node, attr) : this.#scans.get(dir);
    this.#scans.delete(dir);
    if (!scan || !isOf(scan, attr) || scan.nextLow !== low || scan.nextHigh !== high) return;
    if (bytes > 0) {
      if (note(scan, packed, bytes)) this.#scans.set(dir, scan);
      return;
    }
    const { ctimeSec, ctimeNsec, exceptions } = scan;
    const key = keyOf(dir.node);
    const old = this.#known.get(key);
    if (old) this.#forget(key, old);
    this.#remember(key, { gen: dir.node.gen, ctimeSec, ctimeNsec, exceptions });
    for (const [other, oldest] of this.#known) {
      if (this.#remembered <= rememberedMax) break;
      this.#forget(other, oldest);
    }
  }

  #remember(key: string, known: Known): void {
    this.#known.set(key, known);
    this.#remembered += 1 + known.exceptions.size;
  }

  #forget(key: string, known: Known): void {
    this.#known.delete(key);
    this.#remembered -= 1 + known.exceptions.size;
  }
}

function keyOf({ volume, ino }: LocalNode): string {
  return `${volume.mountId}:${volume.dev}:${ino}`;
}

function isOf(seen: { ctimeSec: number; ctimeNsec: number }, attr: Attr): boolean {
  return seen.ctimeSec === attr.ctimeSec && seen.ctimeNsec === attr.ctimeNsec;
}

function begin({ volume }: LocalNode, attr: Attr): Scan | undefined {
  const { ctimeSec, ctimeNsec } = attr;
  const ageMs = Date.now() - ctimeSec * 1000 - ctimeNsec / 1e6;
  if (volume.ctimeTells === 'unknown' || ageMs < settledMsMin) return undefined;
  return { ctimeSec, ctimeNsec, nextLow: 0, nextHigh: 0, exceptions: new Map() };
}

/** False when there is too much to remember. */
function note(scan: Scan, packed: Buffer, bytes: number): boolean {
  const { exceptions } = scan;
  let last = 0;
  for (let at = 0; at < bytes; at += DIRENT_NAME + packed.readUInt16LE(at + DIRENT_NAME_BYTES)) {
    last = at;
    const type = packed[at + DIRENT_TYPE]!;
    if (type === DT_REG || type === DT_DIR) continue;
    const high = packed.readUInt32LE(at + DIRENT_QID_PATH + 4);
    if (high >= exactHighMax || exceptions.size === rememberedMax) return false;
    exceptions.set(high * 0x1_0000_0000 + packed.readUInt32LE(at + DIRENT_QID_PATH), type);
  }
  scan.nextLow = packed.readUInt32LE(last + DIRENT_COOKIE);
  scan.nextHigh = packed.readUInt32LE(last + DIRENT_COOKIE + 4);
  return true;
}
