import { andThen } from '../../answer.ts';
import { EBADF, EFBIG, EINVAL, EIO, EISDIR } from '../../errno.ts';
import { lengthOf } from '../segments.ts';
import { done, type Handlers } from './handler.ts';
import { readXattr, writeXattr } from './xattrs.ts';

export const files: Handlers<'read' | 'write' | 'fsync'> = {
  read(session, { fid: number, offset, count }, exchange) {
    const fid = session.fids.get(number);
    const { use } = fid;
    const wanted = Math.min(count, session.dataBytesMax);
    if (use.kind === 'xattr-read') return { data: readXattr(use, offset, wanted) };
    if (use.kind === 'dir') throw EISDIR;
    if (use.kind !== 'file' || !use.file.readable) throw EBADF;
    if (wanted === 0) return { data: { count: 0 } };
    // What waits reads into memory of its own: flushed, it is not waited for, and must not write where others read by then.
    let bytes: Buffer | undefined;
    const late = () => {
      bytes ??= session.aside(wanted);
      return [bytes];
    };
    const into = use.file.atOnce ? exchange.space(wanted) : late();
    const read = fid.attachment.tree.read(use.file, into, offset, late);
    return andThen(read, got => ({ data: bytes ? { count: got, bytes } : { count: got } }));
  },

  write(session, { fid: number, offset, data: { count } }, exchange) {
    const fid = session.fids.get(number);
    const { use } = fid;
    const { payload } = exchange;
    if (lengthOf(payload) !== count) throw EINVAL;
    if (use.kind === 'xattr-write') return { count: writeXattr(use, offset, payload, count) };
    if (use.kind !== 'file' || !use.file.writable) throw EBADF;
    if (count === 0) return { count };
    if (offset > Number.MAX_SAFE_INTEGER - count) throw EFBIG;
    const from = use.file.atOnce ? payload : session.keep(exchange).payload;
    const { tree, actor } = fid.attachment;
    return andThen(tree.write(actor, use.file, from, offset), written => {
      // fs/9p before 6.8 repeats a write that was answered with 0 for ever.
      if (written === 0) throw EIO;
      return { count: written };
    });
  },

  fsync(session, { fid: number, datasync }) {
    const { attachment, use } = session.fids.get(number);
    if (use.kind !== 'file' && use.kind !== 'dir') throw EBADF;
    const open = use.kind === 'file' ? use.file : use.dir;
    return andThen(attachment.tree.sync(open, datasync !== 0), () => done);
  },
};
