import { EBADF, ECANCELED, EINVAL } from '#base/errno.ts';
import type { Bytes } from '#base/name.ts';
import {
  P9_LOCK_BLOCK,
  P9_LOCK_BLOCKED,
  P9_LOCK_RDLCK,
  P9_LOCK_RECLAIM,
  P9_LOCK_SUCCESS,
  P9_LOCK_UNLCK,
  P9_LOCK_WRLCK,
} from '#protocol/constants.ts';
import { lockClientIdBytesMax } from '#quota/limits.ts';
import type { Fid, FileUse } from '../fids.ts';
import type { LockedRange } from '../locks/lock-client.ts';
import type { Handlers } from './handler.ts';

function openFile(fid: Fid): FileUse {
  if (fid.use.kind !== 'file') throw EBADF;
  return fid.use;
}

/** The first `lockClientIdBytesMax` bytes, copied: a slice would keep the whole string in memory as long as the lock. */
function copyClientId(clientId: Bytes): Bytes {
  return Buffer.from(clientId.slice(0, lockClientIdBytesMax), 'latin1').toString('latin1');
}

function rangeOf(type: number, start: number, length: number): LockedRange {
  if (type !== P9_LOCK_RDLCK && type !== P9_LOCK_WRLCK && type !== P9_LOCK_UNLCK) throw EINVAL;
  if (!Number.isSafeInteger(start + length)) throw EINVAL;
  return { type, start, length };
}

export const locks = {
  async lock(request, { fid: number, type, flags, start, length, proc_id, client_id }) {
    const fid = request.fid(number);
    const use = openFile(fid);
    const range = rangeOf(type, start, length);
    if ((flags & ~(P9_LOCK_BLOCK | P9_LOCK_RECLAIM)) !== 0) throw EINVAL;
    const { tree } = fid.attachment;
    const block = (flags & P9_LOCK_BLOCK) !== 0;
    const clientId = copyClientId(client_id);
    use.locked = true;
    const asked = request.session.locks.ask(tree, use, range, block, clientId, proc_id);
    if (block) request.cancel = () => request.session.locks.cancel(tree, asked);
    const outcome = await asked.outcome;
    if (outcome === 'cancelled') throw ECANCELED;
    return { status: outcome === 'granted' ? P9_LOCK_SUCCESS : P9_LOCK_BLOCKED };
  },

  async getlock(request, { fid: number, type, start, length, proc_id, client_id }) {
    const fid = request.fid(number);
    const use = openFile(fid);
    const clientId = copyClientId(client_id);
    // fs/9p always sends UNLCK in Tgetlock. Treat it as a write lock, which conflicts with any lock.
    const asked = rangeOf(type, start, length);
    const range: LockedRange = asked.type === P9_LOCK_UNLCK ? { ...asked, type: P9_LOCK_WRLCK } : asked;
    const { tree } = fid.attachment;
    const ctx = request.as(fid.attachment);
    const lock = await request.session.locks.test(ctx, tree, use, range, clientId, proc_id);
    if (!lock) return { type: P9_LOCK_UNLCK, start, length, proc_id, client_id: clientId };
    const { type: held, procId, clientId: holder } = lock;
    return { type: held, start: lock.start, length: lock.length, proc_id: procId, client_id: holder };
  },
} satisfies Partial<Handlers>;
