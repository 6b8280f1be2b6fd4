import type { Fid, Fids, FileUse } from './fids.ts';
import type { LockClient } from './locks/lock-client.ts';

/**
 * Releases all fids and locks of a session. Each file with locks is closed after their release, independently of the others,
 * since a file system may hang. Exceptions go to `onBug` and do not keep other fids from being released.
 */
export async function teardown(
  fids: Fids,
  locks: LockClient,
  onBug: (error: unknown) => void,
): Promise<void> {
  const discard = (fid: Fid) => {
    try {
      fids.discard(fid);
    } catch (error) {
      onBug(error);
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
