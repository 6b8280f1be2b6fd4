import type { ChangeObserver, ChangeStamp, Node } from '#backend/tree.ts';
import { changeClock } from '#base/attr.ts';

interface Entry {
  /** What this client was told, and will be told as long as nobody else changes the object. */
  version: number;
  /** The object's stamp after the client's last change. */
  stamp: ChangeStamp;
  /** When that was asked for. */
  asked: number | undefined;
  /** The client's changes that run now. */
  running: number;
}

/**
 * qid.version as one client sees it. The version of an object is its stamp, until the client itself changes the object:
 * then the version stays while the stamp moves on. A version that moved with the client's own writes would make its next
 * lookup build a second inode beside the one with the dirty pages (fs/9p: v9fs_test_inode_dotl), and lose them.
 *
 * Where a file system may wait, answers come in another order than they were asked for. What was asked for before the look at the
 * last own change says nothing about what others have done since; whoever looks next is told.
 *
 * An entry lives as long as its node, which goes when nobody holds it any more; a client that caches an object holds a fid
 * on it. So the number of entries is bounded by what is held.
 */
export class Versions implements ChangeObserver {
  readonly #entries = new WeakMap<Node, Entry>();
  /** Whether the client ever changed anything. */
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

  /** qid.version of an object whose stamp was `stamp` when it was asked for; never 0, as stamps never are. */
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
