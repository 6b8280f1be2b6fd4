import { type Attr, changeClock } from '#base/attr.ts';
import { EAGAIN, EINVAL } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
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
  type OnBlocked,
  type OnLate,
  onThreads,
  type Perform,
  type PerformInline,
  raw,
  run,
  type ThreadGroup,
  unknownFsThreads,
  wide,
} from './control-block.ts';
import { Inline, inline, Linux, only, op } from './linux.ts';
import {
  type Credentials,
  type HostLock,
  type InlineSyscalls,
  noSession,
  type Submitter,
  type Syscalls,
  serverCreds,
} from './syscalls.ts';

/** Calls on the threads of a group. */
export function pooledOn(group: ThreadGroup, submitter: Submitter): Syscalls {
  return new Linux(onThreads(group, submitter));
}

/** Calls on a file system of unknown type. */
export function unknownFs(submitter: Submitter): Syscalls {
  return pooledOn(unknownFsThreads, submitter);
}

/**
 * Bytes of size and of blocks up to which freeing an object's blocks is quick: a guest can make each block an extent, and each
 * takes 2 to 70 µs. XFS keeps blocks beyond the end of larger files and frees them when a written file is closed.
 */
const lightBytesMax = 64 * 1024;

export function isLight(attr: Attr): boolean {
  return attr.size <= lightBytesMax && attr.blockBytes <= lightBytesMax;
}

/** What the calls of a local file system report. */
export interface FsEvents {
  /** A call waited for the disk. */
  readonly onBlocked: OnBlocked;
  /** A call takes longer than the event loop waits. */
  readonly onLate: OnLate;
  /** A close that may free blocks takes longer. */
  readonly onFreeing: (closed: Promise<unknown>) => void;
}

/**
 * Calls on a local file system. Those that read run on this thread; `change` and `writing` are as of `Linux`. A lookup does not
 * leave the file system, since the one mounted there may hang, and attributes are those that the kernel has in memory.
 *
 * The most frequent calls are written out: V8 inlines them into their callers, which halves their cost.
 */
class LocalInline extends Inline {
  readonly #group: ThreadGroup;
  readonly #events: FsEvents;

  constructor(group: ThreadGroup, events: FsEvents, change?: Perform, writing?: Perform) {
    const perform: PerformInline = (finish, data) =>
      finish(this.#reported(data === undefined ? run() : run(data)));
    super(perform, change, writing, AT_STATX_DONT_SYNC);
    this.#group = group;
    this.#events = events;
  }

  /** The result of the last call; reports if it was blocked. */
  #reported(result: number): number {
    const ms = blockedMs();
    if (ms > 0) this.#events.onBlocked(ms);
    return result;
  }

  override lookup(creds: Credentials, dirfd: number, name: Name): number {
    beginCall(op.lookup, creds, dirfd, RESOLVE_NO_XDEV, 0, name);
    return this.#reported(run());
  }

  /** Opening for writing may break a lease and copies a file up (overlayfs); opening for reading breaks F_WRLCK leases. */
  override reopen(creds: Credentials, fd: number, flags: number): MaybePromise<number> {
    if ((flags & (O_ACCMODE | O_TRUNC)) === O_RDONLY) {
      beginCall(op.reopen, creds, fd, flags);
      const opened = this.#reported(run());
      if (opened !== -EAGAIN.code) return expectCount(opened);
    }
    beginCall(op.reopen, creds, fd, flags, 1);
    return this.change(expectCount);
  }

  override close(fd: number): MaybePromise<void> {
    return closeLocal(fd, this.#group, this.#events, this.writing);
  }

  override stat(creds: Credentials, fd: number, attr: Attr): void {
    statInMemory(creds, fd, attr);
  }

  override read(creds: Credentials, fd: number, into: Segments, offset: number): number {
    beginCall(op.read, creds, fd);
    wide[0] = offset;
    return expectCount(this.#reported(run(only(into))));
  }

  override getxattr(creds: Credentials, fd: number, name: Bytes, into: Uint8Array): number {
    beginCall(op.getxattr, creds, fd, 0, 0, name);
    return this.#reported(run(into));
  }
}

/** Attributes that the kernel has in memory: on a local file system, all of them. */
export function statInMemory(creds: Credentials, fd: number, attr: Attr): void {
  attr.asked = changeClock.now;
  beginCall(op.stat, creds, fd, AT_STATX_DONT_SYNC);
  expectVoid(run(attr.bytes));
}

/**
 * The last close(2) of an unnamed object frees its blocks, with O_PATH too; that of a written file may free or write some (XFS:
 * blocks beyond its end; ext4 and btrfs: content that was replaced). The shim closes on this thread what has a name and is
 * light, and O_PATH descriptors of named objects; should a name vanish meanwhile, that call frees the blocks and is measured.
 * Light objects without a name are closed by `free`, all others on the pool.
 */
function closeLocal(fd: number, group: ThreadGroup, events: FsEvents, free: Perform): MaybePromise<void> {
  beginCall(op.close, serverCreds, fd, lightBytesMax);
  const left = run();
  if (blockedMs() > 0) events.onBlocked(blockedMs());
  if (left === 0) return;
  beginCall(op.close, serverCreds, fd);
  const closed = (left === CLOSE_REMOVED ? free : onThreads(group, noSession))(expectVoid);
  if (closed instanceof Promise) events.onFreeing(closed);
  return closed;
}

/** Calls on a file system in memory, which never waits: all on this thread, except for large closes. */
export function inMemory(group: ThreadGroup, events: FsEvents): InlineSyscalls {
  return new LocalInline(group, events) as InlineSyscalls;
}

/** Calls on a local file system whose disk blocks callers. On this thread run only those that read memory without a lock. */
class LocalPooled extends Linux {
  readonly #group: ThreadGroup;
  readonly #events: FsEvents;

  constructor(group: ThreadGroup, events: FsEvents, submitter: Submitter) {
    const perform = onThreads(group, submitter, events.onBlocked);
    super(perform, perform, perform, AT_STATX_DONT_SYNC);
    this.#group = group;
    this.#events = events;
  }

  override lookup(creds: Credentials, dirfd: number, name: Name): MaybePromise<number> {
    beginCall(op.lookup, creds, dirfd, RESOLVE_NO_XDEV | RESOLVE_CACHED, 0, name);
    const found = run();
    if (found !== -EAGAIN.code && found !== -EINVAL.code) return found;
    beginCall(op.lookup, creds, dirfd, RESOLVE_NO_XDEV, 0, name);
    return this.perform(raw);
  }

  override close(fd: number): MaybePromise<void> {
    return closeLocal(fd, this.#group, this.#events, this.perform);
  }

  override stat(creds: Credentials, fd: number, attr: Attr): void {
    statInMemory(creds, fd, attr);
  }

  /** The kernel keeps locks in memory. */
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
  readonly inlineCallsForNew: InlineSyscalls;
  /** While it does. */
  readonly pooledCalls: (submitter: Submitter) => Syscalls;
}

/**
 * The calls of a file system on a disk. Changes are handed off (native-shims/handoff.c). Writes, and changes of unnamed
 * objects, which only the file system itself can block, run on this thread within `trustUs` µs of a change that went through.
 */
export function diskCalls(group: ThreadGroup, trustUs: number, events: FsEvents): DiskCalls {
  const { onBlocked, onLate } = events;
  const change = handedOffAt(group, 0, onBlocked, onLate);
  const writing = handedOffAt(group, trustUs, onBlocked, onLate);
  return {
    inlineCalls: new LocalInline(group, events, change, writing) as InlineSyscalls,
    inlineCallsForNew: new LocalInline(group, events, writing, writing) as InlineSyscalls,
    pooledCalls: submitter => new LocalPooled(group, events, submitter),
  };
}
