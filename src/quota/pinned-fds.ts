/** Of the descriptors that are never given up, how many one session has. */
export class PinnedFds {
  count = 0;
}

/**
 * Descriptors that are never given up: those of open files and directories, and of locks. Two thirds of all are for whoever comes
 * first; when these are taken, the last third is for sessions that have less than an even share of it. Nodes use what is not
 * taken: they give theirs up for what is opened.
 */
export class PinnedFdBudget {
  readonly #shared: number;
  readonly #reserved: number;
  #all = 0;
  #sessions = 0;

  constructor(max: number) {
    this.#reserved = Math.max(1, Math.floor(max / 3));
    this.#shared = max - this.#reserved;
  }

  get count(): number {
    return this.#all;
  }

  /** Whether a session may pin `more`. */
  admits(pins: PinnedFds, more: number): boolean {
    if (this.#all + more <= this.#shared) return true;
    return pins.count + more <= this.#reserved / (this.#sessions + (pins.count === 0 ? 1 : 0));
  }

  add(pins: PinnedFds, more: number): void {
    if (pins.count === 0 && more > 0) this.#sessions++;
    pins.count += more;
    this.#all += more;
    if (pins.count === 0 && more < 0) this.#sessions--;
  }
}
