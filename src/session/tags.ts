import type { Op } from '#protocol/operations.ts';
import type { DetachedExchange } from './exchange.ts';
import type { Fid, Reservation } from './fids.ts';

/**
 * How long a request with an effect may have run before its flush is answered in its place. A guest's process that is
 * killed waits for that answer, and nothing else ends it.
 */
export const flushWaitMs = 250;

/** Resolves when `over` is, or does not end. */
export async function waitAtMost(ms: number, over: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>(resolve => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([over, late]);
  clearTimeout(timer);
}

/**
 * Requests that leave nothing behind but what they answer: a flushed one is not waited for, its answer is thrown away when
 * it comes. All others may have changed something by the time they are flushed, so their reply is sent first, unless they do not end.
 */
const withoutEffect: ReadonlySet<Op> = new Set([
  'attach',
  'fsync',
  'getattr',
  'getlock',
  'read',
  'readdir',
  'readlink',
  'statfs',
  'walk',
  'xattrwalk',
]);

/** A request that waits. */
export class Pending {
  readonly tag: number;
  readonly op: Op;
  readonly exchange: DetachedExchange;
  readonly pinned: readonly Fid[];
  readonly newfid: Reservation | undefined;
  /** Calls off what has not happened yet; the handler then fails with ECANCELED. */
  readonly cancel: (() => void) | undefined;
  /** Takes back what no thread has begun; false when it was begun. */
  readonly withdraw: (() => boolean) | undefined;
  /** Nobody wants the reply any more. */
  unwanted = false;
  /** The exchange was answered. */
  answered = false;
  readonly #began = performance.now();
  readonly #flushes: (() => void)[] = [];
  #patience: NodeJS.Timeout | undefined;

  constructor(
    tag: number,
    op: Op,
    exchange: DetachedExchange,
    pinned: readonly Fid[],
    newfid: Reservation | undefined,
    cancel: (() => void) | undefined,
    withdraw: (() => boolean) | undefined,
  ) {
    this.tag = tag;
    this.op = op;
    this.exchange = exchange;
    this.pinned = pinned;
    this.newfid = newfid;
    this.cancel = cancel;
    this.withdraw = withdraw;
  }

  /** Whether its answer can be thrown away. A walk that moves its own fid has an effect: on the fid, which is claimed. */
  get isWithoutEffect(): boolean {
    return withoutEffect.has(this.op) && !this.pinned.some(fid => fid.use.kind === 'claimed');
  }

  get isFlushed(): boolean {
    return this.#flushes.length > 0;
  }

  /** Resolves when the request is over; several are resolved in their order. One that does not end is given up. */
  over(giveUp?: () => void): Promise<void> {
    const left = this.#began + flushWaitMs - performance.now();
    if (giveUp) this.#patience ??= setTimeout(giveUp, Math.max(0, left));
    return new Promise(resolve => {
      this.#flushes.push(resolve);
    });
  }

  /** Answers the exchange without a reply. */
  drop(): void {
    if (this.answered) return;
    this.answered = true;
    this.exchange.drop();
  }

  /** Lets the Tflushes that wait for it go on. */
  end(): void {
    clearTimeout(this.#patience);
    for (const resolve of this.#flushes.splice(0)) resolve();
  }
}

/** The requests of one session that wait, by tag. */
export class Tags {
  readonly #pending = new Map<number, Pending>();

  get size(): number {
    return this.#pending.size;
  }

  has(tag: number): boolean {
    return this.#pending.size > 0 && this.#pending.has(tag);
  }

  get(tag: number): Pending | undefined {
    return this.#pending.get(tag);
  }

  add(pending: Pending): void {
    this.#pending.set(pending.tag, pending);
  }

  /** Frees the tag, which happens before the reply is sent. */
  free(pending: Pending): void {
    if (this.#pending.get(pending.tag) === pending) this.#pending.delete(pending.tag);
  }

  /** Frees the tag of a request whose answer is thrown away. */
  abandon(pending: Pending): void {
    this.free(pending);
    pending.unwanted = true;
    // What has an effect may be reading its payload still.
    if (pending.isWithoutEffect) pending.drop();
  }

  /** Frees all tags: nothing that was asked is answered any more. Returns what may have an effect still. */
  abandonAll(): Pending[] {
    const all = [...this.#pending.values()];
    const effective = all.filter(pending => !pending.withdraw?.() && !pending.isWithoutEffect);
    for (const pending of all) this.abandon(pending);
    return effective;
  }
}
