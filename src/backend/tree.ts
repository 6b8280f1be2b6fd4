/**
 * The backend interface: the operations of a tree of files that sessions use. It has no fids and no 9P flags. A backend other
 * than the host's file system implements it and needs nothing else.
 *
 * Of every method:
 * - It acts as the user of its `CallContext`, and throws or rejects with an `Errno`. Methods that never wait take no context;
 *   neither does `lock`, which the session also calls after the request.
 * - It may run concurrently with others on the same node, also after the object was unlinked or renamed by anyone. It resolves
 *   no path: a `Node` is the object itself.
 * - References that it returns are released by the caller, once each.
 * - Names are checked (`Name`); a tree refuses only names that it reserves.
 * - A call that may wait takes `Owned` memory. `readNow`, `writeNow` and `readdirNow` take memory that is valid until they
 *   return: they do all, or nothing and return undefined, and the session then calls `read`, `write` or `readdir`. `writeNow`
 *   may return a promise if it has copied the data. A tree that always waits leaves them out.
 */

import type { Attr } from '#base/attr.ts';
import type { Errno } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Owned, OwnedSegments, Segments } from '#base/owned.ts';
import type { Credentials, Submitter, Time } from '#host/syscalls.ts';
import type { PinnedFds } from '#quota/pinned-fds.ts';

/** A file, directory, symlink, device, FIFO or socket. Fids share it; references are counted (`hold`, `release`). */
export interface Node {
  /** S_IFMT bits as the client sees them. Never changes. */
  readonly type: number;
  /** qid.path in two 32-bit halves: unique in the export and stable over restarts. */
  readonly pathLow: number;
  readonly pathHigh: number;
}

/** An open regular file. `closeFile` does not disturb running calls. */
export interface OpenFile {
  readonly node: Node;
  readonly readable: boolean;
  readonly writable: boolean;
}

/** An open directory, with a position of its own. */
export interface OpenDir {
  readonly node: Node;
}

/** How a file is opened. `sync` is O_SYNC, `dsync` O_DSYNC. Never O_DIRECT: the client's alignment is not the host's. */
export interface OpenHow {
  /** Every write appends and ignores its offset. */
  readonly append?: boolean;
  readonly read: boolean;
  readonly write: boolean;
  readonly truncate: boolean;
  readonly sync: 'none' | 'dsync' | 'sync';
}

/** What `make` creates. Permission bits are applied without a umask. */
export type NewNode =
  | { readonly type: 'directory'; readonly mode: number; readonly gid: number }
  | { readonly type: 'symlink'; readonly target: Bytes; readonly gid: number }
  /** A device, FIFO, socket or empty regular file: mode carries S_IFMT, rdev is new_encode_dev. */
  | { readonly type: 'special'; readonly mode: number; readonly rdev: number; readonly gid: number };

/** What `change` changes, in this order: owner, mode, size, times. Absent members stay. */
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
 * A 32-bit hash of an object's ctime and size, which changes with every change by anyone. `session/versions.ts` makes
 * qid.version of it.
 */
export type ChangeStamp = number;

/**
 * Called before and after a change, so that a session can tell its own changes from others' (session/versions.ts). `asked` is
 * the time by `changeClock` when the stamp was asked for, since results may arrive in another order. A tree that never waits
 * leaves it out.
 */
export interface ChangeObserver {
  /** With the stamp before the change. */
  before(node: Node, stamp: ChangeStamp, asked?: number): void;
  /** With the stamp after the change, or its failure. `changeClock` is ticked between the change and `asked`. */
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
   * Within a batch of requests, calls `act` before any of their replies is sent. `act` must not throw. Otherwise returns false,
   * and does not call it.
   */
  defer(act: () => void): boolean;
}

/** Owner of a lock: one object for each session, client_id and proc_id, compared by identity. */
export type LockKey = object;

export interface LockRange {
  /** 0 read, 1 write, 2 unlock. */
  readonly type: 0 | 1 | 2;
  readonly start: number;
  /** 0 means to the end of the file, however large. */
  readonly length: number;
}

export interface LockConflict extends LockRange {
  /** Process of the holder; −1 for open-file-description locks. */
  readonly pid: number;
}

export interface Tree {
  /** The root. The tree keeps a reference. */
  readonly root: Node;
  /** The credentials of a client's user. `uid` is n_uname of Tattach; NONUNAME (0xffffffff) if none was given. */
  credentials(submitter: Submitter, uid: number): MaybePromise<Credentials>;

  hold(node: Node): void;
  /** The last release frees the node. */
  release(node: Node): void;

  /**
   * Looks up an entry. Returns a reference, or the Errno, not thrown: an absent name is frequent (searches along PATH) and must
   * be cheap. Never follows symlinks. ENOTDIR if `dir` is not a directory. `attr` gets the attributes as of `stat`.
   */
  walk(ctx: CallContext, dir: Node, name: Name, attr: Attr): MaybePromise<Node | Errno>;
  /** A reference to the parent directory; the root's parent is the root. */
  parent(ctx: CallContext, dir: Node): MaybePromise<Node>;

  /** Attributes as the client sees them, without qid.version. */
  stat(ctx: CallContext, node: Node, attr: Attr): MaybePromise<void>;
  /** Fills `into` with the 60 bytes of Rstatfs (64 are given). */
  statfs(ctx: CallContext, node: Node, into: Owned<Buffer>): MaybePromise<void>;
  /** `file`: an open file of the node, through which its size may be changed whatever its mode. */
  change(ctx: CallContext, node: Node, change: Change, file?: OpenFile): MaybePromise<void>;
  readlink(ctx: CallContext, node: Node): MaybePromise<Bytes>;

  /**
   * Opens a regular file. ENXIO for devices, FIFOs and sockets, which are never opened on the host; ELOOP for symlinks; EMFILE
   * if the session has its share of descriptors.
   */
  open(ctx: CallContext, node: Node, how: OpenHow): MaybePromise<OpenFile>;
  openDir(ctx: CallContext, node: Node): MaybePromise<OpenDir>;
  /**
   * Creates and opens a file, or opens an existing one unless `exclusive` (EEXIST). Returns a reference to the node. As with
   * open(2), a new file is opened whatever its mode. `attr` gets type, qid.path, ctime and size only.
   */
  create(
    ctx: CallContext,
    dir: Node,
    name: Name,
    how: OpenHow & { readonly exclusive: boolean; readonly mode: number; readonly gid: number },
    attr: Attr,
  ): MaybePromise<{ readonly node: Node; readonly file: OpenFile }>;
  /** Creates an object that is not opened. EEXIST if the name exists. Returns a reference; `attr` as of `create`. */
  make(ctx: CallContext, dir: Node, name: Name, what: NewNode, attr: Attr): MaybePromise<Node>;
  link(ctx: CallContext, node: Node, dir: Node, name: Name): MaybePromise<void>;
  rename(ctx: CallContext, fromDir: Node, from: Name, toDir: Node, to: Name): MaybePromise<void>;
  unlink(ctx: CallContext, dir: Node, name: Name, kind: 'file' | 'directory'): MaybePromise<void>;
  /** Whether `name` in `dir` is this object now: for Tremove and Trename, which name an object by its fid. */
  isEntry(ctx: CallContext, dir: Node, name: Name, node: Node): MaybePromise<boolean>;

  /** Returns the bytes read; 0 at the end of the file. */
  read(ctx: CallContext, file: OpenFile, into: OwnedSegments, offset: number): MaybePromise<number>;
  readNow?(file: OpenFile, into: Segments, offset: number): number | undefined;
  /** Returns the bytes written: all, or fewer but more than 0 if the disk filled up midway. */
  write(ctx: CallContext, file: OpenFile, from: OwnedSegments, offset: number): MaybePromise<number>;
  writeNow?(
    ctx: CallContext,
    file: OpenFile,
    from: Segments,
    offset: number,
  ): MaybePromise<number> | undefined;
  /** fsync(2), also of files opened for reading and of directories. */
  sync(ctx: CallContext, file: OpenFile | OpenDir, dataOnly: boolean): MaybePromise<void>;
  closeFile(file: OpenFile): void;
  /**
   * Packs whole 9P entries from the cookie on; cookie 0 starts a new listing. Returns the bytes; 0 at the end; EINVAL if the
   * next entry does not fit. The session makes calls on one OpenDir one after another.
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

  /** The value, at most 64 KiB. ENODATA if absent, EOPNOTSUPP if model or file system do not support it. */
  getXattr(ctx: CallContext, node: Node, name: Bytes): MaybePromise<Uint8Array>;
  /** NUL-terminated names. */
  listXattr(ctx: CallContext, node: Node): MaybePromise<Uint8Array>;
  /** flags: XATTR_CREATE 1, XATTR_REPLACE 2. An empty value is a value. */
  setXattr(ctx: CallContext, node: Node, name: Bytes, value: Owned, flags: number): MaybePromise<void>;
  removeXattr(ctx: CallContext, node: Node, name: Bytes): MaybePromise<void>;

  /**
   * Sets or releases a lock of `owner` against everybody outside this tree (host programs, other servers). Does not wait for
   * locks: false on a conflict. Conflicts between owners of this tree are resolved by the session
   * (session/locks/file-lock-table.ts), which releases all locks of an owner before `forgetLocks`.
   */
  lock(owner: LockKey, file: OpenFile, range: LockRange): MaybePromise<boolean>;
  /** A conflicting lock outside this tree, or undefined. */
  testLock(
    ctx: CallContext,
    owner: LockKey,
    file: OpenFile,
    range: LockRange,
  ): MaybePromise<LockConflict | undefined>;
  /** Frees what `owner` needed for locks on this node. */
  forgetLocks(owner: LockKey, node: Node): void;

  /** Frees everything. No call may follow. */
  close(): void;
}
