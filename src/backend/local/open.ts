import { S_IFDIR, S_IFLNK, S_IFREG } from '#base/attr.ts';
import { EISDIR, ELOOP, ENOSPC, ENXIO } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import { lengthOf, type OwnedSegments, type Segments } from '#base/owned.ts';
import { O_APPEND, O_DSYNC, O_RDONLY, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY } from '#host/constants.ts';
import type { Credentials } from '#host/syscalls.ts';
import type { GuestForm } from '#security/model.ts';
import type { NewNode, OpenHow } from '../tree.ts';
import type { LocalNode } from './node.ts';

/**
 * Only regular files are ever opened for reading and writing: a FIFO would block a thread, a device would act
 * (CVE-2023-2861).
 */
export function refuseToOpen(node: LocalNode): void {
  if (node.type === S_IFREG) return;
  if (node.type === S_IFLNK) throw ELOOP;
  if (node.type === S_IFDIR) throw EISDIR;
  throw ENXIO;
}

/** The host's open(2) flags. With O_APPEND, pwrite(2) goes to the end whatever position it is given. */
export function openFlags(how: OpenHow): number {
  const access = how.write ? (how.read ? O_RDWR : O_WRONLY) : O_RDONLY;
  const sync = how.sync === 'sync' ? O_SYNC : how.sync === 'dsync' ? O_DSYNC : 0;
  return access | sync | (how.truncate ? O_TRUNC : 0) | (how.append ? O_APPEND : 0);
}

export function wantOf(what: NewNode, creds: Credentials): GuestForm {
  const owner = { uid: creds.uid, gid: what.gid };
  if (what.type === 'directory') return { ...owner, mode: S_IFDIR | what.mode, rdev: 0, target: '' };
  if (what.type === 'symlink') return { ...owner, mode: S_IFLNK | 0o777, rdev: 0, target: what.target };
  return { ...owner, mode: what.mode, rdev: what.rdev, target: '' };
}

/**
 * Writes until all is written. When the disk fills up midway, what was written counts and the next write gets the error;
 * a write of nothing is an error, since v9fs before 6.8 repeats a write that was answered with 0 for ever.
 */
export function writeAll(
  write: (from: OwnedSegments, offset: number) => MaybePromise<number>,
  from: OwnedSegments,
  offset: number,
): MaybePromise<number> {
  const total = lengthOf(from);
  return andThen(write(from, offset), written => {
    if (written === total) return total;
    if (written === 0) throw ENOSPC;
    return writeOn(written);
  });

  function writeOn(written: number): MaybePromise<number> {
    if (written === total) return total;
    let more: MaybePromise<number>;
    try {
      more = write(without(from, written), offset + written);
    } catch {
      return written;
    }
    const goOn = (count: number) => (count === 0 ? written : writeOn(written + count));
    return more instanceof Promise ? more.then(goOn, () => written) : goOn(more);
  }
}

/** The same with memory of the current callback: what a late write has left over is not written. */
export function writeAllNow(
  write: (from: Segments, offset: number) => MaybePromise<number>,
  from: Segments,
  offset: number,
): MaybePromise<number> {
  const total = lengthOf(from);
  let written = write(from, offset);
  if (written === total) return written;
  if (written instanceof Promise) return written.then(some);
  while (some(written) < total) {
    let more: MaybePromise<number>;
    try {
      more = write(without(from, written), offset + written);
    } catch {
      return written;
    }
    const before: number = written;
    const sum = (count: number) => before + count;
    if (more instanceof Promise) return more.then(sum, () => before);
    if (more === 0) return before;
    written = sum(more);
  }
  return written;
}

function some(written: number): number {
  if (written === 0) throw ENOSPC;
  return written;
}

/** The segments behind the first `count` bytes; views of the same memory. */
function without<S extends Uint8Array>(segments: readonly S[], count: number): readonly S[] {
  const rest: S[] = [];
  for (const segment of segments) {
    if (count >= segment.length) count -= segment.length;
    else {
      rest.push(count === 0 ? segment : (segment.subarray(count) as S));
      count = 0;
    }
  }
  return rest;
}
