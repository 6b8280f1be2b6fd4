import { qidTypeOf, S_IFMT, setU64 } from '#base/attr.ts';
import { EINVAL } from '#base/errno.ts';
import {
  DIRENT_COOKIE,
  DIRENT_NAME,
  DIRENT_NAME_BYTES,
  DIRENT_QID_PATH,
  DIRENT_QID_TYPE,
  DIRENT_QID_VERSION,
  DIRENT_TYPE,
} from '#base/layout.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Node } from '../tree.ts';
import type { MemoryQuota } from './memory-quota.ts';

/** What an entry costs besides its name. */
const entryBytes = 64;
/** Cookies of `.` and `..`; those of other entries follow. 0 is none: it would start the listing anew. */
const selfCookie = 1;
const parentCookie = 2;

interface Entry<N extends Node> {
  readonly name: Name;
  /** Given once, increasing, never used again: what makes a listing resume at the right place whatever came and went. */
  readonly cookie: number;
  node: N;
  gone: boolean;
}

/** The entries of a directory, by name and in the order in which they came. */
export class Entries<N extends Node> {
  readonly #byName = new Map<Name, Entry<N>>();
  /** By rising cookie; entries that are gone stay until they are many. */
  #order: Entry<N>[] = [];
  #nextCookie = parentCookie + 1;
  readonly #space: MemoryQuota;

  constructor(space: MemoryQuota) {
    this.#space = space;
  }

  get count(): number {
    return this.#byName.size;
  }

  get(name: Name): N | undefined {
    return this.#byName.get(name)?.node;
  }

  /** Adds a name that is not there; ENOSPC when there is no space for it. */
  add(name: Name, node: N): void {
    this.#space.take(entryBytes + name.length);
    const entry: Entry<N> = { name, cookie: this.#nextCookie++, node, gone: false };
    this.#byName.set(name, entry);
    this.#order.push(entry);
  }

  /** Makes a name that is there lead to another object; it keeps its place in listings. */
  replace(name: Name, node: N): void {
    this.#byName.get(name)!.node = node;
  }

  remove(name: Name): void {
    const entry = this.#byName.get(name)!;
    this.#byName.delete(name);
    this.#space.give(entryBytes + name.length);
    entry.gone = true;
    if (this.#order.length > 2 * this.count + 64) this.#order = this.#order.filter(({ gone }) => !gone);
  }

  /** Packs whole entries behind `cookie`; `self` is the directory, `parent` what `..` leads to. */
  pack(self: Node, parent: Node, cookie: number, into: Uint8Array): number {
    let at = 0;
    const put = (name: Bytes, node: Node, next: number): boolean => {
      if (into.length - at < DIRENT_NAME + name.length) return false;
      at = packEntry(into, at, name, node, next);
      return true;
    };
    const fits =
      (cookie >= selfCookie || put('.', self, selfCookie)) &&
      (cookie >= parentCookie || put('..', parent, parentCookie)) &&
      this.#packFrom(cookie, put);
    if (!fits && at === 0) throw EINVAL;
    return at;
  }

  /** Whether all entries behind `cookie` were put. */
  #packFrom(cookie: number, put: (name: Bytes, node: Node, next: number) => boolean): boolean {
    for (let i = this.#firstBehind(cookie); i < this.#order.length; i++) {
      const entry = this.#order[i]!;
      if (!entry.gone && !put(entry.name, entry.node, entry.cookie)) return false;
    }
    return true;
  }

  #firstBehind(cookie: number): number {
    let low = 0;
    let high = this.#order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#order[middle]!.cookie > cookie) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function packEntry(into: Uint8Array, at: number, name: Bytes, node: Node, cookie: number): number {
  const packed = Buffer.from(into.buffer, into.byteOffset + at, DIRENT_NAME + name.length);
  packed[DIRENT_QID_TYPE] = qidTypeOf(node.type);
  packed.writeUInt32LE(0, DIRENT_QID_VERSION);
  packed.writeUInt32LE(node.pathLow, DIRENT_QID_PATH);
  packed.writeUInt32LE(node.pathHigh, DIRENT_QID_PATH + 4);
  setU64(packed, DIRENT_COOKIE, cookie);
  // DT_* of dirent.h are the type bits of a mode (IFTODT).
  packed[DIRENT_TYPE] = (node.type & S_IFMT) >> 12;
  packed.writeUInt16LE(name.length, DIRENT_NAME_BYTES);
  packed.write(name, DIRENT_NAME, 'latin1');
  return at + packed.length;
}
