/**
 * For whom the running turn works. A session says so when it begins a request, and the pool again when it hands over what was
 * done for one, so that every call on the pool stands in the queue of its session, however many steps led to it. It decides
 * about fairness and nothing else.
 */
export const turn: {
  /** The queue of calls on the pool; 0 belongs to no session. */
  queue: number;
  /** Takes back the first call that this turn put on the pool: true when nothing of it was done yet. */
  withdraw: (() => boolean) | undefined;
} = { queue: 0, withdraw: undefined };

let queues = 0;

/** The queue of a new session. */
export function newQueue(): number {
  return ++queues;
}

/** A session begins something. */
export function beginTurn(queue: number): void {
  turn.queue = queue;
  turn.withdraw = undefined;
}
