import type { Limits } from './limits.ts';
import { PinnedFds } from './pinned-fds.ts';

/** The counted resources, each with its limit for a session and for all sessions of an export. */
const bounds = {
  fids: ['fidsPerSession', 'fidsPerExport'],
  opens: ['opensPerSession', 'opensPerExport'],
  xattrBytes: ['xattrBytesPerSession', 'xattrBytesPerExport'],
  locks: ['locksPerSession', 'locksPerExport'],
} as const;

type Resource = keyof typeof bounds;

/** What all sessions of one export hold. */
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
 * Counts what one session holds, also against the export of its first attach.
 *
 * A session may reach its own limit while the export's is not reached, and an even share of the export's limit after that. So
 * all sessions together hold at most twice the export's limit, and none can starve another.
 */
export class SessionQuota {
  readonly limits: Limits;
  readonly pinnedFds = new PinnedFds();
  readonly #own: Record<Resource, number> = { fids: 0, opens: 0, xattrBytes: 0, locks: 0 };
  #export: Usage | undefined;

  constructor(limits: Limits) {
    this.limits = limits;
  }

  get xattrBytes(): number {
    return this.#own.xattrBytes;
  }

  /** Counts the session on its first export; false if that has `sessionsPerExport` sessions. */
  attach(tree: object): boolean {
    if (this.#export) return true;
    const usage = usageOf(tree);
    if (usage.sessions >= this.limits.sessionsPerExport) return false;
    usage.sessions++;
    this.#export = usage;
    return true;
  }

  /** The session has ended and holds nothing. */
  leave(): void {
    if (this.#export) this.#export.sessions--;
    this.#export = undefined;
  }

  /** Whether `more` is within the limits; counts nothing. */
  mayAdd(resource: Resource, more: number): boolean {
    const [ofSession, ofExport] = bounds[resource];
    const wanted = this.#own[resource] + more;
    if (wanted > this.limits[ofSession]) return false;
    if (!this.#export) return true;
    const all = this.limits[ofExport];
    return this.#export[resource] + more <= all || wanted <= all / this.#export.sessions;
  }

  /** Adds to the count; negative to release. */
  add(resource: Resource, more: number): void {
    this.#own[resource] += more;
    if (this.#export) this.#export[resource] += more;
  }
}
