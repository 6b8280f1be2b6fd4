import { type Answer, andThen } from '../../answer.ts';
import { EBADF, EINVAL, ENOTDIR } from '../../errno.ts';
import type { Data, Wide } from '../../protocol/kinds.ts';
import type { DirUse, Fid } from '../fids.ts';
import type { Handlers } from './handler.ts';

/** Into memory of its own, as a file is read that may wait. */
function listAside({ attachment }: Fid, use: DirUse, offset: Wide, count: number): Answer<{ data: Data }> {
  const bytes = Buffer.allocUnsafe(count);
  const listed = attachment.tree.readdir(use.dir, offset.low, offset.high, bytes);
  return andThen(listed, packed => ({ data: { count: packed, bytes } }));
}

/** A directory has one position on the host, so its listings are made one after another. */
function inTurn<T>(use: DirUse, list: () => Answer<T>): Answer<T> {
  const listed = use.running ? use.running.then(list) : list();
  if (listed instanceof Promise) {
    const over = () => {
      if (use.running === mine) use.running = undefined;
    };
    const mine: Promise<unknown> = listed.then(over, over);
    use.running = mine;
  }
  return listed;
}

export const directories: Handlers<'readdir'> = {
  readdir(session, { fid: number, offset, count }, exchange) {
    const fid = session.fids.get(number);
    const { use } = fid;
    if (use.kind === 'file') throw ENOTDIR;
    if (use.kind !== 'dir') throw EBADF;
    const wanted = Math.min(count, session.dataBytesMax);
    // A reply of 0 bytes would mean the end of the directory.
    if (wanted === 0) throw EINVAL;
    if (!use.dir.atOnce || use.running) return inTurn(use, () => listAside(fid, use, offset, wanted));
    const { tree } = fid.attachment;
    const [into] = exchange.space(wanted);
    const listed = into?.length === wanted ? tree.readdir(use.dir, offset.low, offset.high, into) : undefined;
    if (listed === undefined) return listAside(fid, use, offset, wanted);
    return andThen(listed, packed => ({ data: { count: packed } }));
  },
};
