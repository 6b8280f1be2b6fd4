import type { MaybePromise } from '#base/maybe-promise.ts';
import { PinnedFdBudget, type PinnedFds } from './pinned-fds.ts';

/**
 * What may be lost when a descriptor is given up, from the least on: nothing, since the object can be had again; an object that
 * has no name any more; or one that may have a name, which nobody here knows.
 */
export const losses = ['nothing', 'nameless', 'unknown'] as const;
export type Loss = (typeof losses)[number];

/** Who holds a descriptor that it can give up. */
export interface FdHolder {
  readonly isDirectory: boolean;
  /** Set by the holder on every use. */
  touched: boolean;
  /** Closes the descriptor if no more is lost by that than is allowed; false keeps it. Never throws. */
  evict(allowed?: Loss): boolean;
}

/**
 * The budget of descriptors. A guest may hold a million objects on a machine that allows 20,000 descriptors, so whoever
 * holds a descriptor that can be had again is told to give it up when the budget is spent, least recently used first (by
 * second chance: a holder that was used since it was last looked at is passed over once). Directories come after all else, as long as
 * they are not most of it: by them, others are found again.
 *
 * The descriptors of what is open, and of locks, are never given up: they are shared out (`PinBudget`), and who has no share left
 * can open nothing more.
 */
export class FdBudget {
  readonly #pinned: PinnedFdBudget;
  readonly #max: number;
  #closing = 0;
  readonly #directories = new Set<FdHolder>();
  readonly #others = new Set<FdHolder>();

  /** `max` is how many descriptors nodes, locks, open files and directories may hold together. */
  constructor(max: number) {
    this.#max = max;
    this.#pinned = new PinnedFdBudget(max);
  }

  get count(): number {
    return this.#directories.size + this.#others.size + this.#pinned.count + this.#closing;
  }

  /** A descriptor that was given up counts until it is closed. */
  closing(closed: MaybePromise<void>): void {
    if (!(closed instanceof Promise)) return;
    this.#closing++;
    const over = () => {
      this.#closing--;
    };
    closed.then(over, over);
  }

  /** Counts a new descriptor, after making room for it. */
  admit(holder: FdHolder): void {
    this.#makeRoom();
    this.#setOf(holder).add(holder);
  }

  /** The holder closed its descriptor itself. */
  leave(holder: FdHolder): void {
    this.#setOf(holder).delete(holder);
  }

  #setOf(holder: FdHolder): Set<FdHolder> {
    return holder.isDirectory ? this.#directories : this.#others;
  }

  /** Whether a session may have one more that is never given up. */
  mayPin(pins: PinnedFds): boolean {
    return this.#pinned.admits(pins, 1);
  }

  /** Counts one that is never given up, after making room for it. */
  pin(pins: PinnedFds): void {
    this.#makeRoom();
    this.#pinned.add(pins, 1);
  }

  unpin(pins: PinnedFds): void {
    this.#pinned.add(pins, -1);
  }

  #makeRoom(): void {
    if (this.count >= this.#max) this.reclaim(this.count - this.#max + 1);
  }

  /** Gets up to `count` descriptors back; returns how many. */
  reclaim(count: number): number {
    const sets = [this.#others, this.#directories];
    if (this.#directories.size > this.#max / 2) sets.reverse();
    let freed = 0;
    const free = (held: Set<FdHolder>, loss: Loss, spares: boolean) => {
      if (freed < count) freed += this.#reclaimFrom(held, count - freed, loss, spares);
    };
    for (const held of sets) {
      free(held, 'nothing', true);
      free(held, 'nothing', false);
    }
    for (const loss of ['nameless', 'unknown'] as const) for (const held of sets) free(held, loss, false);
    return freed;
  }

  #reclaimFrom(held: Set<FdHolder>, count: number, loss: Loss, spares: boolean): number {
    // Bounded, so that a crowd of holders that cannot give up makes no admission slow.
    let looks = Math.max(64, count * 4);
    let freed = 0;
    for (const holder of held) {
      if (freed >= count || looks-- <= 0) break;
      held.delete(holder);
      const spared = spares && holder.touched;
      holder.touched = false;
      if (!spared && holder.evict(loss)) freed++;
      else held.add(holder);
    }
    return freed;
  }
}
