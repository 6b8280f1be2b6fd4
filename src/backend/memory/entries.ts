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

/** Bytes counted for an entry besides its name. */
const entryBytes = 64;
/** Cookies of `.` and `..`; those of other entries follow. 0 starts a listing. */
const selfCookie = 1;
const parentCookie = 2;

interface Entry<N extends Node> {
  readonly name: Name;
  /** Increasing and never reused: a listing resumes in the right position, whatever was added and removed. */
  readonly cookie: number;
  node: N;
  gone: boolean;
}

/** The entries of a directory, by name and in order of creation. */
export class Entries<N extends Node> {
  readonly #byName = new Map<Name, Entry<N>>();
  /** By cookie. Removed entries stay until there are many. */
  #order: Entry<N>[] = [];
  #nextCookie = parentCookie + 1;
  readonly #quota: MemoryQuota;

  constructor(quota: MemoryQuota) {
    this.#quota = quota;
  }

  get count(): number {
    return this.#byName.size;
  }

  get(name: Name): N | undefined {
    return this.#byName.get(name)?.node;
  }

  /** Adds a name that does not exist. ENOSPC if the quota is full. */
  add(name: Name, node: N): void {
    this.#quota.take(entryBytes + name.length);
    const entry: Entry<N> = { name, cookie: this.#nextCookie++, node, gone: false };
    this.#byName.set(name, entry);
    this.#order.push(entry);
  }

  /** Makes an existing name refer to another object. It keeps its position in listings. */
  replace(name: Name, node: N): void {
    this.#byName.get(name)!.node = node;
  }

  remove(name: Name): void {
    const entry = this.#byName.get(name)!;
    this.#byName.delete(name);
    this.#quota.give(entryBytes + name.length);
    entry.gone = true;
    if (this.#order.length > 2 * this.count + 64) this.#order = this.#order.filter(({ gone }) => !gone);
  }

  /** Packs whole entries after `cookie`, with `self` as `.` and `parent` as `..`. EINVAL if the first does not fit. */
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

  /** Whether all entries after `cookie` were packed. */
  #packFrom(cookie: number, put: (name: Bytes, node: Node, next: number) => boolean): boolean {
    for (let i = this.#firstAfter(cookie); i < this.#order.length; i++) {
      const entry = this.#order[i]!;
      if (!entry.gone && !put(entry.name, entry.node, entry.cookie)) return false;
    }
    return true;
  }

  #firstAfter(cookie: number): number {
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
