import type { ChangeObserver, ChangeStamp, Node } from '#backend/tree.ts';
import { changeClock } from '#base/attr.ts';

interface Entry {
  /** The qid.version that this client gets until somebody else changes the object. */
  version: number;
  /** The object's stamp after the client's last change. */
  stamp: ChangeStamp;
  /** When that stamp was asked for. */
  asked: number | undefined;
  /** Number of the client's changes that run now. */
  running: number;
}

/**
 * qid.version as one client sees it: the object's change stamp, except that the client's own changes do not move it. If they
 * did, the client's next lookup would create a second inode beside the one with the dirty pages (fs/9p: v9fs_test_inode_dotl)
 * and lose them.
 *
 * On a file system whose calls may wait, results arrive in another order than they were asked for. A stamp that was asked for before the
 * client's last change says nothing of later changes by others; the next one does.
 *
 * An entry lives as long as its node, so the number of fids bounds it. A client that caches an object keeps a fid on it.
 */
export class Versions implements ChangeObserver {
  readonly #entries = new WeakMap<Node, Entry>();
  #used = false;

  before(node: Node, stamp: ChangeStamp, asked?: number): void {
    const entry = this.#entries.get(node);
    if (!entry) {
      this.#used = true;
      this.#entries.set(node, { version: stamp, stamp, asked, running: 1 });
      return;
    }
    if (entry.running === 0 && entry.stamp !== stamp && !isOutdated(asked, entry)) entry.version = stamp;
    entry.running++;
  }

  after(node: Node, stamp: ChangeStamp, asked?: number): void {
    const entry = this.#entries.get(node);
    if (!entry) return;
    entry.running--;
    if (isOutdated(asked, entry)) return;
    entry.stamp = stamp;
    entry.asked = asked;
  }

  /** qid.version of an object whose stamp was `stamp` at time `asked`. Never 0, as a stamp never is. */
  versionOf(node: Node, stamp: ChangeStamp, asked?: number): number {
    if (!this.#used) return stamp;
    const entry = this.#entries.get(node);
    if (!entry) return stamp;
    return entry.running > 0 || entry.stamp === stamp || isOutdated(asked, entry) ? entry.version : stamp;
  }
}

/** Whether a stamp was asked for before the one that is kept. */
function isOutdated(asked: number | undefined, entry: Entry): boolean {
  return asked !== undefined && entry.asked !== undefined && changeClock.isEarlier(asked, entry.asked);
}
