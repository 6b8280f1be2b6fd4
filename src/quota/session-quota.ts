import type { Limits } from './limits.ts';
import { PinnedFds } from './pinned-fds.ts';

/** What is counted, and the bounds of a session and of all sessions of an export. */
const bounds = {
  fids: ['fidsPerSession', 'fidsPerExport'],
  opens: ['opensPerSession', 'opensPerExport'],
  xattrBytes: ['xattrBytesPerSession', 'xattrBytesPerExport'],
  locks: ['locksPerSession', 'locksPerExport'],
} as const;

type Resource = keyof typeof bounds;

/** What the sessions of one export hold together. */
interface Usage extends Record<Resource, number> {
  sessions: number;
}

const usages = new WeakMap<object, Usage>();

function usageOf(tree: object): Usage {
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
export class SessionQuota {
  readonly limits: Limits;
  readonly pinnedFds = new PinnedFds();
  readonly #own: Record<Resource, number> = { fids: 0, opens: 0, xattrBytes: 0, locks: 0 };
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
  attach(tree: object): boolean {
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

  mayAdd(held: Resource, more: number): boolean {
    const [ofSession, ofExport] = bounds[held];
    const wanted = this.#own[held] + more;
    if (wanted > this.limits[ofSession]) return false;
    if (!this.#home) return true;
    const all = this.limits[ofExport];
    return this.#home[held] + more <= all || wanted <= all / this.#home.sessions;
  }

  /** Counts `more`, or less. */
  add(held: Resource, more: number): void {
    this.#own[held] += more;
    if (this.#home) this.#home[held] += more;
  }
}
