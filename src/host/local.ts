import { type Answer, andThen } from '../answer.ts';
import { type Attr, changeClock } from '../attr.ts';
import { EAGAIN, EINVAL, EXDEV } from '../errno.ts';
import type { Name } from '../name.ts';
import type { Segments } from '../owned.ts';
import { AT_STATX_DONT_SYNC, RESOLVE_CACHED, RESOLVE_NO_XDEV } from './constants.ts';
import {
  asItIs,
  begin,
  count,
  nothing,
  onPoolAt,
  type Place,
  run,
  unknownPlace,
  type Waited,
  waitedMs,
  wide,
} from './control.ts';
import { Inline, inline, Linux, only, op } from './linux.ts';
import type { Caller, HostLock, InlineSyscalls, Syscalls } from './syscalls.ts';

/** The same on the threads of a place, telling when a call had to wait for a disk. */
export function poolAt(place: Place, waited?: Waited): Syscalls {
  return new Linux(onPoolAt(place, waited));
}

/** For file systems of which nothing is known yet. */
export const elsewhere: Syscalls = poolAt(unknownPlace);

/**
 * Calls on a file system of this machine, at once; `waited` is told when one had to wait after all. Below it another may be
 * mounted that waits: what leads there is looked up on the pool, and nobody is asked for attributes that the kernel does not
 * have.
 */
class LocalAtOnce extends Inline {
  readonly #waited: Waited;

  constructor(waited: Waited) {
    super((finish, data) => finish(this.#told(data === undefined ? run() : run(data))));
    this.#waited = waited;
  }

  #told(result: number): number {
    const ms = waitedMs();
    if (ms > 0) this.#waited(ms);
    return result;
  }

  override lookup(caller: Caller, dirfd: number, name: Name): Answer<number> {
    begin(op.lookup, caller, dirfd, RESOLVE_NO_XDEV, 0, name);
    const found = this.#told(run());
    return found === -EXDEV.code ? elsewhere.lookup(caller, dirfd, name) : found;
  }

  override reopen(caller: Caller, fd: number, flags: number): number {
    begin(op.reopen, caller, fd, flags);
    return count(this.#told(run()));
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

  override write(caller: Caller, fd: number, from: Segments, offset: number): number {
    begin(op.write, caller, fd);
    wide[0] = offset;
    return count(this.#told(run(only(from))));
  }
}

/** What the kernel has in memory of the attributes: all of them, on a file system of this machine. */
export function statInMemory(caller: Caller, fd: number, attr: Attr): void {
  attr.asked = changeClock.now;
  begin(op.stat, caller, fd, AT_STATX_DONT_SYNC);
  nothing(run(attr.bytes));
}

export function localAtOnce(waited: Waited): InlineSyscalls {
  return new LocalAtOnce(waited);
}

/** The same while its disk keeps callers waiting: at once is only what is in memory, without a lock on the way. */
class LocalOnPool extends Linux {
  override lookup(caller: Caller, dirfd: number, name: Name): Answer<number> {
    begin(op.lookup, caller, dirfd, RESOLVE_NO_XDEV | RESOLVE_CACHED, 0, name);
    const found = run();
    if (found !== -EAGAIN.code && found !== -EXDEV.code && found !== -EINVAL.code) return found;
    begin(op.lookup, caller, dirfd, RESOLVE_NO_XDEV, 0, name);
    return andThen(this.perform(asItIs), later =>
      later === -EXDEV.code ? elsewhere.lookup(caller, dirfd, name) : later,
    );
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

export function localOnPool(place: Place, waited: Waited): Syscalls {
  return new LocalOnPool(onPoolAt(place, waited));
}
