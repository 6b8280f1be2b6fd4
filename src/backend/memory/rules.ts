import { S_IFDIR, S_IFLNK } from '#base/attr.ts';
import { EEXIST, EISDIR, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, ENXIO } from '#base/errno.ts';
import type { Name } from '#base/name.ts';
import type { Credentials } from '#host/syscalls.ts';
import type { NewNode } from '../tree.ts';
import type { Entries } from './entries.ts';
import type { InitialState, MemoryNode } from './memory-node.ts';
import type { Pages } from './pages.ts';

/** The content of a regular file; for other types the errno of open(2). */
export function pagesOf(node: MemoryNode): Pages {
  if (node.pages) return node.pages;
  if (node.type === S_IFLNK) throw ELOOP;
  throw node.type === S_IFDIR ? EISDIR : ENXIO;
}

export function entriesOf(node: MemoryNode): Entries<MemoryNode> {
  if (!node.entries) throw ENOTDIR;
  return node.entries;
}

/** The entries of a directory that gets a new name. EEXIST if it has the name, ENOENT if the directory was removed. */
export function entriesToAddTo(dir: MemoryNode, name: Name): Entries<MemoryNode> {
  const entries = entriesOf(dir);
  if (entries.get(name)) throw EEXIST;
  if (dir.nlink === 0) throw ENOENT;
  return entries;
}

/** Whether `dir` is `top` or below it. */
export function isWithin(dir: MemoryNode, top: MemoryNode): boolean {
  for (let at = dir; ; at = at.parent!) {
    if (at === top) return true;
    if (at.parent === at) return false;
  }
}

/** may_delete of fs/namei.c: a directory may replace an empty directory only, anything else a non-directory only. */
export function refuseToReplace(moved: MemoryNode, victim: MemoryNode): void {
  if (moved.entries && !victim.entries) throw ENOTDIR;
  if (!moved.entries && victim.entries) throw EISDIR;
  if (victim.entries && victim.entries.count > 0) throw ENOTEMPTY;
}

/** The initial state of an object for `make`. */
export function initialStateOf(what: NewNode, creds: Credentials): InitialState {
  const owner = { uid: creds.uid, gid: what.gid };
  if (what.type === 'directory') return { ...owner, mode: S_IFDIR | (what.mode & 0o7777) };
  if (what.type === 'special') return { ...owner, mode: what.mode, rdev: what.rdev };
  // symlink(2): an empty target is ENOENT.
  if (what.target === '') throw ENOENT;
  return { ...owner, mode: S_IFLNK | 0o777, target: what.target };
}
