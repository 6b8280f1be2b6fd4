import { type Answer, andThen } from '../answer.ts';
import { type Attr, changeClock } from '../attr.ts';
import { EAGAIN, EINVAL, EXDEV } from '../errno.ts';
import type { Name } from '../name.ts';
import type { Segments } from '../owned.ts';
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
  asItIs,
  begin,
  count,
  handedOffAt,
  type Late,
  nothing,
  onPoolAt,
  type Perform,
  type PerformNow,
  type Place,
  run,
  unknownPlace,
  type Waited,
  waitedMs,
  wide,
} from './control.ts';
import { inline, Linux, only, op } from './linux.ts';
import { type Caller, type HostLock, type InlineSyscalls, type Syscalls, serverCaller } from './syscalls.ts';

/** The same on the threads of a place, telling when a call had to wait for a disk. */
export function poolAt(place: Place, waited?: Waited): Syscalls {
  return new Linux(onPoolAt(place, waited));
}

/** For file systems of which nothing is known yet. */
export const elsewhere: Syscalls = poolAt(unknownPlace);

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
  readonly waited: Waited;
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
class LocalAtOnce extends Linux implements InlineSyscalls {
  protected override readonly perform: PerformNow;
  readonly #place: Place;
  readonly #watcher: Watcher;

  constructor(place: Place, watcher: Watcher, change?: Perform, writing?: Perform) {
    const perform: PerformNow = (finish, data) => finish(this.#told(data === undefined ? run() : run(data)));
    super(perform, change, writing);
    this.perform = perform;
    this.#place = place;
    this.#watcher = watcher;
  }

  #told(result: number): number {
    const ms = waitedMs();
    if (ms > 0) this.#watcher.waited(ms);
    return result;
  }

  override lookup(caller: Caller, dirfd: number, name: Name): Answer<number> {
    begin(op.lookup, caller, dirfd, RESOLVE_NO_XDEV, 0, name);
    const found = this.#told(run());
    return found === -EXDEV.code ? elsewhere.lookup(caller, dirfd, name) : found;
  }

  /** Opening for writing may break a lease and copies a file up (overlayfs); opening for reading breaks F_WRLCK leases. */
  override reopen(caller: Caller, fd: number, flags: number): Answer<number> {
    if ((flags & (O_ACCMODE | O_TRUNC)) === O_RDONLY) {
      begin(op.reopen, caller, fd, flags);
      const opened = this.#told(run());
      if (opened !== -EAGAIN.code) return count(opened);
    }
    begin(op.reopen, caller, fd, flags, 1);
    return this.change(count);
  }

  override close(fd: number): Answer<void> {
    return closeLocal(fd, this.#place, this.#watcher, this.writing);
  }

  override stat(caller: Caller, fd: number, attr: Attr): void {
    statInMemory(caller, fd, attr);
  }

  override statAt(caller: Caller, dirfd: number, name: Name, attr: Attr): Answer<number> {
    begin(op.statAt, caller, dirfd, AT_STATX_DONT_SYNC, 0, name);
    return this.perform(asItIs, attr.bytes);
  }

  override read(caller: Caller, fd: number, into: Segments, offset: number): number {
    begin(op.read, caller, fd);
    wide[0] = offset;
    return count(this.#told(run(only(into))));
  }

  /** Never waits. */
  readCached(caller: Caller, fd: number, into: Segments, offset: number): number {
    begin(op.readCached, caller, fd);
    wide[0] = offset;
    return run(only(into));
  }

  override write(caller: Caller, fd: number, from: Segments, offset: number): Answer<number> {
    begin(op.write, caller, fd);
    wide[0] = offset;
    return this.writing(count, only(from));
  }

  override readdir(
    caller: Caller,
    fd: number,
    cookieLow: number,
    cookieHigh: number,
    into: Uint8Array,
    hide: string,
    typeXattr: string,
  ): number {
    begin(op.readdir, caller, fd, cookieLow, cookieHigh, hide, typeXattr);
    return this.perform(count, into);
  }

  override getxattr(caller: Caller, fd: number, name: string, into: Uint8Array): number {
    begin(op.getxattr, caller, fd, 0, 0, name);
    return this.#told(run(into));
  }

  override setxattr(
    caller: Caller,
    fd: number,
    name: string,
    value: Uint8Array,
    flags: number,
  ): Answer<void> {
    begin(op.setxattr, caller, fd, flags, 0, name);
    return this.change(nothing, value);
  }
}

/** What the kernel has in memory of the attributes: all of them, on a file system of this machine. */
export function statInMemory(caller: Caller, fd: number, attr: Attr): void {
  attr.asked = changeClock.now;
  begin(op.stat, caller, fd, AT_STATX_DONT_SYNC);
  nothing(run(attr.bytes));
}

/**
 * The last close(2) of an object without a name frees its blocks, O_PATH or not, and that of a file that was open may free or
 * write some (XFS: blocks beyond its end; ext4 and btrfs: what has replaced its content). So at once are closed what has a name and
 * is light, and O_PATH descriptors of what has a name; should somebody take the last one at this very moment, this call frees the blocks, and
 * is measured. What is light and was removed is closed as a change is made (`free`), and the rest on the pool.
 */
function closeLocal(fd: number, place: Place, watcher: Watcher, free: Perform): Answer<void> {
  begin(op.close, serverCaller, fd, lightBytesMax);
  const left = run();
  if (waitedMs() > 0) watcher.waited(waitedMs());
  if (left === 0) return;
  begin(op.close, serverCaller, fd);
  const closed = (left === CLOSE_REMOVED ? free : onPoolAt(place))(nothing);
  if (closed instanceof Promise) watcher.freeing(closed);
  return closed;
}

/** All calls at once, for a file system that waits for nothing. */
export function inMemory(place: Place, watcher: Watcher): InlineSyscalls {
  return new LocalAtOnce(place, watcher);
}

/** The same while its disk keeps callers waiting: at once is only what is in memory, without a lock on the way. */
class LocalOnPool extends Linux {
  readonly #place: Place;
  readonly #watcher: Watcher;

  constructor(place: Place, watcher: Watcher) {
    super(onPoolAt(place, watcher.waited));
    this.#place = place;
    this.#watcher = watcher;
  }

  override lookup(caller: Caller, dirfd: number, name: Name): Answer<number> {
    begin(op.lookup, caller, dirfd, RESOLVE_NO_XDEV | RESOLVE_CACHED, 0, name);
    const found = run();
    if (found !== -EAGAIN.code && found !== -EXDEV.code && found !== -EINVAL.code) return found;
    begin(op.lookup, caller, dirfd, RESOLVE_NO_XDEV, 0, name);
    return andThen(this.perform(asItIs), later =>
      later === -EXDEV.code ? elsewhere.lookup(caller, dirfd, name) : later,
    );
  }

  override close(fd: number): Answer<void> {
    return closeLocal(fd, this.#place, this.#watcher, this.perform);
  }

  override stat(caller: Caller, fd: number, attr: Attr): void {
    statInMemory(caller, fd, attr);
  }

  override statAt(caller: Caller, dirfd: number, name: Name, attr: Attr): Answer<number> {
    begin(op.statAt, caller, dirfd, AT_STATX_DONT_SYNC, 0, name);
    return this.perform(asItIs, attr.bytes);
  }

  /** Locks are kept in memory, and none is waited for. */
  override lock(caller: Caller, fd: number, type: number, start: number, length: number): Answer<boolean> {
    return inline.lock(caller, fd, type, start, length);
  }

  override testLock(
    caller: Caller,
    fd: number,
    type: number,
    start: number,
    length: number,
  ): Answer<HostLock | undefined> {
    return inline.testLock(caller, fd, type, start, length);
  }
}

export interface DiskCalls {
  /** While the disk keeps nobody waiting. */
  readonly calm: InlineSyscalls;
  /** `calm`, for an object that has no name yet. */
  readonly calmForNew: Syscalls;
  /** While it does. */
  readonly busy: Syscalls;
}

/**
 * The calls of a file system on a disk. A change is handed off (native-shims/handoff.c). Writes and changes of new objects, which
 * nothing but the file system itself can hold up, are made on this thread for `trustUs` after a change that has gone through.
 */
export function diskCalls(place: Place, trustUs: number, watcher: Watcher): DiskCalls {
  const { waited, late } = watcher;
  const change = handedOffAt(place, 0, waited, late);
  const writing = handedOffAt(place, trustUs, waited, late);
  return {
    calm: new LocalAtOnce(place, watcher, change, writing),
    calmForNew: new LocalAtOnce(place, watcher, writing, writing),
    busy: new LocalOnPool(place, watcher),
  };
}
