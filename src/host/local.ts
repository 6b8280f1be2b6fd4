import { type Attr, changeClock } from '#base/attr.ts';
import { EAGAIN, EINVAL, EXDEV } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Name } from '#base/name.ts';
import type { Segments } from '#base/owned.ts';
import { AT_STATX_DONT_SYNC, RESOLVE_CACHED, RESOLVE_NO_XDEV } from './constants.ts';
import {
  beginCall,
  blockedMs,
  expectCount,
  expectVoid,
  type OnBlocked,
  onThreads,
  raw,
  run,
  type ThreadGroup,
  unknownFsThreads,
  wide,
} from './control-block.ts';
import { Inline, inline, Linux, only, op } from './linux.ts';
import type { Credentials, HostLock, InlineSyscalls, Syscalls } from './syscalls.ts';

/** The same on the threads of a place, telling when a call had to wait for a disk. */
export function pooledOn(place: ThreadGroup, waited?: OnBlocked): Syscalls {
  return new Linux(onThreads(place, waited));
}

/** For file systems of which nothing is known yet. */
export const unknownFs: Syscalls = pooledOn(unknownFsThreads);

/**
 * Calls on a file system of this machine, at once; `waited` is told when one had to wait after all. Below it another may be
 * mounted that waits: what leads there is looked up on the pool, and nobody is asked for attributes that the kernel does not
 * have.
 */
class LocalInline extends Inline {
  readonly #waited: OnBlocked;

  constructor(waited: OnBlocked) {
    super((finish, data) => finish(this.#told(data === undefined ? run() : run(data))));
    this.#waited = waited;
  }

  #told(result: number): number {
    const ms = blockedMs();
    if (ms > 0) this.#waited(ms);
    return result;
  }

  override lookup(creds: Credentials, dirfd: number, name: Name): MaybePromise<number> {
    beginCall(op.lookup, creds, dirfd, RESOLVE_NO_XDEV, 0, name);
    const found = this.#told(run());
    return found === -EXDEV.code ? unknownFs.lookup(creds, dirfd, name) : found;
  }

  override reopen(creds: Credentials, fd: number, flags: number): number {
    beginCall(op.reopen, creds, fd, flags);
    return expectCount(this.#told(run()));
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

  override write(creds: Credentials, fd: number, from: Segments, offset: number): number {
    beginCall(op.write, creds, fd);
    wide[0] = offset;
    return expectCount(this.#told(run(only(from))));
  }
}

/** What the kernel has in memory of the attributes: all of them, on a file system of this machine. */
export function statInMemory(creds: Credentials, fd: number, attr: Attr): void {
  attr.asked = changeClock.now;
  beginCall(op.stat, creds, fd, AT_STATX_DONT_SYNC);
  expectVoid(run(attr.bytes));
}

export function localInline(waited: OnBlocked): InlineSyscalls {
  return new LocalInline(waited);
}

/** The same while its disk keeps callers waiting: at once is only what is in memory, without a lock on the way. */
class LocalPooled extends Linux {
  override lookup(creds: Credentials, dirfd: number, name: Name): MaybePromise<number> {
    beginCall(op.lookup, creds, dirfd, RESOLVE_NO_XDEV | RESOLVE_CACHED, 0, name);
    const found = run();
    if (found !== -EAGAIN.code && found !== -EXDEV.code && found !== -EINVAL.code) return found;
    beginCall(op.lookup, creds, dirfd, RESOLVE_NO_XDEV, 0, name);
    return andThen(this.perform(raw), later =>
      later === -EXDEV.code ? unknownFs.lookup(creds, dirfd, name) : later,
    );
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

export function localPooled(place: ThreadGroup, waited: OnBlocked): Syscalls {
  return new LocalPooled(onThreads(place, waited));
}
