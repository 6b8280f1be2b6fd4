import { type Attr, S_IFDIR } from '#base/attr.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { FdHolder, Loss } from '#quota/fd-budget.ts';
import type { StoredAttrs } from '#security/model.ts';
import type { Node } from '../tree.ts';
import { inoKey, type Volume } from './volume.ts';

/** An open file or directory of a node, which lends it its descriptor. */
export interface Opened {
  use<T>(act: (fd: number) => MaybePromise<T>): MaybePromise<T>;
}

/** A name of an object. The directory is held. */
export interface DirEntry {
  readonly dir: LocalNode;
  readonly name: Name;
}

/** Attributes that a model computed, and the ctime of the object then. */
export interface CachedAttr {
  /** Lower half of the seconds, which repeats after 136 years. */
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
  readonly rdev: number;
}

/** What nodes and their names need of the table of nodes. */
export interface NodeOwner {
  isRoot(node: LocalNode): boolean;
  hold(node: LocalNode): void;
  release(node: LocalNode): void;
  evict(node: LocalNode, allowed: Loss): boolean;
}

/**
 * An object of the host's file system, identified by mount, device and inode number, and shared by all its fids. A descriptor
 * pins its inode: an O_PATH descriptor of its own, or that of an open file. When its descriptor was evicted, it is reopened by
 * file handle, or without the privilege for handles by name, and its identity checked.
 */
export class LocalNode implements Node, FdHolder {
  readonly volume: Volume<LocalNode>;
  readonly ino: number | bigint;
  /** Changes only if the type in a mapped record is overwritten. */
  type: number;
  readonly pathLow: number;
  readonly pathHigh: number;
  /**
   * Hash of the birth time: tells inodes apart that had the same number in turn. overlayfs changes it when it copies a file up.
   */
  gen: number;
  /** Its own descriptor; −1 when evicted, or if it was created open. */
  fd = -1;
  /** The directory it was last seen in, held. Undefined for the root. */
  parent: LocalNode | undefined;
  /** Its name there; undefined for the root, and if that name was removed and no other is known. */
  name: Name | undefined;
  /** Other known names of a non-directory. */
  otherNames: DirEntry[] | undefined = undefined;
  refs = 1;
  /** Number of running calls that use the descriptor. */
  busy = 0;
  touched = false;
  handle: Bytes | undefined = undefined;
  /** See `AttrCache`. */
  cachedAttr: CachedAttr | undefined = undefined;
  /** For models with record files: what was last read or written of its record. */
  record: StoredAttrs | undefined = undefined;
  opens: Opened | Set<Opened> | undefined = undefined;
  readonly #owner: NodeOwner;

  constructor(owner: NodeOwner, volume: Volume<LocalNode>, attr: Attr, path: readonly [number, number]) {
    this.#owner = owner;
    this.volume = volume;
    this.ino = inoKey(attr);
    this.gen = attr.gen;
    this.type = attr.type;
    [this.pathLow, this.pathHigh] = path;
  }

  get isDirectory(): boolean {
    return this.type === S_IFDIR;
  }

  evict(allowed: Loss = 'nothing'): boolean {
    return this.#owner.evict(this, allowed);
  }
}
