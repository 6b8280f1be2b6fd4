import type { Attr } from '#base/attr.ts';
import { nobody, noId } from '#base/ids.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Owned, OwnedSegments, Segments } from '#base/owned.ts';

/**
 * As whom a host call runs: the shim sets the thread's filesystem uid, gid and groups (credentials(7)). Immutable and shared:
 * equal credentials are usually one object.
 */
export interface Credentials {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups; with more than NGROUPS_MAX a call fails with E2BIG. */
  readonly groups: readonly number[];
  /**
   * Over which objects a uid other than 0 has the server's capabilities of file access: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,
   * CAP_FOWNER, CAP_CHOWN. Uid 0 has all of the server's over all.
   */
  readonly fileCaps?: 'all' | OwnerRanges;
}

/** Of a guest's user whom no host call acts as: both ids are the uid, and that of nobody without one (NONUNAME). */
export function credsWithoutGroups(uid: number): Credentials {
  const id = uid === noId ? nobody : uid;
  return { uid: id, gid: id, groups: [] };
}

/** Objects whose owner is in one of `uids` and whose group in one of `gids`, at most 32 each. */
export interface OwnerRanges {
  readonly uids: readonly IdRange[];
  readonly gids: readonly IdRange[];
}

export interface IdRange {
  readonly first: number;
  readonly count: number;
}

/** The credentials with which the process was started. */
export const serverCreds: Credentials = Object.freeze({ uid: -1, gid: -1, groups: [] });

/** For whom calls are submitted to the addon's pool. */
export interface Submitter {
  /** The session's queue: the pool serves queues in turns and runs few calls of each. 0 is the server's, without that bound. */
  readonly queue: number;
  /**
   * A call was queued. `withdraw` removes it unless a thread has begun it, and returns whether it did; the call then fails with
   * ECANCELED.
   */
  submitted?(withdraw: () => boolean): void;
}

/** Calls of the server for itself. */
export const noSession: Submitter = Object.freeze({ queue: 0 });

/** A time for utimensat: seconds and nanoseconds (the file system keeps the nearest it can), the current time, or unchanged. */
export type Time = { readonly sec: number; readonly nsec: number } | 'now' | 'omit';

/**
 * The system calls of a tree, each on a descriptor and at most one checked name. Throws (or rejects with) the `Errno` of a
 * failure, unless a method returns −errno. Retries on EINTR.
 *
 * A call may wait on a pool thread, so it takes `Owned` memory. `InlineSyscalls` are done when they return, and take any
 * memory.
 */
export interface Syscalls {
  /**
   * openat2(O_PATH|O_NOFOLLOW|O_CLOEXEC, RESOLVE_BENEATH|NO_SYMLINKS|NO_MAGICLINKS). Returns the fd, or −errno: −EXDEV from calls
   * that are limited to one file system, if `name` is a mount point.
   */
  lookup(creds: Credentials, dirfd: number, name: Name): MaybePromise<number>;
  /**
   * open("/proc/self/fd/FD", flags|O_CLOEXEC|O_NOCTTY|O_NONBLOCK): the object itself, unlinked or not. Waits until a lease
   * on a regular file is broken.
   */
  reopen(creds: Credentials, fd: number, flags: number): MaybePromise<number>;
  /** openat2 with O_CREAT|O_NOFOLLOW|O_CLOEXEC|O_NOCTTY|O_NONBLOCK and the flags given; host flag values. */
  create(creds: Credentials, dirfd: number, name: Name, flags: number, mode: number): MaybePromise<number>;
  /** openat(dirfd, ".", O_TMPFILE|O_RDWR|O_CLOEXEC): an unnamed file, named by `link`. */
  createUnnamed(creds: Credentials, dirfd: number, mode: number): MaybePromise<number>;
  /** close(2). Never throws. */
  close(fd: number): MaybePromise<void>;

  /** statx(fd, "", AT_EMPTY_PATH) into the record of attr.ts; fills valid, qid type and path (the raw inode number). */
  stat(creds: Credentials, fd: number, attr: Attr): MaybePromise<void>;
  /** statx(dirfd, name, AT_SYMLINK_NOFOLLOW). Returns 0, or −errno. */
  statAt(creds: Credentials, dirfd: number, name: Name, attr: Attr): MaybePromise<number>;
  /** fstatfs into 64 bytes: the 60 of Rstatfs in wire order (bsize is f_frsize, type the host's f_type). */
  statfs(creds: Credentials, fd: number, into: Owned): MaybePromise<void>;

  mkdir(creds: Credentials, dirfd: number, name: Name, mode: number): MaybePromise<void>;
  /** mknodat; rdev as new_encode_dev. */
  mknod(creds: Credentials, dirfd: number, name: Name, mode: number, rdev: number): MaybePromise<void>;
  symlink(creds: Credentials, dirfd: number, name: Name, target: Bytes): MaybePromise<void>;
  /** linkat(AT_FDCWD, "/proc/self/fd/FD", dirfd, name, AT_SYMLINK_FOLLOW): names the object itself, symlinks included. */
  link(creds: Credentials, fd: number, dirfd: number, name: Name): MaybePromise<void>;
  /** renameat2; flags are the host's RENAME_*. */
  rename(
    creds: Credentials,
    fromfd: number,
    from: Name,
    tofd: number,
    to: Name,
    flags: number,
  ): MaybePromise<void>;
  /** unlinkat; `directory` is AT_REMOVEDIR. */
  unlink(creds: Credentials, dirfd: number, name: Name, directory: boolean): MaybePromise<void>;
  /** readlinkat(fd, ""). */
  readlink(creds: Credentials, fd: number): MaybePromise<Bytes>;

  /** chmod by descriptor, O_PATH included (fchmodat2 with AT_EMPTY_PATH, or /proc/self/fd on kernels before 6.6). */
  chmod(creds: Credentials, fd: number, mode: number): MaybePromise<void>;
  /** fchownat(fd, "", AT_EMPTY_PATH); −1 leaves an id as it is. */
  chown(creds: Credentials, fd: number, uid: number, gid: number): MaybePromise<void>;
  /** utimensat(fd, "", AT_EMPTY_PATH). */
  utimens(creds: Credentials, fd: number, atime: Time, mtime: Time): MaybePromise<void>;
  /** ftruncate on a descriptor opened for writing. */
  ftruncate(creds: Credentials, fd: number, size: number): MaybePromise<void>;
  /** truncate("/proc/self/fd/FD"): for O_PATH and read-only descriptors; needs write permission. */
  truncate(creds: Credentials, fd: number, size: number): MaybePromise<void>;

  /** preadv; bytes read, 0 at the end of the file. One segment takes pread. */
  read(creds: Credentials, fd: number, into: OwnedSegments, offset: number): MaybePromise<number>;
  /** pwritev; bytes written. One segment takes pwrite. */
  write(creds: Credentials, fd: number, from: OwnedSegments, offset: number): MaybePromise<number>;
  fsync(creds: Credentials, fd: number, dataOnly: boolean): MaybePromise<void>;

  /**
   * Packs directory entries from `cookie` (d_off) on as whole 9P entries (qid[13] offset[8] type[1] name[s]). qid.path is the
   * raw inode number, qid.version 0. `hide` is a prefix, and further names each after a
   * `/`: leaves out names that start with the prefix, unless it is empty, and those names, in any ASCII case. With a `typeXattr`, a regular
   * file of the host has the type of that xattr (a mode, u32 little-endian), if it has one. Returns the bytes packed, with
   * READDIR_HID set if a name with the prefix was left out; 0 at the end; EINVAL if the first entry does not fit.
   */
  readdir(
    creds: Credentials,
    fd: number,
    cookieLow: number,
    cookieHigh: number,
    into: Owned,
    hide: Bytes,
    typeXattr: Bytes,
  ): MaybePromise<number>;

  /** getxattr by descriptor, O_PATH included. Bytes of the value, or −errno. */
  getxattr(creds: Credentials, fd: number, name: Bytes, into: Owned): MaybePromise<number>;
  /** listxattr by descriptor: NUL-terminated names. Bytes, or −errno. */
  listxattr(creds: Credentials, fd: number, into: Owned): MaybePromise<number>;
  /** setxattr by descriptor; flags XATTR_CREATE 1, XATTR_REPLACE 2. */
  setxattr(creds: Credentials, fd: number, name: Bytes, value: Owned, flags: number): MaybePromise<void>;
  removexattr(creds: Credentials, fd: number, name: Bytes): MaybePromise<void>;

  /**
   * fcntl(F_OFD_SETLK): never waits. type: 0 read, 1 write, 2 unlock; length 0 means to the end. False if another descriptor
   * has a conflicting lock.
   */
  lock(creds: Credentials, fd: number, type: number, start: number, length: number): MaybePromise<boolean>;
  /** fcntl(F_OFD_GETLK). A conflicting lock (pid −1 for an OFD lock), or undefined. */
  testLock(
    creds: Credentials,
    fd: number,
    type: number,
    start: number,
    length: number,
  ): MaybePromise<HostLock | undefined>;

  /** flock(LOCK_EX | LOCK_NB) of an open file or directory, until it is closed. False if another open file has a lock. */
  flock(creds: Credentials, fd: number): MaybePromise<boolean>;

  /** name_to_handle_at(fd, "", AT_EMPTY_PATH): type and bytes in one string; undefined if unsupported. */
  handle(fd: number): MaybePromise<Bytes | undefined>;
  /** open_by_handle_at(mountfd, handle, O_PATH|O_NOFOLLOW|O_CLOEXEC) with `serverCreds`. Returns the fd, or −errno. */
  openHandle(mountfd: number, handle: Bytes): MaybePromise<number>;
}

/**
 * Calls that use memory only until they return. Those that read are done by then. Those that change may return a promise, and
 * have then copied their data, which is at most `handOffBytesMax` bytes.
 */
export interface InlineSyscalls extends Syscalls {
  stat(creds: Credentials, fd: number, attr: Attr): void;
  read(creds: Credentials, fd: number, into: Segments, offset: number): number;
  /**
   * preadv2 with RWF_NOWAIT: bytes read, up to the end of the file, all from memory. −EAGAIN if part is on the disk,
   * −EOPNOTSUPP if the file system does not support it.
   */
  readCached(creds: Credentials, fd: number, into: Segments, offset: number): number;
  write(creds: Credentials, fd: number, from: Segments, offset: number): MaybePromise<number>;
  readdir(
    creds: Credentials,
    fd: number,
    cookieLow: number,
    cookieHigh: number,
    into: Uint8Array,
    hide: Bytes,
    typeXattr: Bytes,
  ): number;
  getxattr(creds: Credentials, fd: number, name: Bytes, into: Uint8Array): number;
  setxattr(creds: Credentials, fd: number, name: Bytes, value: Uint8Array, flags: number): MaybePromise<void>;
}

export interface HostLock {
  readonly type: number;
  readonly start: number;
  readonly length: number;
  readonly pid: number;
}
