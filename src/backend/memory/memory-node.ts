import { type Attr, S_IFDIR, S_IFREG, S_ISGID, S_ISUID } from '#base/attr.ts';
import type { Bytes } from '#base/name.ts';
import type { Node } from '../tree.ts';
import type { Moment } from './clock.ts';
import { Entries } from './entries.ts';
import type { MemoryQuota } from './memory-quota.ts';
import { Pages, pageBytes } from './pages.ts';
import { Xattrs } from './xattrs.ts';

/** Bytes counted for an object besides its content, names and xattrs. */
export const nodeBytes = 512;

/** S_IXGRP: without it S_ISGID means mandatory locking, which a write does not clear. */
const groupExec = 0o010;
const capability = 'security.capability';

/** The state of a new object. */
export interface InitialState {
  /** S_IFMT and 07777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** new_encode_dev; devices only. */
  readonly rdev?: number;
  /** Symlinks only. */
  readonly target?: Bytes;
}

/** An object in memory. Freed when it has no name and no reference. */
export class MemoryNode implements Node {
  readonly type: number;
  readonly ino: number;
  /** Permission bits, 07777. */
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  readonly rdev: number;
  readonly target: Bytes;
  atime: Moment;
  mtime: Moment;
  ctime: Moment;
  readonly btime: Moment;
  refs = 0;
  /** Regular files only. */
  readonly pages: Pages | undefined;
  /** Directories only. */
  readonly entries: Entries<MemoryNode> | undefined;
  readonly xattrs: Xattrs;
  /** Directories only. The root is its own parent. */
  parent: MemoryNode | undefined;
  readonly #quota: MemoryQuota;
  #freed = false;

  /** ENOSPC if the quota is full. */
  constructor(ino: number, initial: InitialState, now: Moment, quota: MemoryQuota) {
    quota.take(nodeBytes);
    this.#quota = quota;
    this.ino = ino;
    this.type = initial.mode & 0o170000;
    this.mode = initial.mode & 0o7777;
    this.uid = initial.uid;
    this.gid = initial.gid;
    this.rdev = initial.rdev ?? 0;
    this.target = initial.target ?? '';
    this.nlink = this.type === S_IFDIR ? 2 : 1;
    this.atime = this.mtime = this.ctime = this.btime = now;
    this.pages = this.type === S_IFREG ? new Pages(quota) : undefined;
    this.entries = this.type === S_IFDIR ? new Entries(quota) : undefined;
    this.xattrs = new Xattrs(quota);
  }

  get pathLow(): number {
    return this.ino % 0x1_0000_0000;
  }

  get pathHigh(): number {
    return Math.floor(this.ino / 0x1_0000_0000);
  }

  /** Fills `attr`, except for qid.version. */
  describe(attr: Attr): void {
    attr.clear();
    attr.setQidPath(this.pathLow, this.pathHigh);
    attr.mode = this.type | this.mode;
    attr.uid = this.uid;
    attr.gid = this.gid;
    attr.nlink = this.nlink;
    attr.rdev = this.rdev;
    attr.size = this.pages?.size ?? (this.entries ? pageBytes : this.target.length);
    attr.blksize = pageBytes;
    attr.blockBytes = this.pages?.allocated ?? 0;
    attr.atime = this.atime;
    attr.mtime = this.mtime;
    attr.ctime = this.ctime;
    attr.btime = this.btime;
    // gen stays 0: inode numbers are not reused.
    attr.ino = this.ino;
  }

  /** Content or entries changed. */
  modified(now: Moment): void {
    this.mtime = this.ctime = now;
  }

  /** Before data changes: clears file capabilities and, with `setIds`, set-id bits (file_remove_privs). */
  dropPrivileges(setIds: boolean): void {
    if (this.type === S_IFDIR) return;
    if (this.xattrs.has(capability)) this.xattrs.remove(capability);
    if (setIds) this.mode &= ~(S_ISUID | (this.mode & groupExec ? S_ISGID : 0));
  }

  /** Returns the object's bytes to the quota if it has neither name nor reference. */
  freeIfUnreachable(): void {
    if (this.refs > 0 || this.nlink > 0 || this.#freed) return;
    this.#freed = true;
    this.pages?.free();
    this.xattrs.free();
    this.#quota.give(nodeBytes);
  }
}
