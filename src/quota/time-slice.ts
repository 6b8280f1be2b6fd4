/** How long in ms one peer's requests may run before other peers are served. */
export const sliceMs = 2;

/**
 * Time slice of one peer, over all its connections. When used up, the peer's further requests wait for the next event-loop
 * iteration, after those of other peers. A peer that is alone loses one iteration every `sliceMs`.
 */
export class TimeSlice {
  #spentMs = 0;
  #over = false;
  #waiting: (() => void)[] = [];

  /** Whether the slice is used up; if so, `resume` is called in the peer's next slice. */
  mustWait(resume: () => void): boolean {
    if (this.#over) this.#waiting.push(resume);
    return this.#over;
  }

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
    // Callers not yet resumed go before those that queued again.
    this.#waiting = [...queue.slice(served), ...this.#waiting];
  };
}
