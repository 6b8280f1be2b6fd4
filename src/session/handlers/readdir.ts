import { EBADF, EINVAL, ENOTDIR } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { DirUse } from '../fids.ts';
import type { Handlers } from './handler.ts';

/** Runs `list` after the directory's running listing: an open directory has one position on the host. */
function serialized<T>(use: DirUse, list: () => MaybePromise<T>): MaybePromise<T> {
  const listed = use.running ? use.running.then(list) : list();
  if (listed instanceof Promise) {
    const clear = () => {
      if (use.running === tail) use.running = undefined;
    };
    const tail: Promise<unknown> = listed.then(clear, clear);
    use.running = tail;
  }
  return listed;
}

export const directories = {
  readdir(request, { fid: number, offset, count: most }) {
    const fid = request.fid(number);
    const { use } = fid;
    if (use.kind === 'file') throw ENOTDIR;
    if (use.kind !== 'dir') throw EBADF;
    const wanted = Math.min(most, request.session.dataBytesMax);
    // Rreaddir with 0 bytes means the end of the directory.
    if (wanted === 0) throw EINVAL;
    const { attachment } = fid;
    const { tree } = attachment;
    if (!use.running && tree.readdirNow) {
      const [space] = request.exchange.reserveData(wanted);
      const count = tree.readdirNow(use.dir, offset.low, offset.high, space!);
      if (count !== undefined) return { data: { count } };
    }
    const bytes = request.allocData(wanted);
    return serialized(use, () =>
      andThen(tree.readdir(request.as(attachment), use.dir, offset.low, offset.high, bytes), count => ({
        data: { count, bytes },
      })),
    );
  },
} satisfies Partial<Handlers>;
