/** Of the descriptors that cannot be given up, how many one session has. */
export class Pins {
  count = 0;
}

/**
 * Descriptors that cannot be given up: those of open files and directories that have lost their name, of locks, and of open files
 * on file systems that may wait. A third of all may be pinned; as much again is kept for sessions that have less than an even
 * share when the first third is taken; the last is for what can be given up.
 */
export class PinBudget {
  /** For who brings none. */
  readonly nobody = new Pins();
  readonly #max: number;
  #all = 0;
  #sessions = 0;

  constructor(max: number) {
    this.#max = Math.max(1, Math.floor(max / 3));
  }

  /** Whether a session may pin `more`. */
  admits(pins: Pins, more: number): boolean {
    if (this.#all + more <= this.#max) return true;
    return pins.count + more <= this.#max / (this.#sessions + (pins.count === 0 ? 1 : 0));
  }

  /** Whether a session has more than others leave it: somebody else took the names of its open files. */
  isOverdrawn(pins: Pins): boolean {
    return this.#all > this.#max && pins.count > this.#max / this.#sessions;
  }

  add(pins: Pins, more: number): void {
    if (pins.count === 0 && more > 0) this.#sessions++;
    pins.count += more;
    this.#all += more;
    if (pins.count === 0 && more < 0) this.#sessions--;
  }
}
