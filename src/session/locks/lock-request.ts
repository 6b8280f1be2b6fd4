import type { LockOwner } from './lock-client.ts';
import type { LockedThrough } from './lock-regions.ts';

export type LockOutcome = 'granted' | 'blocked' | 'cancelled';

/** A request for a lock, from when it is made until it is answered. */
export class LockRequest {
  readonly owner: LockOwner;
  readonly through: LockedThrough;
  /** 0 read, 1 write, 2 unlock. */
  readonly type: 0 | 1 | 2;
  readonly start: number;
  /** Exclusive; Infinity is the end of the file. */
  readonly end: number;
  /**
   * Whether it waits until the lock can be had, however long that is: a client that is told "blocked" sleeps for 30 seconds
   * before it asks again (fs/9p: locktimeout). Until then its task takes no signal but a fatal one.
   */
  readonly block: boolean;
  readonly outcome: Promise<LockOutcome>;
  /** Somebody outside this server holds what is in the way. */
  outside = false;
  /** It was called off: it shall be granted no more, unless it is too late. */
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
