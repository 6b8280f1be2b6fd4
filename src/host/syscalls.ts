import type { Attr } from '#base/attr.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Owned, OwnedSegments, Segments } from '#base/owned.ts';

/**
 * As whom a host call runs. The shim makes the thread's filesystem credentials match before the call; `serverCreds`
 * means the process as it was started. Objects are shared and never changed, so that equal callers are usually one.
 */
export interface Credentials {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups, at most NGROUPS_MAX: the call of a caller with more fails with E2BIG. */
  readonly groups: readonly number[];
}

/** The process's own credentials: nothing is switched. */
export const serverCreds: Credentials = Object.freeze({ uid: -1, gid: -1, groups: [] });

/** For whom calls are submitted to the addon's pool. */
export interface Submitter {
  /** The queue of a session's calls: the pool serves queues in turns. 0 belongs to no session, and has no bound of its own. */
  readonly queue: number;
  /**
   * A call was queued. `withdraw` removes it unless a thread has begun it, and returns whether it did; the call then fails with
   * ECANCELED.
   */
  submitted?(withdraw: () => boolean): void;
}

/** Calls of the server for itself. */
export const noSession: Submitter = Object.freeze({ queue: 0 });

/** A time for utimensat: any seconds (the file system keeps the nearest it can) and nanoseconds, the clock of now, or left as it is. */
export type Time = { readonly sec: number; readonly nsec: number } | 'now' | 'omit';

/**
 * The system calls of the tree, each on a descriptor and at most one checked name. A call runs on this thread or on a thread of
 * the addon's pool. Every call throws (or rejects with) the `Errno` of its failure, except where a method says that it
 * returns −errno. EINTR is retried. The caller is never optional.
 *
 * A call may wait, so what it reads or fills is `Owned`. `InlineSyscalls` are done when they return and take any memory.
 */
export interface Syscalls {
  /**
   * openat2(O_PATH|O_NOFOLLOW|O_CLOEXEC, RESOLVE_BENEATH|NO_SYMLINKS|NO_MAGICLINKS). Returns the fd, or −errno: −EXDEV from calls
   * that are limited to one file system, if `name` is a mount point.
   */
  lookup(creds: Credentials, dirfd: number, name: Name): MaybePromise<number>;
  /**
   * open("/proc/self/fd/FD", flags|O_CLOEXEC|O_NOCTTY|O_NONBLOCK): the object itself, also when it was unlinked. Waits until a
   * lease on a regular file is broken.
   */
  reopen(creds: Credentials, fd: number, flags: number): MaybePromise<number>;
  /** openat2 with O_CREAT|O_NOFOLLOW|O_CLOEXEC|O_NOCTTY|O_NONBLOCK and the flags given; host flag values. */
  create(creds: Credentials, dirfd: number, name: Name, flags: number, mode: number): MaybePromise<number>;
  /** openat(dirfd, ".", O_TMPFILE|O_RDWR|O_CLOEXEC): a file without a name, to be given one by `link`. */
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
  /** truncate("/proc/self/fd/FD"): for O_PATH and read-only descriptors; checks the caller's right to write. */
  truncate(creds: Credentials, fd: number, size: number): MaybePromise<void>;

  /** preadv; bytes read, 0 at the end of the file. One segment takes pread. */
  read(creds: Credentials, fd: number, into: OwnedSegments, offset: number): MaybePromise<number>;
  /** pwritev; bytes written. One segment takes pwrite. */
  write(creds: Credentials, fd: number, from: OwnedSegments, offset: number): MaybePromise<number>;
  fsync(creds: Credentials, fd: number, dataOnly: boolean): MaybePromise<void>;

  /**
   * Reads directory entries from the position `cookie` and packs them as 9P entries (qid[13] offset[8] type[1] name[s])
   * into `into`, whole entries only. qid.path is the raw inode number, qid.version 0. A name that starts with `hide` (when
   * not empty) is left out. When `typeXattr` is not empty, an entry that the host calls a regular file takes its type
   * from that xattr's 4-byte little-endian mode, if there is one.
   * Returns the bytes packed, with READDIR_HID set if a name was left out; 0 at the end; EINVAL when not even the first entry fits. Cookies are the kernel's d_off.
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

  /** getxattr by descriptor, O_PATH included. Bytes of the value, or −errno (ENODATA is an everyday answer). */
  getxattr(creds: Credentials, fd: number, name: Bytes, into: Owned): MaybePromise<number>;
  /** listxattr by descriptor: NUL-terminated names. Bytes, or −errno. */
  listxattr(creds: Credentials, fd: number, into: Owned): MaybePromise<number>;
  /** setxattr by descriptor; flags XATTR_CREATE 1, XATTR_REPLACE 2. */
  setxattr(creds: Credentials, fd: number, name: Bytes, value: Owned, flags: number): MaybePromise<void>;
  removexattr(creds: Credentials, fd: number, name: Bytes): MaybePromise<void>;

  /**
   * fcntl(F_OFD_SETLK): never waits. type 0 read, 1 write, 2 unlock; length 0 is "to the end".
   * Returns true, or false when another descriptor's lock is in the way.
   */
  lock(creds: Credentials, fd: number, type: number, start: number, length: number): MaybePromise<boolean>;
  /** fcntl(F_OFD_GETLK). The lock in the way (pid −1 for an OFD lock), or undefined. */
  testLock(
    creds: Credentials,
    fd: number,
    type: number,
    start: number,
    length: number,
  ): MaybePromise<HostLock | undefined>;

  /** name_to_handle_at(fd, "", AT_EMPTY_PATH): type and bytes packed into one string; undefined where unsupported. */
  handle(fd: number): MaybePromise<Bytes | undefined>;
  /** open_by_handle_at(mountfd, handle, O_PATH|O_NOFOLLOW|O_CLOEXEC). Runs as the server. Returns the fd, or −errno. */
  openHandle(mountfd: number, handle: Bytes): MaybePromise<number>;
}

/**
 * Calls that use memory of the current callback only until they return. Those that read are done by then; those that change
 * something may be late, and have then copied what they were given, which is `handOffBytesMax` at most.
 */
export interface InlineSyscalls extends Syscalls {
  stat(creds: Credentials, fd: number, attr: Attr): void;
  read(creds: Credentials, fd: number, into: Segments, offset: number): number;
  /**
   * preadv2 with RWF_NOWAIT: what is in memory, all of it up to the end of the file. Otherwise −errno: EAGAIN when part of
   * it is on the disk, EOPNOTSUPP when the file system cannot tell.
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
