/** `ninepd/backend`: what a backend is made of. Loads no native code. */

export {
  Attr,
  encodeDevice,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  S_ISGID,
  S_ISUID,
  stampOf,
  type TimeSpec,
} from '#base/attr.ts';
export * from '#base/errno.ts';
export type { MaybePromise } from '#base/maybe-promise.ts';
export { type Bytes, type Name, nameOf } from '#base/name.ts';
export {
  allocOwned,
  asOwned,
  copyOwned,
  lengthOf,
  type Owned,
  type OwnedSegments,
  type Segments,
  spread,
} from '#base/owned.ts';
export { type Credentials, noSession, type Submitter, serverCreds, type Time } from '#host/syscalls.ts';
export { FdBudget, type FdHolder } from '#quota/fd-budget.ts';
export { PinnedFds } from '#quota/pinned-fds.ts';
export type * from '../tree.ts';
export { DirentPacker } from './dirent-packer.ts';
export {
  type Item,
  type ItemAttributes,
  ReadOnlyTree,
  type ReadOnlyTreeOptions,
} from './read-only-tree.ts';
export { type StatfsNumbers, writeStatfs } from './statfs.ts';
