import type { Answer } from '../answer.ts';
import { type Attr, changeClock } from '../attr.ts';
import { ENOSYS, EOPNOTSUPP, EOVERFLOW, EPERM, Errno } from '../errno.ts';
import type { Bytes, Name } from '../name.ts';
import type { Owned, OwnedSegments, Segments } from '../owned.ts';
import { UTIME_NOW, UTIME_OMIT } from './constants.ts';
import {
  asItIs,
  atOnce,
  begin,
  count,
  type Data,
  nothing,
  onPool,
  type Perform,
  type PerformNow,
  run,
  shimOf,
  wide,
} from './control.ts';
import {
  type Caller,
  type HostLock,
  type InlineSyscalls,
  type Syscalls,
  serverCaller,
  type Time,
} from './syscalls.ts';

export const op = {
  lookup: shimOf('lookup'),
  reopen: shimOf('reopen'),
  create: shimOf('create'),
  createUnnamed: shimOf('createUnnamed'),
  close: shimOf('close'),
  stat: shimOf('stat'),
  statAt: shimOf('statAt'),
  statfs: shimOf('statfs'),
  mkdir: shimOf('mkdir'),
  mknod: shimOf('mknod'),
  symlink: shimOf('symlink'),
  link: shimOf('link'),
  rename: shimOf('rename'),
  unlink: shimOf('unlink'),
  readlink: shimOf('readlink'),
  chmod: shimOf('chmod'),
  chown: shimOf('chown'),
  utimens: shimOf('utimens'),
  ftruncate: shimOf('ftruncate'),
  truncate: shimOf('truncate'),
  read: shimOf('read'),
  readCached: shimOf('readCached'),
  write: shimOf('write'),
  fsync: shimOf('fsync'),
  readdir: shimOf('readdir'),
  getxattr: shimOf('getxattr'),
  listxattr: shimOf('listxattr'),
  setxattr: shimOf('setxattr'),
  removexattr: shimOf('removexattr'),
  lock: shimOf('lock'),
  testLock: shimOf('testLock'),
  handle: shimOf('handle'),
  openHandle: shimOf('openHandle'),
} satisfies Record<keyof InlineSyscalls, number>;

/** readlink(2) gives at most PATH_MAX − 1 bytes. */
const linkBytesMax = 4096;
/** type[4] and MAX_HANDLE_SZ bytes. */
const handleBytesMax = 4 + 128;
/** What name_to_handle_at(2) says where there are no handles: the file system has none, the kernel or a filter neither. */
const noHandles: ReadonlySet<Errno> = new Set([EOPNOTSUPP, EOVERFLOW, ENOSYS, EPERM]);

export const only = (segments: Segments): Data => (segments.length === 1 ? segments[0]! : segments);
const seconds = (time: Time): number => (typeof time === 'string' ? 0 : time.sec);
const nanoseconds = (time: Time): number =>
  time === 'now' ? UTIME_NOW : time === 'omit' ? UTIME_OMIT : time.nsec;

/**
 * The system calls of Linux, made by the addon. `change` is for those that change an object: something else than the file system may
 * hold them up too, a lease (F_SETLEASE) or a delegation of the host's NFS server. `writing` is for writes to what is open,
 * and for objects that have no name yet.
 */
export class Linux implements Syscalls {
  protected readonly perform: Perform;
  protected readonly change: Perform;
  protected readonly writing: Perform;

  constructor(perform: Perform, change = perform, writing = change) {
    this.perform = perform;
    this.change = change;
    this.writing = writing;
  }

  lookup(caller: Caller, dirfd: number, name: Name): Answer<number> {
    begin(op.lookup, caller, dirfd, 0, 0, name);
    return this.perform(asItIs);
  }

  reopen(caller: Caller, fd: number, flags: number): Answer<number> {
    begin(op.reopen, caller, fd, flags, 1);
    return this.perform(count);
  }

  create(caller: Caller, dirfd: number, name: Name, flags: number, mode: number): Answer<number> {
    begin(op.create, caller, dirfd, flags, mode, name);
    return this.change(count);
  }

  createUnnamed(caller: Caller, dirfd: number, mode: number): Answer<number> {
    begin(op.createUnnamed, caller, dirfd, mode);
    return this.writing(count);
  }

  close(fd: number): Answer<void> {
    begin(op.close, serverCaller, fd);
    return this.perform(nothing);
  }

  stat(caller: Caller, fd: number, attr: Attr): Answer<void> {
    attr.asked = changeClock.now;
    begin(op.stat, caller, fd);
    return this.perform(nothing, attr.bytes);
  }

  statAt(caller: Caller, dirfd: number, name: Name, attr: Attr): Answer<number> {
    begin(op.statAt, caller, dirfd, 0, 0, name);
    return this.perform(asItIs, attr.bytes);
  }

  statfs(caller: Caller, fd: number, into: Owned): Answer<void> {
    begin(op.statfs, caller, fd);
    return this.perform(nothing, into);
  }

  mkdir(caller: Caller, dirfd: number, name: Name, mode: number): Answer<void> {
    begin(op.mkdir, caller, dirfd, mode, 0, name);
    return this.change(nothing);
  }

  mknod(caller: Caller, dirfd: number, name: Name, mode: number, rdev: number): Answer<void> {
    begin(op.mknod, caller, dirfd, mode, rdev, name);
    return this.change(nothing);
  }

  symlink(caller: Caller, dirfd: number, name: Name, target: Bytes): Answer<void> {
    begin(op.symlink, caller, dirfd, 0, 0, name, target);
    return this.change(nothing);
  }

  link(caller: Caller, fd: number, dirfd: number, name: Name): Answer<void> {
    begin(op.link, caller, fd, dirfd, 0, name);
    return this.change(nothing);
  }

  rename(caller: Caller, fromfd: number, from: Name, tofd: number, to: Name, flags: number): Answer<void> {
    begin(op.rename, caller, fromfd, tofd, flags, from, to);
    return this.change(nothing);
  }

  unlink(caller: Caller, dirfd: number, name: Name, directory: boolean): Answer<void> {
    begin(op.unlink, caller, dirfd, directory ? 1 : 0, 0, name);
    return this.change(nothing);
  }

  readlink(caller: Caller, fd: number): Answer<Bytes> {
    const into = Buffer.allocUnsafe(linkBytesMax);
    begin(op.readlink, caller, fd);
    return this.perform(result => into.toString('latin1', 0, count(result)), into);
  }

  chmod(caller: Caller, fd: number, mode: number): Answer<void> {
    begin(op.chmod, caller, fd, mode);
    return this.change(nothing);
  }

  chown(caller: Caller, fd: number, uid: number, gid: number): Answer<void> {
    begin(op.chown, caller, fd, uid, gid);
    return this.change(nothing);
  }

  utimens(caller: Caller, fd: number, atime: Time, mtime: Time): Answer<void> {
    begin(op.utimens, caller, fd, nanoseconds(atime), nanoseconds(mtime));
    wide[0] = seconds(atime);
    wide[1] = seconds(mtime);
    return this.change(nothing);
  }

  ftruncate(caller: Caller, fd: number, size: number): Answer<void> {
    begin(op.ftruncate, caller, fd);
    wide[0] = size;
    return this.change(nothing);
  }

  truncate(caller: Caller, fd: number, size: number): Answer<void> {
    begin(op.truncate, caller, fd);
    wide[0] = size;
    return this.change(nothing);
  }

  read(caller: Caller, fd: number, into: OwnedSegments, offset: number): Answer<number> {
    begin(op.read, caller, fd);
    wide[0] = offset;
    return this.perform(count, only(into));
  }

  write(caller: Caller, fd: number, from: OwnedSegments, offset: number): Answer<number> {
    begin(op.write, caller, fd);
    wide[0] = offset;
    return this.writing(count, only(from));
  }

  fsync(caller: Caller, fd: number, dataOnly: boolean): Answer<void> {
    begin(op.fsync, caller, fd, dataOnly ? 1 : 0);
    return this.perform(nothing);
  }

  readdir(
    caller: Caller,
    fd: number,
    cookieLow: number,
    cookieHigh: number,
    into: Owned,
    hide: Bytes,
    typeXattr: Bytes,
  ): Answer<number> {
    begin(op.readdir, caller, fd, cookieLow, cookieHigh, hide, typeXattr);
    return this.perform(count, into);
  }

  getxattr(caller: Caller, fd: number, name: Bytes, into: Owned): Answer<number> {
    begin(op.getxattr, caller, fd, 0, 0, name);
    return this.perform(asItIs, into);
  }

  listxattr(caller: Caller, fd: number, into: Owned): Answer<number> {
    begin(op.listxattr, caller, fd);
    return this.perform(asItIs, into);
  }

  setxattr(caller: Caller, fd: number, name: Bytes, value: Owned, flags: number): Answer<void> {
    begin(op.setxattr, caller, fd, flags, 0, name);
    return this.change(nothing, value);
  }

  removexattr(caller: Caller, fd: number, name: Bytes): Answer<void> {
    begin(op.removexattr, caller, fd, 0, 0, name);
    return this.change(nothing);
  }

  lock(caller: Caller, fd: number, type: number, start: number, length: number): Answer<boolean> {
    begin(op.lock, caller, fd, type);
    wide[0] = start;
    wide[1] = length;
    return this.perform(result => count(result) === 1);
  }

  testLock(
    caller: Caller,
    fd: number,
    type: number,
    start: number,
    length: number,
  ): Answer<HostLock | undefined> {
    const found = new Float64Array(4);
    begin(op.testLock, caller, fd, type);
    wide[0] = start;
    wide[1] = length;
    return this.perform(
      result =>
        count(result) === 0
          ? undefined
          : { type: found[0]!, start: found[1]!, length: found[2]!, pid: found[3]! },
      new Uint8Array(found.buffer),
    );
  }

  handle(fd: number): Answer<Bytes | undefined> {
    const into = Buffer.allocUnsafe(handleBytesMax);
    begin(op.handle, serverCaller, fd);
    return this.perform(result => {
      if (result < 0 && noHandles.has(Errno.of(-result))) return undefined;
      return into.toString('latin1', 0, count(result));
    }, into);
  }

  openHandle(mountfd: number, handle: Bytes): Answer<number> {
    begin(op.openHandle, serverCaller, mountfd);
    return this.perform(asItIs, Buffer.from(handle, 'latin1'));
  }
}

/**
 * The same at once, on this thread. The calls that make up most requests are written out: then each of them is a function
 * that the compiler of V8 can join with its caller, and costs half as much.
 */
export class Inline extends Linux implements InlineSyscalls {
  protected override readonly perform: PerformNow;

  constructor(perform = atOnce) {
    super(perform);
    this.perform = perform;
  }

  override lookup(caller: Caller, dirfd: number, name: Name): Answer<number> {
    begin(op.lookup, caller, dirfd, 0, 0, name);
    return run();
  }

  override reopen(caller: Caller, fd: number, flags: number): number {
    begin(op.reopen, caller, fd, flags);
    return count(run());
  }

  override close(fd: number): void {
    begin(op.close, serverCaller, fd);
    run();
  }

  override stat(caller: Caller, fd: number, attr: Attr): void {
    attr.asked = changeClock.now;
    begin(op.stat, caller, fd);
    nothing(run(attr.bytes));
  }

  override read(caller: Caller, fd: number, into: Segments, offset: number): number {
    begin(op.read, caller, fd);
    wide[0] = offset;
    return count(run(only(into)));
  }

  /** Never waits. */
  readCached(caller: Caller, fd: number, into: Segments, offset: number): number {
    begin(op.readCached, caller, fd);
    wide[0] = offset;
    return run(only(into));
  }

  override write(caller: Caller, fd: number, from: Segments, offset: number): number {
    begin(op.write, caller, fd);
    wide[0] = offset;
    return count(run(only(from)));
  }

  override readdir(
    caller: Caller,
    fd: number,
    cookieLow: number,
    cookieHigh: number,
    into: Uint8Array,
    hide: Bytes,
    typeXattr: Bytes,
  ): number {
    begin(op.readdir, caller, fd, cookieLow, cookieHigh, hide, typeXattr);
    return this.perform(count, into);
  }

  override getxattr(caller: Caller, fd: number, name: Bytes, into: Uint8Array): number {
    begin(op.getxattr, caller, fd, 0, 0, name);
    return run(into);
  }

  override setxattr(caller: Caller, fd: number, name: Bytes, value: Uint8Array, flags: number): void {
    begin(op.setxattr, caller, fd, flags, 0, name);
    this.perform(nothing, value);
  }
}

/** Makes each call at once, on this thread. */
export const inline: InlineSyscalls = new Inline();

/** Makes each call on a thread of the addon's pool and answers with a promise. */
export const pool: Syscalls = new Linux(onPool);
