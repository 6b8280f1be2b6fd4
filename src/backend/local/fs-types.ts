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
  NFS_SUPER_MAGIC,
  OVERLAYFS_SUPER_MAGIC,
  RAMFS_MAGIC,
  SQUASHFS_MAGIC,
  TMPFS_MAGIC,
  XFS_SUPER_MAGIC,
  ZFS_SUPER_MAGIC,
} from '#host/constants.ts';

/**
 * What calls on a file system may wait for, which decides on which threads they run (docs/filesystems.md): `nothing`, as all of
 * it is in memory; a `disk` of this machine; `others`, such as a server or daemon, which may never reply.
 */
export type WaitsFor = 'nothing' | 'disk' | 'others';

/** By f_type of statfs(2). All others (FUSE, NFS, CephFS, SMB, 9p, unknown ones) wait for `others`. */
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

/**
 * File systems of the kernel's own state, by their numbers in linux/magic.h. Their files are not data: a write to one may set the
 * program that the kernel starts next (core_pattern), or take the machine down.
 */
const kernelState: ReadonlySet<number> = new Set([
  0x9fa0, // proc
  0x6265_6572, // sysfs
  0x6265_6570, // configfs
  0x27_e0eb, // cgroup
  0x6367_7270, // cgroup2
  0x6462_6720, // debugfs
  0x7472_6163, // tracefs
  0x7363_6673, // securityfs
  0xf97c_ff8c, // selinuxfs
  0x4341_5d53, // smackfs
  0x5a3c_69f0, // apparmorfs
  0xcafe_4a11, // bpf
  0x6165_676c, // pstore
  0xde5e_81e4, // efivarfs
  0x4249_4e4d, // binfmt_misc
  0x1cd1, // devpts
  0x765_5821, // resctrl
  0x6573_5543, // fusectl
  0x1980_0202, // mqueue
  0x6e73_6673, // nsfs
  0x6e66_7364, // nfsd
  0x6759_6969, // rpc_pipefs
  0x6c6f_6f70, // binder
  0xabba_1974, // xenfs
]);

export function isKernelState(type: number): boolean {
  return kernelState.has(type);
}

/** Whether files may have holes. If not, a write beyond the end fills the gap with zeros. */
export function hasHoles(type: number): boolean {
  return type !== MSDOS_SUPER_MAGIC && type !== EXFAT_SUPER_MAGIC;
}

/**
 * Whether an object may be found under a second, short name, as vfat, ntfs3, SMB and what FUSE makes of these do. The record of a
 * file would not be found under it, but perhaps that of another.
 */
export function hasShortNames(type: number): boolean {
  return type === MSDOS_SUPER_MAGIC || !(known.has(type) || type === NFS_SUPER_MAGIC);
}

/** Whether a name has the form of a short one (8.3), as in LONGNA~1.TXT. */
export function isShortName(name: string): boolean {
  return /^(?=[^.]{2,8}(?:\.|$))[^.]*~[0-9]+(?:\.[^.]{0,3})?\.*$/.test(name);
}

/** Whether a file handle always leads back to its object. A FUSE daemon may have forgotten it, or never reply. */
export function keepsHandles(type: number): boolean {
  return type !== FUSE_SUPER_MAGIC;
}

/**
 * File systems where every change moves ctime, of extended attributes too, and where since Linux 6.13 each change after a stat
 * gets a ctime of its own (FS_MGTIME, multigrain timestamps).
 */
const exactTypes = new Set([BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC]);
const multigrainKernel = [6, 13] as const;

/**
 * What an unchanged ctime means. `exact`: the object has not changed since it was read. `coarse`: the same, if ctime was then
 * older than a clock tick. `unknown`: nothing.
 */
export type CtimeTells = 'exact' | 'coarse' | 'unknown';

export function ctimeTells(type: number): CtimeTells {
  if (!exactTypes.has(type)) return 'unknown';
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const [wantedMajor, wantedMinor] = multigrainKernel;
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor) ? 'exact' : 'coarse';
}
