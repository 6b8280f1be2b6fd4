/** How long one peer's requests may keep everybody else waiting. */
export const sliceMs = 2;

/**
 * The turns of one peer, over all its connections: when its requests have taken their time, those that are left wait for the
 * next turn of the event loop, in which everybody else is served first. Alone, a peer loses one turn in two milliseconds by it.
 */
export class TimeSlice {
  #spentMs = 0;
  #over = false;
  #waiting: (() => void)[] = [];

  /** Whether the peer's turn is over; `goOn` is called in the next one then. */
  mustWait(goOn: () => void): boolean {
    if (this.#over) this.#waiting.push(goOn);
    return this.#over;
  }

  /** Notes what was used. */
  spend(ms: number): void {
    this.#spentMs += ms;
    if (this.#over || this.#spentMs < sliceMs) return;
    this.#over = true;
    setImmediate(this.#next);
  }

  readonly #next = (): void => {
    this.#spentMs = 0;
    this.#over = false;
    const queue = this.#waiting;
    this.#waiting = [];
    let served = 0;
    while (served < queue.length && !this.#over) queue[served++]!();
    // Those that had no part in this turn go before those that had.
    this.#waiting = [...queue.slice(served), ...this.#waiting];
  };
}
