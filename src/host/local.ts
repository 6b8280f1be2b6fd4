import { type Attr, changeClock } from '#base/attr.ts';
import { EAGAIN, EINVAL } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Name } from '#base/name.ts';
import type { Segments } from '#base/owned.ts';
import {
  AT_STATX_DONT_SYNC,
  CLOSE_REMOVED,
  O_ACCMODE,
  O_RDONLY,
  O_TRUNC,
  RESOLVE_CACHED,
  RESOLVE_NO_XDEV,
} from './constants.ts';
import {
  beginCall,
  blockedMs,
  expectCount,
  expectVoid,
  handedOffAt,
  type Late,
  type OnBlocked,
  onThreads,
  type Perform,
  type PerformInline,
  raw,
  run,
  type ThreadGroup,
  unknownFsThreads,
  wide,
} from './control-block.ts';
import { inline, Linux, only, op } from './linux.ts';
import {
  type Credentials,
  type HostLock,
  type InlineSyscalls,
  noSession,
  type Submitter,
  type Syscalls,
  serverCreds,
} from './syscalls.ts';

/** The same on the threads of a place. */
export function pooledOn(place: ThreadGroup, submitter: Submitter): Syscalls {
  return new Linux(onThreads(place, submitter));
}

/** For file systems of which nothing is known yet. */
export function unknownFs(submitter: Submitter): Syscalls {
  return pooledOn(unknownFsThreads, submitter);
}

/**
 * An object of more bytes than this, by its size or its blocks, is one whose blocks may take long to free: a guest can make each
 * block an extent, and each takes 2 to 70 µs. XFS keeps blocks beyond the end of a file from this size on, and frees them when
 * the file is closed that was written.
 */
const lightBytesMax = 64 * 1024;

export function isLight(attr: Attr): boolean {
  return attr.size <= lightBytesMax && attr.blockBytes <= lightBytesMax;
}

/** What a file system of this machine tells about its calls. */
export interface Watcher {
  /** A call had to wait for the disk. */
  readonly blocked: OnBlocked;
  /** A call takes longer than the event loop waits for one. */
  readonly late: Late;
  /** An object is being closed whose blocks may be freed. */
  readonly freeing: (closed: Promise<unknown>) => void;
}

/**
 * Calls on a file system of this machine. What reads is done at once, and the watcher is told when it had to wait for the disk
 * after all. What changes an object is made by `change` and `writing`. Below the file system another may be mounted that waits: what
 * leads there is looked up on the pool, and nobody is asked for attributes that the kernel does not have.
 */
class LocalInline extends Linux implements InlineSyscalls {
  protected override readonly perform: PerformInline;
  readonly #place: ThreadGroup;
  readonly #watcher: Watcher;

  constructor(place: ThreadGroup, watcher: Watcher, change?: Perform, writing?: Perform) {
    const perform: PerformInline = (finish, data) =>
      finish(this.#told(data === undefined ? run() : run(data)));
    super(perform, change, writing);
    this.perform = perform;
    this.#place = place;
    this.#watcher = watcher;
  }

  #told(result: number): number {
    const ms = blockedMs();
    if (ms > 0) this.#watcher.blocked(ms);
    return result;
  }

  override lookup(creds: Credentials, dirfd: number, name: Name): MaybePromise<number> {
    beginCall(op.lookup, creds, dirfd, RESOLVE_NO_XDEV, 0, name);
    return this.#told(run());
  }

  /** Opening for writing may break a lease and copies a file up (overlayfs); opening for reading breaks F_WRLCK leases. */
  override reopen(creds: Credentials, fd: number, flags: number): MaybePromise<number> {
    if ((flags & (O_ACCMODE | O_TRUNC)) === O_RDONLY) {
      beginCall(op.reopen, creds, fd, flags);
      const opened = this.#told(run());
      if (opened !== -EAGAIN.code) return expectCount(opened);
    }
    beginCall(op.reopen, creds, fd, flags, 1);
    return this.change(expectCount);
  }

  override close(fd: number): MaybePromise<void> {
    return closeLocal(fd, this.#place, this.#watcher, this.writing);
  }

  override stat(creds: Credentials, fd: number, attr: Attr): void {
    statInMemory(creds, fd, attr);
  }

  override statAt(creds: Credentials, dirfd: number, name: Name, attr: Attr): MaybePromise<number> {
    beginCall(op.statAt, creds, dirfd, AT_STATX_DONT_SYNC, 0, name);
    return this.perform(raw, attr.bytes);
  }

  override read(creds: Credentials, fd: number, into: Segments, offset: number): number {
    beginCall(op.read, creds, fd);
    wide[0] = offset;
    return expectCount(this.#told(run(only(into))));
  }

  /** Never waits. */
  readCached(creds: Credentials, fd: number, into: Segments, offset: number): number {
    beginCall(op.readCached, creds, fd);
    wide[0] = offset;
    return run(only(into));
  }

  override write(creds: Credentials, fd: number, from: Segments, offset: number): MaybePromise<number> {
    beginCall(op.write, creds, fd);
    wide[0] = offset;
    return this.writing(expectCount, only(from));
  }

  override readdir(
    creds: Credentials,
    fd: number,
    cookieLow: number,
    cookieHigh: number,
    into: Uint8Array,
    hide: string,
    typeXattr: string,
  ): number {
    beginCall(op.readdir, creds, fd, cookieLow, cookieHigh, hide, typeXattr);
    return this.perform(expectCount, into);
  }

  override getxattr(creds: Credentials, fd: number, name: string, into: Uint8Array): number {
    beginCall(op.getxattr, creds, fd, 0, 0, name);
    return this.#told(run(into));
  }

  override setxattr(
    creds: Credentials,
    fd: number,
    name: string,
    value: Uint8Array,
    flags: number,
  ): MaybePromise<void> {
    beginCall(op.setxattr, creds, fd, flags, 0, name);
    return this.change(expectVoid, value);
  }
}

/** What the kernel has in memory of the attributes: all of them, on a file system of this machine. */
export function statInMemory(creds: Credentials, fd: number, attr: Attr): void {
  attr.asked = changeClock.now;
  beginCall(op.stat, creds, fd, AT_STATX_DONT_SYNC);
  expectVoid(run(attr.bytes));
}

/**
 * The last close(2) of an object without a name frees its blocks, O_PATH or not, and that of a file that was open may free or
 * write some (XFS: blocks beyond its end; ext4 and btrfs: what has replaced its content). So at once are closed what has a name and
 * is light, and O_PATH descriptors of what has a name; should somebody take the last one at this very moment, this call frees the blocks, and
 * is measured. What is light and was removed is closed as a change is made (`free`), and the rest on the pool.
 */
function closeLocal(fd: number, place: ThreadGroup, watcher: Watcher, free: Perform): MaybePromise<void> {
  beginCall(op.close, serverCreds, fd, lightBytesMax);
  const left = run();
  if (blockedMs() > 0) watcher.blocked(blockedMs());
  if (left === 0) return;
  beginCall(op.close, serverCreds, fd);
  const closed = (left === CLOSE_REMOVED ? free : onThreads(place, noSession))(expectVoid);
  if (closed instanceof Promise) watcher.freeing(closed);
  return closed;
}

/** All calls at once, for a file system that waits for nothing. */
export function inMemory(place: ThreadGroup, watcher: Watcher): InlineSyscalls {
  return new LocalInline(place, watcher);
}

/** The same while its disk keeps callers waiting: at once is only what is in memory, without a lock on the way. */
class LocalPooled extends Linux {
  readonly #place: ThreadGroup;
  readonly #watcher: Watcher;

  constructor(place: ThreadGroup, watcher: Watcher, submitter: Submitter) {
    super(onThreads(place, submitter, watcher.blocked));
    this.#place = place;
    this.#watcher = watcher;
  }

  override lookup(creds: Credentials, dirfd: number, name: Name): MaybePromise<number> {
    beginCall(op.lookup, creds, dirfd, RESOLVE_NO_XDEV | RESOLVE_CACHED, 0, name);
    const found = run();
    if (found !== -EAGAIN.code && found !== -EINVAL.code) return found;
    beginCall(op.lookup, creds, dirfd, RESOLVE_NO_XDEV, 0, name);
    return this.perform(raw);
  }

  override close(fd: number): MaybePromise<void> {
    return closeLocal(fd, this.#place, this.#watcher, this.perform);
  }

  override stat(creds: Credentials, fd: number, attr: Attr): void {
    statInMemory(creds, fd, attr);
  }

  override statAt(creds: Credentials, dirfd: number, name: Name, attr: Attr): MaybePromise<number> {
    beginCall(op.statAt, creds, dirfd, AT_STATX_DONT_SYNC, 0, name);
    return this.perform(raw, attr.bytes);
  }

  /** Locks are kept in memory, and none is waited for. */
  override lock(
    creds: Credentials,
    fd: number,
    type: number,
    start: number,
    length: number,
  ): MaybePromise<boolean> {
    return inline.lock(creds, fd, type, start, length);
  }

  override testLock(
    creds: Credentials,
    fd: number,
    type: number,
    start: number,
    length: number,
  ): MaybePromise<HostLock | undefined> {
    return inline.testLock(creds, fd, type, start, length);
  }
}

export interface DiskCalls {
  /** While the disk does not block its callers. */
  readonly inlineCalls: InlineSyscalls;
  /** `inlineCalls`, for an object that has no name yet. */
  readonly inlineCallsForNew: Syscalls;
  /** While it does. */
  readonly pooledCalls: (submitter: Submitter) => Syscalls;
}

/**
 * The calls of a file system on a disk. A change is handed off (native-shims/handoff.c). Writes and changes of new objects, which
 * nothing but the file system itself can hold up, are made on this thread for `trustUs` after a change that has gone through.
 */
export function diskCalls(place: ThreadGroup, trustUs: number, watcher: Watcher): DiskCalls {
  const { blocked, late } = watcher;
  const change = handedOffAt(place, 0, blocked, late);
  const writing = handedOffAt(place, trustUs, blocked, late);
  return {
    inlineCalls: new LocalInline(place, watcher, change, writing),
    inlineCallsForNew: new LocalInline(place, watcher, writing, writing),
    pooledCalls: submitter => new LocalPooled(place, watcher, submitter),
  };
}
