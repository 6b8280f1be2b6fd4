import { type Attr, changeClock } from '#base/attr.ts';
import { ENOSYS, EOPNOTSUPP, EOVERFLOW, EPERM, Errno } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Owned, OwnedSegments, Segments } from '#base/owned.ts';
import { HANDLE_BYTES_MAX, UTIME_NOW, UTIME_OMIT } from './constants.ts';
import {
  beginCall,
  type CallData,
  commonThreads,
  expectCount,
  expectVoid,
  onThreads,
  type Perform,
  raw,
  run,
  runInline,
  shimOf,
  wide,
} from './control-block.ts';
import {
  type Credentials,
  type HostLock,
  type InlineSyscalls,
  noSession,
  type Syscalls,
  serverCreds,
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
  flock: shimOf('flock'),
  handle: shimOf('handle'),
  openHandle: shimOf('openHandle'),
} satisfies Record<keyof InlineSyscalls, number>;

/** PATH_MAX: readlink(2) returns at most one byte less. */
const linkBytesMax = 4096;
/** Errors of name_to_handle_at(2) where file system, kernel or a seccomp filter have no handles. */
const noHandles: ReadonlySet<Errno> = new Set([EOPNOTSUPP, EOVERFLOW, ENOSYS, EPERM]);

export const only = (segments: Segments): CallData => (segments.length === 1 ? segments[0]! : segments);
const seconds = (time: Time): number => (typeof time === 'string' ? 0 : time.sec);
const nanoseconds = (time: Time): number =>
  time === 'now' ? UTIME_NOW : time === 'omit' ? UTIME_OMIT : time.nsec;

/**
 * The system calls of Linux, made by the addon. `change` makes those that change an object: a lease (F_SETLEASE) or a
 * delegation of the host's NFS server may block them besides the file system. `writing` makes writes to open files, and creates
 * unnamed files. `statFlags` are flags of statAt.
 */
export class Linux implements Syscalls {
  protected readonly perform: Perform;
  protected readonly change: Perform;
  protected readonly writing: Perform;
  readonly #statFlags: number;

  constructor(perform: Perform, change = perform, writing = change, statFlags = 0) {
    this.perform = perform;
    this.change = change;
    this.writing = writing;
    this.#statFlags = statFlags;
  }

  lookup(creds: Credentials, dirfd: number, name: Name): MaybePromise<number> {
    beginCall(op.lookup, creds, dirfd, 0, 0, name);
    return this.perform(raw);
  }

  reopen(creds: Credentials, fd: number, flags: number): MaybePromise<number> {
    beginCall(op.reopen, creds, fd, flags, 1);
    return this.perform(expectCount);
  }

  create(creds: Credentials, dirfd: number, name: Name, flags: number, mode: number): MaybePromise<number> {
    beginCall(op.create, creds, dirfd, flags, mode, name);
    return this.change(expectCount);
  }

  createUnnamed(creds: Credentials, dirfd: number, mode: number): MaybePromise<number> {
    beginCall(op.createUnnamed, creds, dirfd, mode);
    return this.writing(expectCount);
  }

  close(fd: number): MaybePromise<void> {
    beginCall(op.close, serverCreds, fd);
    return this.perform(expectVoid);
  }

  stat(creds: Credentials, fd: number, attr: Attr): MaybePromise<void> {
    attr.asked = changeClock.now;
    beginCall(op.stat, creds, fd);
    return this.perform(expectVoid, attr.bytes);
  }

  statAt(creds: Credentials, dirfd: number, name: Name, attr: Attr): MaybePromise<number> {
    beginCall(op.statAt, creds, dirfd, this.#statFlags, 0, name);
    return this.perform(raw, attr.bytes);
  }

  statfs(creds: Credentials, fd: number, into: Owned): MaybePromise<void> {
    beginCall(op.statfs, creds, fd);
    return this.perform(expectVoid, into);
  }

  mkdir(creds: Credentials, dirfd: number, name: Name, mode: number): MaybePromise<void> {
    beginCall(op.mkdir, creds, dirfd, mode, 0, name);
    return this.change(expectVoid);
  }

  mknod(creds: Credentials, dirfd: number, name: Name, mode: number, rdev: number): MaybePromise<void> {
    beginCall(op.mknod, creds, dirfd, mode, rdev, name);
    return this.change(expectVoid);
  }

  symlink(creds: Credentials, dirfd: number, name: Name, target: Bytes): MaybePromise<void> {
    beginCall(op.symlink, creds, dirfd, 0, 0, name, target);
    return this.change(expectVoid);
  }

  link(creds: Credentials, fd: number, dirfd: number, name: Name): MaybePromise<void> {
    beginCall(op.link, creds, fd, dirfd, 0, name);
    return this.change(expectVoid);
  }

  rename(
    creds: Credentials,
    fromfd: number,
    from: Name,
    tofd: number,
    to: Name,
    flags: number,
  ): MaybePromise<void> {
    beginCall(op.rename, creds, fromfd, tofd, flags, from, to);
    return this.change(expectVoid);
  }

  unlink(creds: Credentials, dirfd: number, name: Name, directory: boolean): MaybePromise<void> {
    beginCall(op.unlink, creds, dirfd, directory ? 1 : 0, 0, name);
    return this.change(expectVoid);
  }

  readlink(creds: Credentials, fd: number): MaybePromise<Bytes> {
    const into = Buffer.allocUnsafe(linkBytesMax);
    beginCall(op.readlink, creds, fd);
    return this.perform(result => into.toString('latin1', 0, expectCount(result)), into);
  }

  chmod(creds: Credentials, fd: number, mode: number): MaybePromise<void> {
    beginCall(op.chmod, creds, fd, mode);
    return this.change(expectVoid);
  }

  chown(creds: Credentials, fd: number, uid: number, gid: number): MaybePromise<void> {
    beginCall(op.chown, creds, fd, uid, gid);
    return this.change(expectVoid);
  }

  utimens(creds: Credentials, fd: number, atime: Time, mtime: Time): MaybePromise<void> {
    beginCall(op.utimens, creds, fd, nanoseconds(atime), nanoseconds(mtime));
    wide[0] = seconds(atime);
    wide[1] = seconds(mtime);
    return this.change(expectVoid);
  }

  ftruncate(creds: Credentials, fd: number, size: number): MaybePromise<void> {
    beginCall(op.ftruncate, creds, fd);
    wide[0] = size;
    return this.change(expectVoid);
  }

  truncate(creds: Credentials, fd: number, size: number): MaybePromise<void> {
    beginCall(op.truncate, creds, fd);
    wide[0] = size;
    return this.change(expectVoid);
  }

  read(creds: Credentials, fd: number, into: OwnedSegments, offset: number): MaybePromise<number> {
    beginCall(op.read, creds, fd);
    wide[0] = offset;
    return this.perform(expectCount, only(into));
  }

  write(creds: Credentials, fd: number, from: OwnedSegments, offset: number): MaybePromise<number> {
    beginCall(op.write, creds, fd);
    wide[0] = offset;
    return this.writing(expectCount, only(from));
  }

  fsync(creds: Credentials, fd: number, dataOnly: boolean): MaybePromise<void> {
    beginCall(op.fsync, creds, fd, dataOnly ? 1 : 0);
    return this.perform(expectVoid);
  }

  readdir(
    creds: Credentials,
    fd: number,
    cookieLow: number,
    cookieHigh: number,
    into: Owned,
    hide: Bytes,
    typeXattr: Bytes,
  ): MaybePromise<number> {
    beginCall(op.readdir, creds, fd, cookieLow, cookieHigh, hide, typeXattr);
    return this.perform(expectCount, into);
  }

  getxattr(creds: Credentials, fd: number, name: Bytes, into: Owned): MaybePromise<number> {
    beginCall(op.getxattr, creds, fd, 0, 0, name);
    return this.perform(raw, into);
  }

  listxattr(creds: Credentials, fd: number, into: Owned): MaybePromise<number> {
    beginCall(op.listxattr, creds, fd);
    return this.perform(raw, into);
  }

  setxattr(creds: Credentials, fd: number, name: Bytes, value: Owned, flags: number): MaybePromise<void> {
    beginCall(op.setxattr, creds, fd, flags, 0, name);
    return this.change(expectVoid, value);
  }

  removexattr(creds: Credentials, fd: number, name: Bytes): MaybePromise<void> {
    beginCall(op.removexattr, creds, fd, 0, 0, name);
    return this.change(expectVoid);
  }

  lock(creds: Credentials, fd: number, type: number, start: number, length: number): MaybePromise<boolean> {
    beginCall(op.lock, creds, fd, type);
    wide[0] = start;
    wide[1] = length;
    return this.perform(result => expectCount(result) === 1);
  }

  testLock(
    creds: Credentials,
    fd: number,
    type: number,
    start: number,
    length: number,
  ): MaybePromise<HostLock | undefined> {
    const found = new Float64Array(4);
    beginCall(op.testLock, creds, fd, type);
    wide[0] = start;
    wide[1] = length;
    return this.perform(
      result =>
        expectCount(result) === 0
          ? undefined
          : { type: found[0]!, start: found[1]!, length: found[2]!, pid: found[3]! },
      new Uint8Array(found.buffer),
    );
  }

  flock(creds: Credentials, fd: number): MaybePromise<boolean> {
    beginCall(op.flock, creds, fd);
    return this.perform(result => expectCount(result) === 1);
  }

  handle(fd: number): MaybePromise<Bytes | undefined> {
    const into = Buffer.allocUnsafe(HANDLE_BYTES_MAX);
    beginCall(op.handle, serverCreds, fd);
    return this.perform(result => {
      if (result < 0 && noHandles.has(Errno.of(-result))) return undefined;
      return into.toString('latin1', 0, expectCount(result));
    }, into);
  }

  openHandle(mountfd: number, handle: Bytes): MaybePromise<number> {
    beginCall(op.openHandle, serverCreds, mountfd);
    return this.perform(raw, Buffer.from(handle, 'latin1'));
  }
}

/** Makes calls on this thread. `perform` and the others as of `Linux`. */
export class Inline extends Linux {
  /** Never waits. */
  readCached(creds: Credentials, fd: number, into: Segments, offset: number): number {
    beginCall(op.readCached, creds, fd);
    wide[0] = offset;
    return run(only(into));
  }
}

/** Makes each call on this thread. `runInline` returns results, not promises. */
export const inline = new Inline(runInline) as InlineSyscalls;

/** Makes each call on a thread of the addon's pool. */
export const pool: Syscalls = new Linux(onThreads(commonThreads, noSession));
