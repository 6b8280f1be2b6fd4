import type { LockOwner } from './lock-owner.ts';
import type { LockedThrough } from './lock-regions.ts';

type LockOutcome = 'granted' | 'blocked' | 'cancelled';

export class LockRequest {
  readonly owner: LockOwner;
  readonly through: LockedThrough;
  /** 0 read, 1 write, 2 unlock. */
  readonly type: 0 | 1 | 2;
  readonly start: number;
  /** Exclusive; Infinity means the end of the file. */
  readonly end: number;
  /**
   * Whether to wait for the lock without limit. On status BLOCKED the client sleeps 30 s before it asks again (fs/9p:
   * locktimeout), and its task accepts only fatal signals meanwhile.
   */
  readonly block: boolean;
  readonly outcome: Promise<LockOutcome>;
  /** The blocking lock is held outside this server. */
  outside = false;
  /** Cancelled; may still be granted if a host call was running. */
  cancelled = false;
  answered = false;
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

  settle(outcome: LockOutcome): void {
    this.answered = true;
    this.#resolve(outcome);
  }

  fail(error: unknown): void {
    this.answered = true;
    this.#reject(error);
  }
}
