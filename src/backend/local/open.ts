import { S_IFDIR, S_IFLNK, S_IFREG } from '#base/attr.ts';
import { EISDIR, ELOOP, ENOSPC, ENXIO } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import { lengthOf, type OwnedSegments, type Segments } from '#base/owned.ts';
import { O_APPEND, O_DSYNC, O_RDONLY, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY } from '#host/constants.ts';
import type { Credentials } from '#host/syscalls.ts';
import type { GuestForm } from '#security/model.ts';
import type { NewNode, OpenHow } from '../tree.ts';
import type { LocalNode } from './node.ts';

/** Only regular files are opened: a FIFO would block a thread, and opening a device may act (CVE-2023-2861). */
export function refuseToOpen(node: LocalNode): void {
  if (node.type === S_IFREG) return;
  if (node.type === S_IFLNK) throw ELOOP;
  if (node.type === S_IFDIR) throw EISDIR;
  throw ENXIO;
}

/** The host's open(2) flags. With O_APPEND, pwrite(2) ignores its offset and appends. */
export function openFlags(how: OpenHow): number {
  const access = how.write ? (how.read ? O_RDWR : O_WRONLY) : O_RDONLY;
  const sync = how.sync === 'sync' ? O_SYNC : how.sync === 'dsync' ? O_DSYNC : 0;
  return access | sync | (how.truncate ? O_TRUNC : 0) | (how.append ? O_APPEND : 0);
}

export function guestFormOf(what: NewNode, creds: Credentials): GuestForm {
  const owner = { uid: creds.uid, gid: what.gid };
  if (what.type === 'directory') return { ...owner, mode: S_IFDIR | what.mode, rdev: 0, target: '' };
  if (what.type === 'symlink') return { ...owner, mode: S_IFLNK | 0o777, rdev: 0, target: what.target };
  return { ...owner, mode: what.mode, rdev: what.rdev, target: '' };
}

type Write<S extends Segments> = (from: S, offset: number) => MaybePromise<number>;

/**
 * Writes all of `from`. Returns less, but more than 0, if the disk fills up midway: the next write then gets the error. ENOSPC if
 * nothing was written, since fs/9p before Linux 6.8 repeats a write with reply 0 forever.
 */
export function writeAll(write: Write<OwnedSegments>, from: OwnedSegments, offset: number) {
  return writeFrom(write, from, offset, 0, true);
}

/** As `writeAll`, with memory of the current callback: after a write that returned a promise, the rest is not written. */
export function writeAllNow(write: Write<Segments>, from: Segments, offset: number) {
  return writeFrom(write, from, offset, 0, false);
}

function writeFrom<S extends Segments>(
  write: Write<S>,
  from: S,
  offset: number,
  before: number,
  owned: boolean,
): MaybePromise<number> {
  const total = lengthOf(from);
  let written = before;
  while (written < total) {
    let more: MaybePromise<number>;
    try {
      more = write(written === 0 ? from : (without(from, written) as unknown as S), offset + written);
    } catch (error) {
      return unlessNothing(written, error);
    }
    if (more instanceof Promise) {
      const so = written;
      return more.then(
        count =>
          owned && count > 0
            ? writeFrom(write, from, offset, so + count, owned)
            : unlessNothing(so + count, ENOSPC),
        error => unlessNothing(so, error),
      );
    }
    if (more === 0) return unlessNothing(written, ENOSPC);
    written += more;
  }
  return written;
}

function unlessNothing(written: number, error: unknown): number {
  if (written === 0) throw error;
  return written;
}

/** The segments after the first `count` bytes; views of the same memory. */
function without(segments: Segments, count: number): Segments {
  const rest: Uint8Array[] = [];
  for (const segment of segments) {
    if (count >= segment.length) count -= segment.length;
    else {
      rest.push(count === 0 ? segment : segment.subarray(count));
      count = 0;
    }
  }
  return rest;
}
