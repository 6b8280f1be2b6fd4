import type { Op } from '../protocol/operations.ts';
import type { Exchange } from './door.ts';
import type { Fid, Reservation } from './fids.ts';

/**
 * Requests that leave nothing behind but what they answer: a flushed one is not waited for, its answer is thrown away when
 * it comes. All others may have changed something by the time they are flushed, so their reply is sent first.
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
  readonly exchange: Exchange;
  readonly pinned: readonly Fid[];
  readonly newfid: Reservation | undefined;
  /** Calls off what has not happened yet; the handler then fails with ECANCELED. */
  readonly cancel: (() => void) | undefined;
  /** Nobody wants the reply any more. */
  unwanted = false;
  /** The exchange was answered. */
  answered = false;
  readonly #flushes: (() => void)[] = [];

  constructor(
    tag: number,
    op: Op,
    exchange: Exchange,
    pinned: readonly Fid[],
    newfid: Reservation | undefined,
    cancel: (() => void) | undefined,
  ) {
    this.tag = tag;
    this.op = op;
    this.exchange = exchange;
    this.pinned = pinned;
    this.newfid = newfid;
    this.cancel = cancel;
  }

  /** Whether its answer can be thrown away. A walk that moves its own fid has an effect: on the fid, which is claimed. */
  get isWithoutEffect(): boolean {
    return withoutEffect.has(this.op) && !this.pinned.some(fid => fid.use.kind === 'claimed');
  }

  get isFlushed(): boolean {
    return this.#flushes.length > 0;
  }

  /** Resolves when the request is over; several are resolved in their order. */
  over(): Promise<void> {
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
    for (const resolve of this.#flushes) resolve();
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

  /** Frees the tag of a request without effect, whose answer is thrown away. */
  abandon(pending: Pending): void {
    this.free(pending);
    pending.unwanted = true;
    pending.drop();
  }

  /** Frees all tags: nothing that was asked is answered any more. Returns what may have an effect still. */
  abandonAll(): Pending[] {
    const effective: Pending[] = [];
    for (const pending of this.#pending.values()) {
      pending.unwanted = true;
      // What has an effect may be reading its payload still.
      if (pending.isWithoutEffect) pending.drop();
      else effective.push(pending);
    }
    this.#pending.clear();
    return effective;
  }
}
