import { release } from 'node:os';
import {
  BCACHEFS_SUPER_MAGIC,
  BTRFS_SUPER_MAGIC,
  EROFS_SUPER_MAGIC_V1,
  EXFAT_SUPER_MAGIC,
  EXT4_SUPER_MAGIC,
  F2FS_SUPER_MAGIC,
  FUSE_SUPER_MAGIC,
  ISOFS_SUPER_MAGIC,
  MSDOS_SUPER_MAGIC,
  OVERLAYFS_SUPER_MAGIC,
  RAMFS_MAGIC,
  SQUASHFS_MAGIC,
  TMPFS_MAGIC,
  XFS_SUPER_MAGIC,
  ZFS_SUPER_MAGIC,
} from '#host/constants.ts';

/**
 * What a call on a file system may have to wait for, which decides on which thread it is made (docs/filesystems.md):
 * `nothing`, since all of it is in memory; a `disk` of this machine; `others`, who may never answer.
 */
export type WaitsFor = 'nothing' | 'disk' | 'others';

/** By statfs(2)'s f_type. What is not named here (FUSE, NFS, CephFS, SMB, 9p, what is unknown) waits for others. */
const known: ReadonlyMap<number, WaitsFor> = new Map([
  [RAMFS_MAGIC, 'nothing'],
  [TMPFS_MAGIC, 'nothing'],
  [BCACHEFS_SUPER_MAGIC, 'disk'],
  [BTRFS_SUPER_MAGIC, 'disk'],
  [EROFS_SUPER_MAGIC_V1, 'disk'],
  [EXFAT_SUPER_MAGIC, 'disk'],
  [EXT4_SUPER_MAGIC, 'disk'], // and ext2, ext3
  [F2FS_SUPER_MAGIC, 'disk'],
  [ISOFS_SUPER_MAGIC, 'disk'],
  [MSDOS_SUPER_MAGIC, 'disk'],
  [OVERLAYFS_SUPER_MAGIC, 'disk'],
  [SQUASHFS_MAGIC, 'disk'],
  [XFS_SUPER_MAGIC, 'disk'],
  [ZFS_SUPER_MAGIC, 'disk'],
]);

export function waitsFor(type: number): WaitsFor {
  return known.get(type) ?? 'others';
}

/** Whether a file may have holes. Elsewhere what lies between the end of a file and a write beyond it is filled with zeros. */
export function hasHoles(type: number): boolean {
  return type !== MSDOS_SUPER_MAGIC && type !== EXFAT_SUPER_MAGIC;
}

/** Whether a file handle leads back to an object for sure. A FUSE daemon may have forgotten it, or never answer. */
export function keepsHandles(type: number): boolean {
  return type !== FUSE_SUPER_MAGIC;
}

/**
 * File systems on which every change moves ctime, extended attributes included, and which since Linux 6.13 give each
 * change that follows a look a ctime of its own (FS_MGTIME, "multigrain timestamps").
 */
const exactTypes = new Set([BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC]);
const multigrainKernel = [6, 13] as const;

/**
 * What an object's ctime tells. `exact`: as long as it is the same, nothing has changed since it was looked at. `coarse`: the
 * same, if it was older than a tick of the clock then. `unknown`: nothing.
 */
export type CtimeTells = 'exact' | 'coarse' | 'unknown';

export function ctimeTells(type: number): CtimeTells {
  if (!exactTypes.has(type)) return 'unknown';
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const [wantedMajor, wantedMinor] = multigrainKernel;
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor) ? 'exact' : 'coarse';
}
