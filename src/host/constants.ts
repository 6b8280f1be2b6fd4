import { addon } from './addon.ts';

/** A constant of the host's C headers. */
function host(name: string): number {
  const value = addon.constants[name];
  if (value === undefined) throw new Error(`The native addon does not export ${name}: rebuild it.`);
  return value;
}

/** open(2) flags. */
export const O_RDONLY = host('O_RDONLY');
export const O_WRONLY = host('O_WRONLY');
export const O_RDWR = host('O_RDWR');
export const O_ACCMODE = host('O_ACCMODE');
export const O_EXCL = host('O_EXCL');
export const O_TRUNC = host('O_TRUNC');
export const O_APPEND = host('O_APPEND');
export const CLOSE_REMOVED = host('CLOSE_REMOVED');
export const O_DSYNC = host('O_DSYNC');
export const O_DIRECTORY = host('O_DIRECTORY');
export const O_NOATIME = host('O_NOATIME');
export const O_SYNC = host('O_SYNC');
export const O_PATH = host('O_PATH');

/** statx(2). */
export const AT_STATX_DONT_SYNC = host('AT_STATX_DONT_SYNC');

/** openat2(2). RESOLVE_CACHED is of Linux 5.12. */
export const RESOLVE_NO_XDEV = host('RESOLVE_NO_XDEV');
export const RESOLVE_CACHED = host('RESOLVE_CACHED');

/** The most groups that a process, and so a caller, may be in: setgroups(2). */
export const NGROUPS_MAX = host('NGROUPS_MAX');

/** Set in the result of `Syscalls.readdir`. */
export const READDIR_HID = host('READDIR_HID');

/** renameat2(2). */
export const RENAME_NOREPLACE = host('RENAME_NOREPLACE');
export const RENAME_EXCHANGE = host('RENAME_EXCHANGE');

/** setxattr(2). */
export const XATTR_CREATE = host('XATTR_CREATE');
export const XATTR_REPLACE = host('XATTR_REPLACE');

/** Types of a lock, fcntl(2). */
export const F_RDLCK = host('F_RDLCK');
export const F_WRLCK = host('F_WRLCK');
export const F_UNLCK = host('F_UNLCK');

/** File systems by statfs(2)'s f_type. */
export const EXT4_SUPER_MAGIC = host('EXT4_SUPER_MAGIC');
export const XFS_SUPER_MAGIC = host('XFS_SUPER_MAGIC');
export const BTRFS_SUPER_MAGIC = host('BTRFS_SUPER_MAGIC');
export const F2FS_SUPER_MAGIC = host('F2FS_SUPER_MAGIC');
export const ZFS_SUPER_MAGIC = host('ZFS_SUPER_MAGIC');
export const BCACHEFS_SUPER_MAGIC = host('BCACHEFS_SUPER_MAGIC');
export const TMPFS_MAGIC = host('TMPFS_MAGIC');
export const RAMFS_MAGIC = host('RAMFS_MAGIC');
export const OVERLAYFS_SUPER_MAGIC = host('OVERLAYFS_SUPER_MAGIC');
export const SQUASHFS_MAGIC = host('SQUASHFS_MAGIC');
export const EROFS_SUPER_MAGIC_V1 = host('EROFS_SUPER_MAGIC_V1');
export const MSDOS_SUPER_MAGIC = host('MSDOS_SUPER_MAGIC');
export const EXFAT_SUPER_MAGIC = host('EXFAT_SUPER_MAGIC');
export const ISOFS_SUPER_MAGIC = host('ISOFS_SUPER_MAGIC');
export const FUSE_SUPER_MAGIC = host('FUSE_SUPER_MAGIC');

/** utimensat(2). */
export const UTIME_NOW = host('UTIME_NOW');
export const UTIME_OMIT = host('UTIME_OMIT');
