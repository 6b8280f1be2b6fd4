import type { Name } from '#base/name.ts';
import { DirentPacker } from '../kit/dirent-packer.ts';
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
    const packer = new DirentPacker(into);
    const fits =
      (cookie >= selfCookie || packer.put('.', self, selfCookie)) &&
      (cookie >= parentCookie || packer.put('..', parent, parentCookie)) &&
      this.#packFrom(cookie, packer);
    return packer.end(fits);
  }

  /** Whether all entries after `cookie` were packed. */
  #packFrom(cookie: number, packer: DirentPacker): boolean {
    for (let i = this.#firstAfter(cookie); i < this.#order.length; i++) {
      const entry = this.#order[i]!;
      if (!entry.gone && !packer.put(entry.name, entry.node, entry.cookie)) return false;
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
