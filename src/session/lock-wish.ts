import type { LockedThrough } from './lock-regions.ts';
import type { LockOwner } from './locks.ts';

export type LockOutcome = 'granted' | 'blocked' | 'cancelled';

/** A request for a lock, from when it is made until it is answered. */
export class LockWish {
  readonly owner: LockOwner;
  readonly through: LockedThrough;
  /** 0 read, 1 write, 2 unlock. */
  readonly type: 0 | 1 | 2;
  readonly start: number;
  /** Exclusive; Infinity is the end of the file. */
  readonly end: number;
  /** Whether it waits until the lock can be had. */
  readonly block: boolean;
  readonly outcome: Promise<LockOutcome>;
  /** Somebody outside this server holds what is in the way. */
  outside = false;
  /** What it comes to if it cannot be granted any more: it was called off, or has waited for too long. */
  verdict: 'cancelled' | 'blocked' | undefined = undefined;
  answered = false;
  #timer: NodeJS.Timeout | undefined;
  #resolve!: (outcome: LockOutcome) => void;
  #reject!: (error: unknown) => void;

  constructor(
    owner: LockOwner,
    through: LockedThrough,
    type: 0 | 1 | 2,
    start: number,
    end: number,
    block: boolean,
  ) {
    this.owner = owner;
    this.through = through;
    this.type = type;
    this.start = start;
    this.end = end;
    this.block = block;
    this.outcome = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Calls `expired` when it has waited for so long. */
  waitFor(ms: number, expired: () => void): void {
    this.#timer = setTimeout(expired, ms);
  }

  settle(outcome: LockOutcome): void {
    this.answered = true;
    clearTimeout(this.#timer);
    this.#resolve(outcome);
  }

  fail(error: unknown): void {
    this.answered = true;
    clearTimeout(this.#timer);
    this.#reject(error);
  }
}
