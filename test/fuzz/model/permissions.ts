/** The kernel's permission checks: inode_permission and its callers in fs/namei.c and fs/attr.c. */
import { FILE, type ModelNode, refuse, type User } from './nodes.ts';

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

export function owns(user: User, node: ModelNode): boolean {
  return isRoot(user) || user.uid === node.uid;
}

export function may(user: User, node: ModelNode, wanted: number): boolean {
  if (isRoot(user)) return true;
  const shift = user.uid === node.uid ? 6 : isIn(user, node.gid) ? 3 : 0;
  return ((node.mode >> shift) & wanted) === wanted;
}

export function need(user: User, node: ModelNode, wanted: number): void {
  if (!may(user, node, wanted)) refuse('EACCES');
}

/** __check_sticky: only its owner and the directory's owner may remove an entry of a sticky directory. */
export function needToRemove(user: User, dir: ModelNode, victim: ModelNode): void {
  need(user, dir, WRITE | EXEC);
  if ((dir.mode & 0o1000) !== 0 && !owns(user, victim) && !owns(user, dir)) refuse('EPERM');
}

/** may_linkat, with protected_hardlinks. */
export function needToLink(user: User, node: ModelNode, ...others: readonly string[]): void {
  const safe =
    node.type === FILE &&
    (node.mode & 0o4000) === 0 &&
    (node.mode & 0o2010) !== 0o2010 &&
    may(user, node, READ | WRITE);
  if (!owns(user, node) && !safe) refuse('EPERM', ...others);
}

/** chown_ok and chgrp_ok of fs/attr.c. */
export function needToChown(
  user: User,
  node: ModelNode,
  uid: number | undefined,
  gid: number | undefined,
): void {
  if (isRoot(user)) return;
  const owner = user.uid === node.uid;
  if (uid !== undefined && !(owner && uid === node.uid)) refuse('EPERM');
  if (gid !== undefined && !(owner && (isIn(user, gid) || gid === node.gid))) refuse('EPERM');
}

/** utimensat(2): with write permission both times may be set to now; anything else needs the owner. */
export function needToSetTimes(user: User, node: ModelNode, bothNow: boolean): void {
  if (owns(user, node)) return;
  if (!bothNow) refuse('EPERM');
  need(user, node, WRITE);
}

/** xattr(7), user.*: the permissions of the content; on a sticky directory only its owner changes them. */
export function needForUserXattr(user: User, node: ModelNode, use: 'get' | 'set'): void {
  if (use === 'set' && node.isDirectory && (node.mode & 0o1000) !== 0 && !owns(user, node)) refuse('EPERM');
  need(user, node, use === 'get' ? READ : WRITE);
}
