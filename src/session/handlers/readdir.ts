import { EBADF, EINVAL, ENOTDIR } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { DirUse } from '../fids.ts';
import type { Handlers } from './handler.ts';

/** A directory has one position on the host, so its listings are made one after another. */
function inTurn<T>(use: DirUse, list: () => MaybePromise<T>): MaybePromise<T> {
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
  readdir(request, { fid: number, offset, count: most }) {
    const fid = request.fid(number);
    const { use } = fid;
    if (use.kind === 'file') throw ENOTDIR;
    if (use.kind !== 'dir') throw EBADF;
    const wanted = Math.min(most, request.session.dataBytesMax);
    // A reply of 0 bytes would mean the end of the directory.
    if (wanted === 0) throw EINVAL;
    const { tree } = fid.attachment;
    if (!use.running && tree.readdirNow) {
      const [space] = request.exchange.reserveData(wanted);
      const count = tree.readdirNow(use.dir, offset.low, offset.high, space!);
      if (count !== undefined) return { data: { count } };
    }
    const bytes = request.allocData(wanted);
    return inTurn(use, () =>
      andThen(tree.readdir(use.dir, offset.low, offset.high, bytes), count => ({ data: { count, bytes } })),
    );
  },
};
