/** Who may do what, where the server leaves that to the kernel: inode_permission and its callers in fs/namei.c and fs/attr.c. */
import { FILE, refuse, type Thing, type User } from './things.ts';

export const EXEC = 1;
export const WRITE = 2;
export const READ = 4;

const isRoot = ({ uid }: User) => uid === 0;

export function isIn({ gid, groups }: User, other: number): boolean {
  return gid === other || groups.includes(other);
}

/** in_group_or_capable of fs/inode.c: CAP_FSETID is root's. */
export function isInOrRoot(user: User, gid: number): boolean {
  return isRoot(user) || isIn(user, gid);
}

export function owns(user: User, thing: Thing): boolean {
  return isRoot(user) || user.uid === thing.uid;
}

export function may(user: User, thing: Thing, wanted: number): boolean {
  if (isRoot(user)) return true;
  const shift = user.uid === thing.uid ? 6 : isIn(user, thing.gid) ? 3 : 0;
  return ((thing.mode >> shift) & wanted) === wanted;
}

export function need(user: User, thing: Thing, wanted: number): void {
  if (!may(user, thing, wanted)) refuse('EACCES');
}

/** __check_sticky: what is in a sticky directory is its owner's and the directory's owner's to remove. */
export function needToRemove(user: User, dir: Thing, victim: Thing): void {
  need(user, dir, WRITE | EXEC);
  if ((dir.mode & 0o1000) !== 0 && !owns(user, victim) && !owns(user, dir)) refuse('EPERM');
}

/** may_linkat, where hard links are protected. */
export function needToLink(user: User, thing: Thing, ...others: readonly string[]): void {
  const safe =
    thing.type === FILE &&
    (thing.mode & 0o4000) === 0 &&
    (thing.mode & 0o2010) !== 0o2010 &&
    may(user, thing, READ | WRITE);
  if (!owns(user, thing) && !safe) refuse('EPERM', ...others);
}

/** chown_ok and chgrp_ok of fs/attr.c. */
export function needToChown(
  user: User,
  thing: Thing,
  uid: number | undefined,
  gid: number | undefined,
): void {
  if (isRoot(user)) return;
  const owner = user.uid === thing.uid;
  if (uid !== undefined && !(owner && uid === thing.uid)) refuse('EPERM');
  if (gid !== undefined && !(owner && (isIn(user, gid) || gid === thing.gid))) refuse('EPERM');
}

/** utimensat(2): who may write may set both to now, and all else is the owner's. */
export function needToSetTimes(user: User, thing: Thing, bothNow: boolean): void {
  if (owns(user, thing)) return;
  if (!bothNow) refuse('EPERM');
  need(user, thing, WRITE);
}

/** xattr(7), of user.*: what the content's permissions are; and in a sticky directory's own only its owner changes them. */
export function needForUserXattr(user: User, thing: Thing, use: 'get' | 'set'): void {
  if (use === 'set' && thing.isDirectory && (thing.mode & 0o1000) !== 0 && !owns(user, thing))
    refuse('EPERM');
  need(user, thing, use === 'get' ? READ : WRITE);
}
