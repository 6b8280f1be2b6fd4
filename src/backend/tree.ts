import { ATTR_CTIME_NSEC, ATTR_CTIME_SEC, ATTR_SIZE } from '#base/layout.ts';
/**
 * The backend interface: what a session asks of a tree of files. A backend that is not the host's file system implements
 * this and needs nothing below it. It knows no fid, qid path mapping aside, and no 9P flag.
 *
 * For every method:
 * - It acts as the user of its `CallContext` and throws (or rejects with) an `Errno`. Methods that do not wait, and `lock`, which may
 *   outlive its request, take no context.
 * - It may run beside any other call on the same node, after the object was unlinked or renamed by anyone, and never
 *   resolves a path: a `Node` is the object itself.
 * - What it returns held is released by the receiver, exactly once.
 * - Names are checked (`Name`), so no implementation checks them again, but each refuses its own bookkeeping names.
 * - Memory of a call that may wait is `Owned`. `readNow`, `writeNow` and `readdirNow` get memory that is valid until they return:
 *   they do the whole of it, or nothing and return undefined, and the same is asked again with memory to keep. `writeNow` may
 *   answer later if it has copied what it was given. A tree that always waits leaves them out.
 */

import type { Attr } from '#base/attr.ts';
import type { Errno } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Owned, OwnedSegments, Segments } from '#base/owned.ts';
import type { Credentials, Submitter, Time } from '#host/syscalls.ts';
import type { PinnedFds } from '#quota/pinned-fds.ts';

/** An object that is held and counted: file, directory, symlink, device, FIFO or socket. Fids share it. */
export interface Node {
  /** S_IFMT bits as the client sees them; an object's type never changes. */
  readonly type: number;
  /** qid.path, unique over the export and stable over restarts; two 32-bit halves. */
  readonly pathLow: number;
  readonly pathHigh: number;
}

/** A regular file that can be read or written. Closing it lets go of nothing that a running call uses. */
export interface OpenFile {
  readonly node: Node;
  readonly readable: boolean;
  readonly writable: boolean;
}

/** A directory that can be read. It has a position of its own: clones of a fid do not share it. */
export interface OpenDir {
  readonly node: Node;
}

/** How a file is opened. `sync` is O_SYNC, `dsync` O_DSYNC. There is no direct I/O: the client's alignment is not the host's. */
export interface OpenHow {
  /** Every write goes to the end, wherever that is by then, and its position is not looked at. */
  readonly append?: boolean;
  readonly read: boolean;
  readonly write: boolean;
  readonly truncate: boolean;
  readonly sync: 'none' | 'dsync' | 'sync';
}

/** What `make` makes. The permission bits are applied exactly; no umask. */
export type NewNode =
  | { readonly type: 'directory'; readonly mode: number; readonly gid: number }
  | { readonly type: 'symlink'; readonly target: Bytes; readonly gid: number }
  /** A device, FIFO, socket or empty regular file: mode carries S_IFMT, rdev is new_encode_dev. */
  | { readonly type: 'special'; readonly mode: number; readonly rdev: number; readonly gid: number };

/** What `change` changes; absent members stay. Applied in this order: owner, mode, size, times. */
export interface Change {
  readonly uid?: number;
  readonly gid?: number;
  /** Permission bits, 07777. */
  readonly mode?: number;
  readonly size?: number;
  readonly atime?: Time;
  readonly mtime?: Time;
}

/**
 * A stamp of an object's state (hash of ctime and size, 32 bits): it moves with every change by anyone. A session makes
 * qid.version of it so that the session's own changes do not show.
 */
export type ChangeStamp = number;

/**
 * Called around a change so that a session can tell its own changes from others'. See session/versions.ts. `asked` is when the
 * object was asked for the stamp, by `changeClock`: answers to several changes may come out of order. A tree that answers
 * at once leaves it out.
 */
export interface ChangeObserver {
  /** Before the change, with the stamp as it is. */
  before(node: Node, stamp: ChangeStamp, asked?: number): void;
  /** After the change, whether it succeeded or not. The clock has moved on between the change and the question. */
  after(node: Node, stamp: ChangeStamp, asked?: number): void;
}

/** The session of a call. It outlives its requests, so a tree uses it for work that goes on after the call. */
export interface SessionContext extends Submitter {
  readonly observer: ChangeObserver;
  /** Counts the descriptors that the session keeps open. */
  readonly pins: PinnedFds;
}

/** The request of a call. Valid until the call has settled: then another request may use the object. */
export interface CallContext extends Submitter {
  readonly session: SessionContext;
  /** The user of the attach. */
  readonly creds: Credentials;
  /**
   * Calls `act`, which must not throw, once for all requests that were received together, before the first of their replies is
   * sent. False if this request was received alone: `act` is then not called.
   */
  defer(act: () => void): boolean;
}

/** Who owns a byte-range lock: (session, client_id, proc_id), one object per owner, compared by identity. */
export type LockKey = object;

export interface LockRange {
  /** 0 read, 1 write, 2 unlock. */
  readonly type: 0 | 1 | 2;
  readonly start: number;
  /** 0 means to the end of the file, however large. */
  readonly length: number;
}

export interface LockConflict extends LockRange {
  /** The holder's process number, or −1 where the host does not tell (open-file-description locks). */
  readonly pid: number;
}

export interface Tree {
  /** The root, held by the tree itself for as long as it is open. */
  readonly root: Node;
  /** The credentials of a client's user; `uid` is n_uname, or NONUNAME (0xffffffff) when none was given. */
  credentials(submitter: Submitter, uid: number): MaybePromise<Credentials>;

  hold(node: Node): void;
  /** The last release lets go of the object. */
  release(node: Node): void;

  /**
   * One step: returns the child held, or the Errno by value, since an absent name is the commonest answer of all (every
   * PATH search is one) and must cost nearly nothing. Symlinks are never followed; ENOTDIR when `dir` is no directory.
   * `attr`, when given, receives the child's attributes as `stat` does.
   */
  walk(ctx: CallContext, dir: Node, name: Name, attr: Attr): MaybePromise<Node | Errno>;
  /** `..` : the directory that holds `dir`, held; the root's parent is the root. */
  parent(ctx: CallContext, dir: Node): MaybePromise<Node>;

  /** Attributes as the client sees them. qid.version is left to the session; `stampOf(attr)` is what it is made of. */
  stat(ctx: CallContext, node: Node, attr: Attr): MaybePromise<void>;
  /** As `stat`, for an open file: works on the very descriptor. */
  statfs(ctx: CallContext, node: Node, into: Owned<Buffer>): MaybePromise<void>;
  change(ctx: CallContext, node: Node, change: Change, file?: OpenFile): MaybePromise<void>;
  readlink(ctx: CallContext, node: Node): MaybePromise<Bytes>;

  /**
   * Opens a regular file. ENXIO for devices, FIFOs and sockets, which are never opened on the host; ELOOP for symlinks; EMFILE
   * when the session may have nothing more open. What is open stays what it is whatever becomes of its names.
   */
  open(ctx: CallContext, node: Node, how: OpenHow): MaybePromise<OpenFile>;
  openDir(ctx: CallContext, node: Node): MaybePromise<OpenDir>;
  /**
   * Creates and opens a file, or opens the existing one unless `exclusive` (EEXIST). The node comes back held. The
   * permission to open does not depend on the mode asked for, as with open(2). `attr` receives what a qid is made of, type
   * and stamp; owner and permissions are for `stat` to tell.
   */
  create(
    ctx: CallContext,
    dir: Node,
    name: Name,
    how: OpenHow & { readonly exclusive: boolean; readonly mode: number; readonly gid: number },
    attr: Attr,
  ): MaybePromise<{ readonly node: Node; readonly file: OpenFile }>;
  /** Makes anything else. The node comes back held; `attr` as of `create`. */
  make(ctx: CallContext, dir: Node, name: Name, what: NewNode, attr: Attr): MaybePromise<Node>;
  link(ctx: CallContext, node: Node, dir: Node, name: Name): MaybePromise<void>;
  rename(ctx: CallContext, fromDir: Node, from: Name, toDir: Node, to: Name): MaybePromise<void>;
  unlink(ctx: CallContext, dir: Node, name: Name, kind: 'file' | 'directory'): MaybePromise<void>;
  /**
   * Whether `name` in `dir` is this very object now: for Tremove and Trename, which name an object by its fid.
   */
  isEntry(ctx: CallContext, dir: Node, name: Name, node: Node): MaybePromise<boolean>;

  /** Reads at most what `into` holds; 0 at the end. */
  read(ctx: CallContext, file: OpenFile, into: OwnedSegments, offset: number): MaybePromise<number>;
  readNow?(file: OpenFile, into: Segments, offset: number): number | undefined;
  /** Writes and returns how much: all of it, or less than all but more than 0 when the disk filled up midway. */
  write(ctx: CallContext, file: OpenFile, from: OwnedSegments, offset: number): MaybePromise<number>;
  writeNow?(
    ctx: CallContext,
    file: OpenFile,
    from: Segments,
    offset: number,
  ): MaybePromise<number> | undefined;
  /** To stable storage; works on files opened for reading, and on directories. */
  sync(ctx: CallContext, file: OpenFile | OpenDir, dataOnly: boolean): MaybePromise<void>;
  closeFile(file: OpenFile): void;
  /**
   * Packs whole 9P entries from the cookie on (0 starts anew and sees the directory as it is now). Returns the bytes; 0 at
   * the end; EINVAL when the next entry does not fit. Calls on one OpenDir are made one after another by the session.
   */
  readdir(
    ctx: CallContext,
    dir: OpenDir,
    cookieLow: number,
    cookieHigh: number,
    into: Owned,
  ): MaybePromise<number>;
  readdirNow?(dir: OpenDir, cookieLow: number, cookieHigh: number, into: Uint8Array): number | undefined;
  closeDir(dir: OpenDir): void;

  /** The value, at most 64 KiB. ENODATA when absent, EOPNOTSUPP where the model or file system has none. */
  getXattr(ctx: CallContext, node: Node, name: Bytes): MaybePromise<Uint8Array>;
  /** NUL-terminated names. */
  listXattr(ctx: CallContext, node: Node): MaybePromise<Uint8Array>;
  /** flags: XATTR_CREATE 1, XATTR_REPLACE 2. An empty value is a value. */
  setXattr(ctx: CallContext, node: Node, name: Bytes, value: Owned, flags: number): MaybePromise<void>;
  removeXattr(ctx: CallContext, node: Node, name: Bytes): MaybePromise<void>;

  /**
   * Takes, changes or gives up a lock for `owner` against everybody outside this tree (host programs, other servers).
   * Never waits: false when somebody's lock is in the way. Conflicts between owners of this tree are the session's
   * business (session/locks/lock-client.ts), which also unlocks everything of an owner before it forgets it.
   */
  lock(owner: LockKey, file: OpenFile, range: LockRange): MaybePromise<boolean>;
  /** The outside lock that would be in the way, or undefined. */
  testLock(
    ctx: CallContext,
    owner: LockKey,
    file: OpenFile,
    range: LockRange,
  ): MaybePromise<LockConflict | undefined>;
  /** Lets go of what `owner` needed to hold locks on this node. */
  forgetLocks(owner: LockKey, node: Node): void;

  /** Lets go of everything. No call may follow. */
  close(): void;
}

/** Hash of ctime and size. Never 0, so that it can serve as qid.version as it is: 0 turns the client's caching off. */
export function stampOf(attr: Attr): ChangeStamp {
  const { view } = attr;
  let h = Math.imul(view.getUint32(ATTR_CTIME_SEC, true) ^ 0x9e3779b9, 0x85ebca6b);
  h = Math.imul((h ^ (h >>> 15)) + view.getUint32(ATTR_CTIME_NSEC, true), 0xc2b2ae35);
  h = Math.imul((h ^ (h >>> 13)) + view.getUint32(ATTR_SIZE, true), 0x27d4eb2f);
  h = Math.imul((h ^ (h >>> 16)) + view.getUint32(ATTR_SIZE + 4, true), 0x165667b1);
  h = (h ^ (h >>> 15)) >>> 0;
  return h === 0 ? 1 : h;
}
