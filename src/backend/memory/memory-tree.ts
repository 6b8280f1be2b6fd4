import { Attr, S_IFDIR, S_IFLNK, S_IFREG, stampOf } from '#base/attr.ts';
import {
  EBADF,
  EEXIST,
  EINVAL,
  EISDIR,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EOPNOTSUPP,
  EPERM,
  type Errno,
} from '#base/errno.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Segments } from '#base/owned.ts';
import { type Credentials, credsWithoutGroups, type Submitter } from '#host/syscalls.ts';
import { writeStatfs } from '../kit/statfs.ts';
import type { CallContext, Change, NewNode, OpenHow, Tree } from '../tree.ts';
import { Clock, nearest } from './clock.ts';
import { type InitialState, MemoryNode, nodeBytes } from './memory-node.ts';
import { MemoryOpen } from './memory-open.ts';
import { MemoryQuota } from './memory-quota.ts';
import { pageBytes } from './pages.ts';
import { entriesOf, entriesToAddTo, initialStateOf, isWithin, pagesOf, refuseToReplace } from './rules.ts';
import { refuseXattr } from './xattrs.ts';

export interface MemoryTreeOptions {
  /** Bytes that the tree may use in all; ENOSPC beyond. */
  readonly bytesMax: number;
}

/**
 * A tree in memory, with the semantics and errnos of a local file system. Permissions are not checked: the guest's kernel does
 * that. There are no locks outside the server.
 */
export class MemoryTree implements Tree {
  readonly root: MemoryNode;
  readonly #quota: MemoryQuota;
  readonly #clock = new Clock();
  readonly #scratch = new Attr();
  #lastIno = 0;

  constructor({ bytesMax }: MemoryTreeOptions) {
    this.#quota = new MemoryQuota(bytesMax);
    this.root = this.#newNode({ mode: S_IFDIR | 0o755, uid: 0, gid: 0 });
    this.root.parent = this.root;
    this.root.refs = 1;
  }

  #newNode(initial: InitialState): MemoryNode {
    return new MemoryNode(++this.#lastIno, initial, this.#clock.now(), this.#quota);
  }

  credentials(_submitter: Submitter, uid: number): Credentials {
    return credsWithoutGroups(uid);
  }

  hold(node: MemoryNode): void {
    node.refs++;
  }

  release(node: MemoryNode): void {
    node.refs--;
    node.freeIfUnreachable();
  }

  walk(_ctx: CallContext, dir: MemoryNode, name: Name, attr: Attr): MemoryNode | Errno {
    if (!dir.entries) return ENOTDIR;
    const child = dir.entries.get(name);
    if (!child) return ENOENT;
    this.hold(child);
    child.describe(attr);
    return child;
  }

  parent(_ctx: CallContext, dir: MemoryNode): MemoryNode {
    if (!dir.parent) throw ENOTDIR;
    this.hold(dir.parent);
    return dir.parent;
  }

  stat(_ctx: CallContext, node: MemoryNode, attr: Attr): void {
    node.describe(attr);
  }

  statfs(_ctx: CallContext, _node: MemoryNode, into: Buffer): void {
    const { bytesMax, free } = this.#quota;
    writeStatfs(into, {
      blockBytes: pageBytes,
      blocks: Math.floor(bytesMax / pageBytes),
      blocksFree: Math.floor(free / pageBytes),
      files: Math.floor(bytesMax / nodeBytes),
      filesFree: Math.floor(free / nodeBytes),
    });
  }

  /** Runs a change of `nodes`, and reports the stamps before and after it of those that are referenced. */
  #around<T>(ctx: CallContext, nodes: readonly (MemoryNode | undefined)[], act: () => T): T {
    const held = [...new Set(nodes)].filter(node => node !== undefined && node.refs > 0) as MemoryNode[];
    const report = (when: 'before' | 'after') => {
      for (const node of held) {
        node.describe(this.#scratch);
        ctx.session.observer[when](node, stampOf(this.#scratch));
      }
    };
    // A node that loses its last name is still reported.
    for (const node of held) this.hold(node);
    report('before');
    try {
      return act();
    } finally {
      report('after');
      for (const node of held) this.release(node);
    }
  }

  change(ctx: CallContext, node: MemoryNode, change: Change): void {
    this.#around(ctx, [node], () => {
      const { uid, gid, mode, size, atime, mtime } = change;
      if (uid !== undefined || gid !== undefined) {
        // chown(2) clears set-id bits, for root too.
        node.dropPrivileges(true);
        node.uid = uid ?? node.uid;
        node.gid = gid ?? node.gid;
        node.ctime = this.#clock.now();
      }
      if (mode !== undefined) {
        // chmod(2): a symlink has no mode.
        if (node.type === S_IFLNK) throw EOPNOTSUPP;
        node.mode = mode & 0o7777;
        node.ctime = this.#clock.now();
      }
      if (size !== undefined) this.#resize(ctx.creds, node, size);
      this.#setTimes(node, atime, mtime);
    });
  }

  #setTimes(node: MemoryNode, atime: Change['atime'] = 'omit', mtime: Change['mtime'] = 'omit'): void {
    if (atime === 'omit' && mtime === 'omit') return;
    const now = this.#clock.now();
    if (atime !== 'omit') node.atime = atime === 'now' ? now : nearest(atime);
    if (mtime !== 'omit') node.mtime = mtime === 'now' ? now : nearest(mtime);
    node.ctime = now;
  }

  #resize(creds: Credentials, node: MemoryNode, size: number): void {
    if (node.type === S_IFDIR) throw EISDIR;
    if (!node.pages) throw EINVAL;
    node.pages.resize(size);
    node.dropPrivileges(creds.uid !== 0);
    node.modified(this.#clock.now());
  }

  readlink(_ctx: CallContext, node: MemoryNode): Bytes {
    if (node.type !== S_IFLNK) throw EINVAL;
    return node.target;
  }

  open(ctx: CallContext, node: MemoryNode, how: OpenHow): MemoryOpen {
    pagesOf(node);
    if (how.truncate) this.#around(ctx, [node], () => this.#resize(ctx.creds, node, 0));
    return this.#opened(node, how.read, how.write, how.append);
  }

  openDir(_ctx: CallContext, node: MemoryNode): MemoryOpen {
    entriesOf(node);
    return this.#opened(node, true, false);
  }

  /** An open file holds its node. */
  #opened(node: MemoryNode, readable: boolean, writable: boolean, append = false): MemoryOpen {
    this.hold(node);
    return new MemoryOpen(node, readable, writable, append);
  }

  create(
    ctx: CallContext,
    dir: MemoryNode,
    name: Name,
    how: OpenHow & { readonly exclusive: boolean; readonly mode: number; readonly gid: number },
    attr: Attr,
  ): { readonly node: MemoryNode; readonly file: MemoryOpen } {
    const found = entriesOf(dir).get(name);
    if (found && how.exclusive) throw EEXIST;
    const initial = { mode: S_IFREG | (how.mode & 0o7777), uid: ctx.creds.uid, gid: how.gid };
    const node = found ?? this.#around(ctx, [dir], () => this.#enter(dir, name, initial));
    const file = found ? this.open(ctx, node, how) : this.#opened(node, how.read, how.write, how.append);
    this.hold(node);
    node.describe(attr);
    return { node, file };
  }

  make(ctx: CallContext, dir: MemoryNode, name: Name, what: NewNode, attr: Attr): MemoryNode {
    const node = this.#around(ctx, [dir], () => this.#enter(dir, name, initialStateOf(what, ctx.creds)));
    this.hold(node);
    node.describe(attr);
    return node;
  }

  #enter(dir: MemoryNode, name: Name, initial: InitialState): MemoryNode {
    const entries = entriesToAddTo(dir, name);
    const node = this.#newNode(initial);
    try {
      entries.add(name, node);
    } catch (error) {
      node.nlink = 0;
      node.freeIfUnreachable();
      throw error;
    }
    if (node.entries) {
      node.parent = dir;
      dir.nlink++;
    }
    dir.modified(this.#clock.now());
    return node;
  }

  link(ctx: CallContext, node: MemoryNode, dir: MemoryNode, name: Name): void {
    const entries = entriesToAddTo(dir, name);
    if (node.type === S_IFDIR) throw EPERM;
    if (node.nlink === 0) throw ENOENT;
    this.#around(ctx, [node, dir], () => {
      entries.add(name, node);
      node.nlink++;
      node.ctime = this.#clock.now();
      dir.modified(this.#clock.now());
    });
  }

  rename(ctx: CallContext, fromDir: MemoryNode, from: Name, toDir: MemoryNode, to: Name): void {
    const source = entriesOf(fromDir);
    const target = entriesOf(toDir);
    const moved = source.get(from);
    if (!moved) throw ENOENT;
    // The order of do_renameat2 of fs/namei.c: nothing is looked up in a removed directory.
    if (toDir.nlink === 0) throw ENOENT;
    const victim = target.get(to);
    if (isWithin(toDir, moved)) throw EINVAL;
    if (victim && isWithin(fromDir, victim)) throw ENOTEMPTY;
    if (victim === moved) return;
    if (victim) refuseToReplace(moved, victim);
    this.#around(ctx, [fromDir, toDir, moved, victim], () => {
      if (victim) target.replace(to, moved);
      else target.add(to, moved);
      source.remove(from);
      if (moved.entries) {
        moved.parent = toDir;
        fromDir.nlink--;
        toDir.nlink++;
      }
      if (victim) this.#loseName(toDir, victim);
      moved.ctime = this.#clock.now();
      fromDir.modified(this.#clock.now());
      toDir.modified(this.#clock.now());
    });
  }

  unlink(ctx: CallContext, dir: MemoryNode, name: Name, kind: 'file' | 'directory'): void {
    const entries = entriesOf(dir);
    const victim = entries.get(name);
    if (!victim) throw ENOENT;
    if (kind === 'file' && victim.entries) throw EISDIR;
    if (kind === 'directory' && !victim.entries) throw ENOTDIR;
    if (victim.entries && victim.entries.count > 0) throw ENOTEMPTY;
    this.#around(ctx, [dir, victim], () => {
      entries.remove(name);
      this.#loseName(dir, victim);
      dir.modified(this.#clock.now());
    });
  }

  #loseName(dir: MemoryNode, victim: MemoryNode): void {
    victim.ctime = this.#clock.now();
    if (victim.entries) {
      victim.nlink = 0;
      dir.nlink--;
    } else {
      victim.nlink--;
    }
    victim.freeIfUnreachable();
  }

  isEntry(_ctx: CallContext, dir: MemoryNode, name: Name, node: MemoryNode): boolean {
    return dir.entries?.get(name) === node;
  }

  // No call waits.
  readNow(file: MemoryOpen, into: Segments, offset: number): number {
    return this.#read(file, into, offset);
  }

  writeNow(ctx: CallContext, file: MemoryOpen, from: Segments, offset: number): number {
    return this.write(ctx, file, from, offset);
  }

  readdirNow(dir: MemoryOpen, cookieLow: number, cookieHigh: number, into: Uint8Array): number {
    return this.#pack(dir, cookieLow, cookieHigh, into);
  }

  read(_ctx: CallContext, file: MemoryOpen, into: Segments, offset: number): number {
    return this.#read(file, into, offset);
  }

  #read(file: MemoryOpen, into: Segments, offset: number): number {
    if (!file.readable) throw EBADF;
    return pagesOf(file.node).read(into, offset);
  }

  write(ctx: CallContext, file: MemoryOpen, from: Segments, offset: number): number {
    if (!file.writable) throw EBADF;
    const { node } = file;
    return this.#around(ctx, [node], () => {
      const written = pagesOf(node).write(from, file.append ? pagesOf(node).size : offset);
      if (written === 0) return 0;
      node.dropPrivileges(ctx.creds.uid !== 0);
      node.modified(this.#clock.now());
      return written;
    });
  }

  sync(): void {}

  closeFile(file: MemoryOpen): void {
    if (file.closed) return;
    file.closed = true;
    this.release(file.node);
  }

  readdir(
    _ctx: CallContext,
    dir: MemoryOpen,
    cookieLow: number,
    cookieHigh: number,
    into: Uint8Array,
  ): number {
    return this.#pack(dir, cookieLow, cookieHigh, into);
  }

  #pack(dir: MemoryOpen, cookieLow: number, cookieHigh: number, into: Uint8Array): number {
    const { node } = dir;
    // getdents(2) of a removed directory returns nothing, not even `.`.
    if (node.nlink === 0) return 0;
    return entriesOf(node).pack(node, node.parent!, cookieLow + cookieHigh * 0x1_0000_0000, into);
  }

  closeDir(dir: MemoryOpen): void {
    this.closeFile(dir);
  }

  getXattr(ctx: CallContext, node: MemoryNode, name: Bytes): Uint8Array {
    refuseXattr(name, ctx.creds, 'get', node.type);
    return node.xattrs.get(name);
  }

  listXattr(ctx: CallContext, node: MemoryNode): Uint8Array {
    return node.xattrs.list(ctx.creds);
  }

  setXattr(ctx: CallContext, node: MemoryNode, name: Bytes, value: Uint8Array, flags: number): void {
    refuseXattr(name, ctx.creds, 'set', node.type);
    this.#around(ctx, [node], () => {
      node.xattrs.set(name, value, flags);
      node.ctime = this.#clock.now();
    });
  }

  removeXattr(ctx: CallContext, node: MemoryNode, name: Bytes): void {
    refuseXattr(name, ctx.creds, 'set', node.type);
    this.#around(ctx, [node], () => {
      node.xattrs.remove(name);
      node.ctime = this.#clock.now();
    });
  }

  lock(): boolean {
    return true;
  }

  testLock(): undefined {
    return undefined;
  }

  forgetLocks(): void {}

  close(): void {
    this.release(this.root);
  }
}
