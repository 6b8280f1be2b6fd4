import { setU64 } from '#base/attr.ts';
import {
  STATFS_BAVAIL,
  STATFS_BFREE,
  STATFS_BLOCKS,
  STATFS_BSIZE,
  STATFS_FFREE,
  STATFS_FILES,
  STATFS_FSID,
  STATFS_NAMELEN,
  STATFS_TYPE,
} from '#base/layout.ts';
import { nameBytesMax } from '#base/name.ts';
import { V9FS_MAGIC } from '#protocol/constants.ts';

/** What statfs(2) tells of a tree; absent numbers are 0. */
export interface StatfsNumbers {
  /** f_bsize, the unit of `blocks`. Default: 4096. */
  readonly blockBytes?: number;
  readonly blocks?: number;
  readonly blocksFree?: number;
  /** Objects, and how many more there may be. */
  readonly files?: number;
  readonly filesFree?: number;
}

/** Writes the body of Rstatfs, for `Tree.statfs`. */
export function writeStatfs(into: Buffer, numbers: StatfsNumbers): void {
  const { blockBytes = 4096, blocks = 0, blocksFree = 0, files = 0, filesFree = 0 } = numbers;
  into.writeUInt32LE(V9FS_MAGIC, STATFS_TYPE);
  into.writeUInt32LE(blockBytes, STATFS_BSIZE);
  setU64(into, STATFS_BLOCKS, blocks);
  setU64(into, STATFS_BFREE, blocksFree);
  setU64(into, STATFS_BAVAIL, blocksFree);
  setU64(into, STATFS_FILES, files);
  setU64(into, STATFS_FFREE, filesFree);
  setU64(into, STATFS_FSID, 0);
  into.writeUInt32LE(nameBytesMax, STATFS_NAMELEN);
}
