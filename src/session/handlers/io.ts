import { EBADF, EFBIG, EINVAL, EIO, EISDIR } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import { lengthOf } from '#base/owned.ts';
import type { RMessage } from '#protocol/operations.ts';
import type { Fid } from '../fids.ts';
import type { Request } from '../request.ts';
import { done, type Handlers } from './handler.ts';
import { readXattr, writeXattr } from './xattr.ts';

/** EIO for 0 bytes: fs/9p before Linux 6.8 repeats a write with reply 0 forever. */
function written(count: number): { count: number } {
  if (count === 0) throw EIO;
  return { count };
}

/** Tread on a fid. */
export function read(
  request: Request,
  { attachment, use }: Fid,
  offset: number,
  count: number,
): MaybePromise<RMessage<'read'>> {
  const wanted = Math.min(count, request.session.dataBytesMax);
  if (use.kind === 'xattr-read') return { data: readXattr(use, offset, wanted) };
  if (use.kind === 'dir') throw EISDIR;
  if (use.kind !== 'file' || !use.file.readable) throw EBADF;
  if (wanted === 0) return { data: { count: 0 } };
  const { tree } = attachment;
  const now = tree.readNow?.(use.file, request.exchange.reserveData(wanted), offset);
  if (now !== undefined) return { data: { count: now } };
  // Not the exchange's memory: a flushed read's exchange is dropped while the read still runs.
  const bytes = request.allocData(wanted);
  return andThen(tree.read(request.as(attachment), use.file, [bytes], offset), count => ({
    data: { count, bytes },
  }));
}

/** Twrite of the exchange's payload to a fid of a writable export. */
export function write(
  request: Request,
  { attachment, use }: Fid,
  offset: number,
  count: number,
): MaybePromise<RMessage<'write'>> {
  const { payload } = request.exchange;
  if (lengthOf(payload) !== count) throw EINVAL;
  if (use.kind === 'xattr-write') return { count: writeXattr(use, offset, payload, count) };
  if (use.kind !== 'file' || !use.file.writable) throw EBADF;
  if (count === 0) return { count };
  if (offset > Number.MAX_SAFE_INTEGER - count) throw EFBIG;
  const { tree } = attachment;
  const ctx = request.as(attachment);
  const now = tree.writeNow?.(ctx, use.file, payload, offset);
  if (now !== undefined) return andThen(now, written);
  const owned = request.detachPayload();
  return andThen(tree.write(ctx, use.file, owned, offset), written);
}

export const files = {
  read(request, { fid, offset, count }) {
    return read(request, request.fid(fid), offset, count);
  },

  write(request, { fid, offset, data: { count } }) {
    return write(request, request.fid(fid), offset, count);
  },

  async fsync(request, { fid: number, datasync }) {
    const { attachment, use } = request.fid(number);
    if (use.kind !== 'file' && use.kind !== 'dir') throw EBADF;
    const open = use.kind === 'file' ? use.file : use.dir;
    await attachment.tree.sync(request.as(attachment), open, datasync !== 0);
    return done;
  },
} satisfies Partial<Handlers>;
