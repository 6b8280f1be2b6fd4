import type { Fid, Fids, FileUse } from './fids.ts';
import type { LockClient } from './locks/lock-client.ts';

/**
 * Lets go of all that a session holds. Locks are given up through their open files, which are closed after that; some may never
 * be, on a file system that hangs, and no file waits for another's. `bug` is told of a fault in letting go of one, which keeps
 * neither the others nor the server.
 */
export async function teardown(fids: Fids, locks: LockClient, bug: (error: unknown) => void): Promise<void> {
  const discard = (fid: Fid) => {
    try {
      fids.discard(fid);
    } catch (error) {
      bug(error);
    }
  };
  const locked: Fid[] = [];
  const all = fids.takeAll();
  const dropped = locks.count > 0 ? locks.dropAll() : undefined;
  for (const fid of all) {
    if (fid.use.kind === 'file' && fid.use.locked) locked.push(fid);
    else discard(fid);
  }
  const drops = locked.map(async fid => {
    await locks.dropThrough(fid.attachment.tree, fid.use as FileUse);
    discard(fid);
  });
  await Promise.allSettled([dropped, ...drops]);
}
