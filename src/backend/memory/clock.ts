import type { Time } from '#host/syscalls.ts';

/** A point in time; seconds may be negative. */
export type Moment = Exclude<Time, string>;

const nsecMax = 999_999_999;
const secMax = Number.MAX_SAFE_INTEGER;

/** The nearest time that is kept. The bounds have no nanoseconds (timestamp_truncate of fs/inode.c). */
export function nearest({ sec, nsec }: Moment): Moment {
  return Math.abs(sec) < secMax ? { sec, nsec } : { sec: Math.sign(sec) * secMax, nsec: 0 };
}

/** The time of day, later at every call: no two changes have the same ctime, so each moves the stamp. */
export class Clock {
  #last: Moment = { sec: 0, nsec: 0 };

  now(): Moment {
    const ms = Date.now();
    const { sec, nsec } = this.#last;
    const next = { sec: Math.floor(ms / 1000), nsec: (ms % 1000) * 1_000_000 };
    if (next.sec > sec || (next.sec === sec && next.nsec > nsec)) this.#last = next;
    else this.#last = nsec < nsecMax ? { sec, nsec: nsec + 1 } : { sec: sec + 1, nsec: 0 };
    return this.#last;
  }
}
