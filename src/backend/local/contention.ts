/**
 * A disk keeps its callers waiting at times: what is read is not in memory, a transaction of the journal is being written, too
 * much is dirty. Nothing tells beforehand for metadata and writes (RWF_NOWAIT is for reads, and for some writes of some
 * file systems), so a file system is taken by its word: after a call that kept a thread waiting, its calls go to the pool for
 * `restPerWait` times as long. So the event loop waits for a disk less than half a percent of the time. While an fsync
 * runs, which is when a journal makes others wait, they go there from the start.
 */
const restPerWait = 200;
const restMsMax = 60_000;

export class Contention {
  readonly #changed: (strained: boolean) => void;
  #until = 0;
  #timer: NodeJS.Timeout | undefined;
  #running = 0;
  #strained = false;

  /** `changed` is told when calls shall go to the pool, and when they need not any more. */
  constructor(changed: (strained: boolean) => void) {
    this.#changed = changed;
  }

  /** A call has waited that long. */
  readonly blocked = (ms: number): void => {
    const now = performance.now();
    this.#until = Math.max(this.#until, now + Math.min(ms * restPerWait, restMsMax));
    this.#arm(now);
    this.#tell();
  };

  /** `call` takes long. */
  readonly during = (call: Promise<unknown>): void => {
    this.#running++;
    this.#tell();
    const over = () => {
      this.#running--;
      this.#tell();
    };
    call.then(over, over);
  };

  #arm(now: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const later = performance.now();
      if (later < this.#until) this.#arm(later);
      this.#tell();
    }, this.#until - now).unref();
  }

  #tell(): void {
    const strained = this.#running > 0 || this.#timer !== undefined;
    if (strained === this.#strained) return;
    this.#strained = strained;
    this.#changed(strained);
  }
}
