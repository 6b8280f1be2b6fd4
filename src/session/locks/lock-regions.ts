import type { OpenFile } from '#backend/tree.ts';
import { P9_LOCK_WRLCK } from '#protocol/constants.ts';

/** The open fid through which a lock was taken; compared by identity. */
export interface LockedThrough {
  readonly file: OpenFile;
}

/**
 * A locked byte range, as fcntl(2) keeps them: regions of one owner never overlap; a new one replaces what it covers and merges
 * with adjacent ones of its type.
 */
export interface Region<Owner> {
  readonly owner: Owner;
  /** 0 read, 1 write. */
  readonly type: 0 | 1;
  readonly start: number;
  /** Exclusive; Infinity means the end of the file, however large. */
  readonly end: number;
  /** The region is released when this fid is clunked. */
  readonly through: LockedThrough;
  /** See `FileLockTable`. */
  doubtful: boolean;
}

export function overlaps(a: { start: number; end: number }, b: { start: number; end: number }): boolean {
  return a.start < b.end && b.start < a.end;
}

/** Whether two regions overlap, have different owners, and at least one is a write lock. */
export function conflict<O>(
  a: { owner: O; type: number; start: number; end: number },
  b: { owner: O; type: number; start: number; end: number },
): boolean {
  return a.owner !== b.owner && (a.type === P9_LOCK_WRLCK || b.type === P9_LOCK_WRLCK) && overlaps(a, b);
}

/** The regions without the owner's locks in [start, end); a region that reaches beyond it is cut or split. */
export function subtract<O>(
  regions: readonly Region<O>[],
  owner: O,
  start: number,
  end: number,
): Region<O>[] {
  const rest: Region<O>[] = [];
  for (const region of regions) {
    if (region.owner !== owner || !overlaps(region, { start, end })) {
      rest.push(region);
      continue;
    }
    if (region.start < start) rest.push({ ...region, end: start });
    if (region.end > end) rest.push({ ...region, start: end });
  }
  return rest;
}

/** The regions with `added`, which replaces what it covers and merges with adjacent regions of its owner, type and fid. */
export function add<O>(regions: readonly Region<O>[], added: Region<O>): Region<O>[] {
  let { start, end } = added;
  const rest: Region<O>[] = [];
  for (const region of subtract(regions, added.owner, start, end)) {
    const joins =
      region.owner === added.owner &&
      region.type === added.type &&
      region.through === added.through &&
      !region.doubtful &&
      (region.end === added.start || region.start === added.end);
    if (joins) {
      start = Math.min(start, region.start);
      end = Math.max(end, region.end);
    } else rest.push(region);
  }
  rest.push({ ...added, start, end });
  return rest;
}
