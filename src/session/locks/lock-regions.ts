import type { OpenFile } from '#backend/tree.ts';

/** The open fid of a lock; compared by identity. */
export interface LockedThrough {
  readonly file: OpenFile;
}

/**
 * Byte ranges as fcntl(2) keeps them: an owner's regions never overlap one another; a new one replaces what it covers,
 * and neighbours of one kind become one.
 */
export interface Region<Owner> {
  readonly owner: Owner;
  /** 0 read, 1 write. */
  readonly type: 0 | 1;
  readonly start: number;
  /** Exclusive; Infinity is the end of the file, however large. */
  readonly end: number;
  /** What it was taken through: it falls when that goes. */
  readonly through: LockedThrough;
  /** See `LockPlace`. */
  doubtful: boolean;
}

export function overlaps(a: { start: number; end: number }, b: { start: number; end: number }): boolean {
  return a.start < b.end && b.start < a.end;
}

/** Whether two regions cannot be held at once by different owners. */
export function conflict<O>(
  a: { owner: O; type: number; start: number; end: number },
  b: { owner: O; type: number; start: number; end: number },
): boolean {
  return a.owner !== b.owner && (a.type === 1 || b.type === 1) && overlaps(a, b);
}

/** The regions without the owner's share of [start, end): what sticks out at either side stays. */
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

/** The regions with `added` in place of what it covers, joined to its neighbours of the same kind. */
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
