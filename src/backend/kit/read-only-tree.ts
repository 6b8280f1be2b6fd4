import { createHash } from 'node:crypto';
import { type Attr, S_IFDIR, S_IFLNK, S_IFREG, type TimeSpec } from '#base/attr.ts';
import { EINVAL, EIO, EISDIR, ELOOP, ENOENT, ENOTDIR, EOPNOTSUPP, EROFS, Errno } from '#base/errno.ts';
import { andThen, type MaybePromise, onError, recover } from '#base/maybe-promise.ts';
import { type Bytes, type Name, nameOf } from '#base/name.ts';
import { Once } from '#base/once.ts';
import { lengthOf, type OwnedSegments, spread } from '#base/owned.ts';
import { type Credentials, credsWithoutGroups, type Submitter } from '#host/syscalls.ts';
import type { CallContext, Node, OpenDir, OpenFile, OpenHow, Tree } from '../tree.ts';
import { DirentPacker } from './dirent-packer.ts';
import { writeStatfs } from './statfs.ts';

/** An object as a subclass of `ReadOnlyTree` knows it: its type, and whatever else the subclass needs. */
export interface Item {
  readonly type: 'directory' | 'file' | 'symlink';
}

/** Attributes of an `Item`. */
export interface ItemAttributes {
  /** In bytes; of files only. Default: 0. */
  readonly size?: number;
  /** Default: when the tree was made. */
  readonly mtime?: Date;
  /** Permission bits. Default: 0555 for directories, 0444 for files. */
  readonly mode?: number;
  /** Default: 0, root. */
  readonly uid?: number;
  readonly gid?: number;
}

export interface ReadOnlyTreeOptions {
  /**
   * Gets what a method of the subclass threw, if it was no `Errno`: the client gets EIO. Equal texts at most once in ten
   * minutes. Default: process.emitWarning.
   */
  readonly warn?: ((text: string) => void) | undefined;
}

const types = { directory: S_IFDIR, file: S_IFREG, symlink: S_IFLNK } as const;
const defaultModes = { directory: 0o555, file: 0o444, symlink: 0o777 } as const;
const blockBytes = 4096;
const warnAgainMs = 10 * 60 * 1000;
/** Texts that are told apart. They come from a remote server, say, which could vary them. */
const warningsMax = 100;

/** Cookies of `.` and `..`; those of other entries follow. */
const selfCookie = 1;
const parentCookie = 2;

/** An object that some fid or open file refers to. */
class ItemNode<I extends Item> implements Node {
  readonly type: number;
  readonly pathLow: number;
  readonly pathHigh: number;
  /** The latest that was found under its name. */
  item: I;
  readonly name: Name | undefined;
  /** The root is its own parent. */
  readonly parent: ItemNode<I>;
  /** Those that are referenced. */
  readonly children = new Map<Name, ItemNode<I>>();
  refs = 0;

  constructor(item: I, parent?: ItemNode<I>, name?: Name) {
    this.item = item;
    this.type = types[item.type];
    this.name = name;
    this.parent = parent ?? this;
    [this.pathLow, this.pathHigh] = name === undefined ? [1, 0] : qidPath(this.parent, name, this.type);
  }
}

class ItemFile<I extends Item> implements OpenFile, OpenDir {
  readonly node: ItemNode<I>;
  readonly readable = true;
  readonly writable = false;
  /** Directories: the listing, from its start on. */
  entries: readonly (readonly [Name, I])[] | undefined;

  constructor(node: ItemNode<I>) {
    this.node = node;
  }
}

/** qid.path, a hash of path and type: stable over restarts. Two of a million objects are equal with a chance of 1 in 37 million. */
function qidPath(parent: Node, name: Name, type: number): [low: number, high: number] {
  const seed = Buffer.alloc(12);
  seed.writeUInt32LE(parent.pathLow, 0);
  seed.writeUInt32LE(parent.pathHigh, 4);
  seed.writeUInt32LE(type, 8);
  const digest = createHash('sha256').update(seed).update(name, 'latin1').digest();
  return [digest.readUInt32LE(0), digest.readUInt32LE(4)];
}

/**
 * A tree that clients can only read, whatever it is made of. A subclass passes the root to the constructor and implements
 * `list`, `attributes` and `bytes`; `find` where looking one name up is cheaper than a listing, and `target` for symlinks.
 *
 * - Each may return a promise, and may be called concurrently.
 * - Names are strings, without a slash. Those that no file can have (`..`, more than 255 bytes) are left out of listings, and
 *   nobody can look them up.
 * - An `Errno` that a method throws is what the client gets. Anything else is EIO, and a warning.
 * - Whether a user may read an object is for the client's kernel to decide, from its mode and owner.
 */
export abstract class ReadOnlyTree<I extends Item> implements Tree {
  readonly root: ItemNode<I>;
  readonly #warn: (text: string) => void;
  #warned = new Once(warnAgainMs);
  #warnings = 0;
  readonly #made = new Date();

  constructor(root: I, { warn = text => process.emitWarning(text) }: ReadOnlyTreeOptions = {}) {
    this.root = new ItemNode(root);
    this.root.refs = 1;
    this.#warn = warn;
  }

  /** The entries of a directory, by name. */
  abstract list(directory: I): MaybePromise<Iterable<readonly [name: string, item: I]>>;
  abstract attributes(item: I): MaybePromise<ItemAttributes>;
  /** Up to `length` bytes of a file from `offset` on; fewer only at its end. They are copied before anything else runs. */
  abstract bytes(file: I, offset: number, length: number): MaybePromise<Uint8Array>;

  /** The entry of a directory; undefined if it has no such name. Otherwise it is looked up in `list`. */
  find(directory: I, name: string): MaybePromise<I | undefined> {
    return andThen(this.list(directory), entries => {
      for (const [one, item] of entries) if (one === name) return item;
      return undefined;
    });
  }

  /** What a symlink refers to. It is resolved by the client. */
  target(_symlink: I): MaybePromise<string> {
    throw EINVAL;
  }

  /** Calls a method of the subclass. */
  #call<T>(act: () => MaybePromise<T>): MaybePromise<T> {
    return recover(act, error => {
      if (error instanceof Errno) throw error;
      this.#report(error);
      throw EIO;
    });
  }

  #report(error: unknown): void {
    const { stack, cause } = error instanceof Error ? error : { stack: String(error), cause: undefined };
    const text = `${stack}${cause === undefined ? '' : `: ${cause}`}`;
    if (!this.#warned.isFirst(text)) return;
    this.#warn(`the tree failed, and a client gets EIO: ${text}`);
    if (++this.#warnings % warningsMax === 0) this.#warned = new Once(warnAgainMs);
  }

  credentials(_submitter: Submitter, uid: number): Credentials {
    return credsWithoutGroups(uid);
  }

  hold(node: ItemNode<I>): void {
    node.refs++;
  }

  release(node: ItemNode<I>): void {
    if (--node.refs > 0 || node.name === undefined) return;
    const { children } = node.parent;
    if (children.get(node.name) === node) children.delete(node.name);
    this.release(node.parent);
  }

  walk(_ctx: CallContext, dir: ItemNode<I>, name: Name, attr: Attr): MaybePromise<ItemNode<I> | Errno> {
    if (dir.type !== S_IFDIR) return ENOTDIR;
    const text = textOf(name);
    if (text === undefined) return ENOENT;
    return andThen(
      this.#call(() => this.find(dir.item, text)),
      item => (item === undefined ? ENOENT : this.#entered(dir, name, item, attr)),
    );
  }

  /** A reference to the node of an entry. */
  #entered(dir: ItemNode<I>, name: Name, item: I, attr: Attr): MaybePromise<ItemNode<I>> {
    let node = dir.children.get(name);
    if (node?.type === types[item.type]) {
      node.item = item;
    } else {
      node = new ItemNode(item, dir, name);
      dir.children.set(name, node);
      this.hold(dir);
    }
    this.hold(node);
    return onError<ItemNode<I>>(
      () => andThen(this.#describe(node, attr), () => node),
      () => this.release(node),
    );
  }

  parent(_ctx: CallContext, dir: ItemNode<I>): ItemNode<I> {
    this.hold(dir.parent);
    return dir.parent;
  }

  stat(_ctx: CallContext, node: ItemNode<I>, attr: Attr): MaybePromise<void> {
    return this.#describe(node, attr);
  }

  #describe(node: ItemNode<I>, attr: Attr): MaybePromise<void> {
    const { item } = node;
    const known = this.#call(() => this.attributes(item));
    return andThen(known, found => {
      if (item.type !== 'symlink') return fill(attr, node, found, this.#made);
      return andThen(this.readlink(undefined, node), ({ length }) =>
        fill(attr, node, { ...found, size: length }, this.#made),
      );
    });
  }

  statfs(_ctx: CallContext, _node: ItemNode<I>, into: Buffer): void {
    writeStatfs(into, { blockBytes });
  }

  readlink(_ctx: CallContext | undefined, node: ItemNode<I>): MaybePromise<Bytes> {
    if (node.type !== S_IFLNK) throw EINVAL;
    return andThen(
      this.#call(() => this.target(node.item)),
      bytesOf,
    );
  }

  open(_ctx: CallContext, node: ItemNode<I>, how: OpenHow): ItemFile<I> {
    if (node.type === S_IFLNK) throw ELOOP;
    if (node.type === S_IFDIR) throw EISDIR;
    if (how.write || how.truncate) throw EROFS;
    this.hold(node);
    return new ItemFile(node);
  }

  openDir(_ctx: CallContext, node: ItemNode<I>): ItemFile<I> {
    if (node.type !== S_IFDIR) throw ENOTDIR;
    this.hold(node);
    return new ItemFile(node);
  }

  closeFile(file: ItemFile<I>): void {
    this.release(file.node);
  }

  closeDir(dir: ItemFile<I>): void {
    this.release(dir.node);
  }

  read(_ctx: CallContext, file: ItemFile<I>, into: OwnedSegments, offset: number): MaybePromise<number> {
    const wanted = lengthOf(into);
    return andThen(
      this.#call(() => this.bytes(file.node.item, offset, wanted)),
      found => {
        const count = Math.min(found.length, wanted);
        spread(found.subarray(0, count), into);
        return count;
      },
    );
  }

  readdir(
    _ctx: CallContext,
    dir: ItemFile<I>,
    cookieLow: number,
    cookieHigh: number,
    into: Uint8Array,
  ): MaybePromise<number> {
    const cookie = cookieLow + cookieHigh * 0x1_0000_0000;
    if (cookie > 0 && dir.entries) return pack(dir.node, dir.entries, cookie, into);
    const listed = this.#call(() => andThen(this.list(dir.node.item), entriesOf));
    return andThen(listed, entries => {
      dir.entries = entries;
      return pack(dir.node, entries, cookie, into);
    });
  }

  isEntry(_ctx: CallContext, dir: ItemNode<I>, name: Name, node: ItemNode<I>): boolean {
    return dir.children.get(name) === node;
  }

  sync(): void {}

  change(): never {
    throw EROFS;
  }
  create(): never {
    throw EROFS;
  }
  make(): never {
    throw EROFS;
  }
  link(): never {
    throw EROFS;
  }
  rename(): never {
    throw EROFS;
  }
  unlink(): never {
    throw EROFS;
  }
  write(): never {
    throw EROFS;
  }

  getXattr(): never {
    throw EOPNOTSUPP;
  }
  listXattr(): Uint8Array {
    return new Uint8Array(0);
  }
  setXattr(): never {
    throw EROFS;
  }
  removeXattr(): never {
    throw EROFS;
  }

  /** Nobody outside the server locks a file of the tree. */
  lock(): boolean {
    return true;
  }
  testLock(): undefined {
    return undefined;
  }
  forgetLocks(): void {}

  /** Called once, when nobody uses the tree any more. */
  close(): void {}
}

function fill<I extends Item>(attr: Attr, node: ItemNode<I>, found: ItemAttributes, made: Date): void {
  const { type } = node.item;
  const { mode = defaultModes[type], uid = 0, gid = 0, mtime = made } = found;
  const size = type === 'directory' ? blockBytes : (found.size ?? 0);
  if (!Number.isSafeInteger(size) || size < 0) throw EINVAL;
  attr.clear();
  attr.setQidPath(node.pathLow, node.pathHigh);
  attr.mode = node.type | (mode & 0o7777);
  attr.uid = uid;
  attr.gid = gid;
  attr.nlink = type === 'directory' ? 2 : 1;
  attr.size = size;
  attr.blksize = blockBytes;
  attr.blockBytes = size;
  const time = timeOf(mtime);
  attr.atime = attr.mtime = attr.ctime = attr.btime = time;
}

function timeOf(date: Date): TimeSpec {
  const ms = date.getTime();
  if (Number.isNaN(ms)) return { sec: 0, nsec: 0 };
  const sec = Math.floor(ms / 1000);
  return { sec, nsec: (ms - sec * 1000) * 1_000_000 };
}

/** Entries with names that a file can have. The first of two equal ones. */
function entriesOf<I extends Item>(listed: Iterable<readonly [string, I]>): readonly (readonly [Name, I])[] {
  const entries = new Map<Name, I>();
  for (const [text, item] of listed) {
    const name = nameFrom(text);
    if (name !== undefined && !entries.has(name)) entries.set(name, item);
  }
  return [...entries];
}

function nameFrom(text: string): Name | undefined {
  try {
    return nameOf(bytesOf(text));
  } catch {
    return undefined;
  }
}

function pack<I extends Item>(
  dir: ItemNode<I>,
  entries: readonly (readonly [Name, I])[],
  cookie: number,
  into: Uint8Array,
): number {
  const packer = new DirentPacker(into);
  let fits =
    (cookie >= selfCookie || packer.put('.', dir, selfCookie)) &&
    (cookie >= parentCookie || packer.put('..', dir.parent, parentCookie));
  for (let at = Math.max(cookie - parentCookie, 0); fits && at < entries.length; at++) {
    const [name, item] = entries[at]!;
    const type = types[item.type];
    const [pathLow, pathHigh] = qidPath(dir, name, type);
    fits = packer.put(name, { type, pathLow, pathHigh }, parentCookie + 1 + at);
  }
  return packer.end(fits);
}

/** UTF-8 bytes of a text, as in messages. */
function bytesOf(text: string): Bytes {
  return Buffer.from(text).toString('latin1');
}

/** The text of a name; undefined if it is not UTF-8. */
function textOf(name: Name): string | undefined {
  const text = Buffer.from(name, 'latin1').toString();
  return bytesOf(text) === name ? text : undefined;
}
