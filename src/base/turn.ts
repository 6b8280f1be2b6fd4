/**
 * The session for which the current callback runs, set when a request begins and when the pool settles a call. So every pool
 * call joins its session's queue. Used for fairness only.
 */
export const turn: {
  /** The session's queue of pool calls; 0 belongs to no session. */
  queue: number;
  /** Removes the callback's first call from the pool's queue; false if a thread has begun it. */
  withdraw: (() => boolean) | undefined;
} = { queue: 0, withdraw: undefined };

let queues = 0;

export function newQueue(): number {
  return ++queues;
}

export function beginTurn(queue: number): void {
  turn.queue = queue;
  turn.withdraw = undefined;
}
