import type { Limits } from '../limits.ts';
import { Pins } from '../tree/pins.ts';
import type { Tree } from '../tree/tree.ts';

/** What is counted, and the bounds of a session and of all sessions of an export. */
const bounds = {
  fids: ['fidsPerSession', 'fidsPerExport'],
  opens: ['opensPerSession', 'opensPerExport'],
  xattrBytes: ['xattrBytesPerSession', 'xattrBytesPerExport'],
  locks: ['locksPerSession', 'locksPerExport'],
} as const;

type Held = keyof typeof bounds;

/** What the sessions of one export hold together. */
interface Usage extends Record<Held, number> {
  sessions: number;
}

const usages = new WeakMap<Tree, Usage>();

function usageOf(tree: Tree): Usage {
  let usage = usages.get(tree);
  if (!usage) {
    usage = { sessions: 0, fids: 0, opens: 0, xattrBytes: 0, locks: 0 };
    usages.set(tree, usage);
  }
  return usage;
}

/**
 * What one session holds of what has bounds. It counts on the export that it attached to first, for as long as it lives.
 *
 * A session may hold up to its own bound as long as there is enough for all, and up to an even share when there is not. So all
 * together hold at most twice the bound, and nobody's greed leaves another without.
 */
export class Holdings {
  readonly limits: Limits;
  readonly pins = new Pins();
  readonly #own: Record<Held, number> = { fids: 0, opens: 0, xattrBytes: 0, locks: 0 };
  #home: Usage | undefined;

  constructor(limits: Limits) {
    this.limits = limits;
  }

  get opens(): number {
    return this.#own.opens;
  }

  get xattrBytes(): number {
    return this.#own.xattrBytes;
  }

  /** False when the export has all the sessions it may have. */
  attach(tree: Tree): boolean {
    if (this.#home) return true;
    const usage = usageOf(tree);
    if (usage.sessions >= this.limits.sessionsPerExport) return false;
    usage.sessions++;
    this.#home = usage;
    return true;
  }

  /** The session is over, and holds nothing any more. */
  leave(): void {
    if (this.#home) this.#home.sessions--;
    this.#home = undefined;
  }

  mayAdd(held: Held, more: number): boolean {
    const [ofSession, ofExport] = bounds[held];
    const wanted = this.#own[held] + more;
    if (wanted > this.limits[ofSession]) return false;
    if (!this.#home) return true;
    const all = this.limits[ofExport];
    return this.#home[held] + more <= all || wanted <= all / this.#home.sessions;
  }

  /** Counts `more`, or less. */
  add(held: Held, more: number): void {
    this.#own[held] += more;
    if (this.#home) this.#home[held] += more;
  }
}
