import { EBADF, EFBIG, EINVAL, EIO, EISDIR } from '#base/errno.ts';
import { andThen } from '#base/maybe-promise.ts';
import { lengthOf } from '#base/owned.ts';
import { done, type Handlers } from './handler.ts';
import { readXattr, writeXattr } from './xattr.ts';

/** EIO for 0 bytes: fs/9p before Linux 6.8 repeats a write with reply 0 forever. */
function written(count: number): { count: number } {
  if (count === 0) throw EIO;
  return { count };
}

export const files = {
  read(request, { fid: number, offset, count }) {
    const fid = request.fid(number);
    const { use } = fid;
    const wanted = Math.min(count, request.session.dataBytesMax);
    if (use.kind === 'xattr-read') return { data: readXattr(use, offset, wanted) };
    if (use.kind === 'dir') throw EISDIR;
    if (use.kind !== 'file' || !use.file.readable) throw EBADF;
    if (wanted === 0) return { data: { count: 0 } };
    const { attachment } = fid;
    const { tree } = attachment;
    const now = tree.readNow?.(use.file, request.exchange.reserveData(wanted), offset);
    if (now !== undefined) return { data: { count: now } };
    // Not the exchange's memory: a flushed read's exchange is dropped while the read still runs.
    const bytes = request.allocData(wanted);
    return andThen(tree.read(request.as(attachment), use.file, [bytes], offset), count => ({
      data: { count, bytes },
    }));
  },

  write(request, { fid: number, offset, data: { count } }) {
    const fid = request.fid(number);
    const { use } = fid;
    const { payload } = request.exchange;
    if (lengthOf(payload) !== count) throw EINVAL;
    if (use.kind === 'xattr-write') return { count: writeXattr(use, offset, payload, count) };
    if (use.kind !== 'file' || !use.file.writable) throw EBADF;
    if (count === 0) return { count };
    if (offset > Number.MAX_SAFE_INTEGER - count) throw EFBIG;
    const { tree } = fid.attachment;
    const ctx = request.as(fid.attachment);
    const now = tree.writeNow?.(ctx, use.file, payload, offset);
    if (now !== undefined) return andThen(now, written);
    const owned = request.detachPayload();
    return andThen(tree.write(ctx, use.file, owned, offset), written);
  },

  async fsync(request, { fid: number, datasync }) {
    const { attachment, use } = request.fid(number);
    if (use.kind !== 'file' && use.kind !== 'dir') throw EBADF;
    const open = use.kind === 'file' ? use.file : use.dir;
    await attachment.tree.sync(request.as(attachment), open, datasync !== 0);
    return done;
  },
} satisfies Partial<Handlers>;
