/**
 * A disk blocks callers at times: data is not in memory, a journal transaction is being written, too many pages are dirty. For
 * metadata and writes nothing tells beforehand (RWF_NOWAIT is for reads, and some writes of some file systems). So after a call
 * that was blocked, the file system's calls go to the pool for `poolMsPerMs` times as long, up to `poolMsMax`: the event loop
 * is blocked by a disk less than half a percent of the time. During an fsync, when a journal blocks others, they go to the pool
 * from the start.
 */
const poolMsPerMs = 200;
const poolMsMax = 60_000;

export class Contention {
  readonly #changed: (contended: boolean) => void;
  #until = 0;
  #timer: NodeJS.Timeout | undefined;
  #running = 0;
  #contended = false;

  /** `changed` is called with whether calls go to the pool from now on. */
  constructor(changed: (contended: boolean) => void) {
    this.#changed = changed;
  }

  /** A call was blocked for `ms`. */
  readonly blocked = (ms: number): void => {
    const now = performance.now();
    this.#until = Math.max(this.#until, now + Math.min(ms * poolMsPerMs, poolMsMax));
    this.#setTimer(now);
    this.#update();
  };

  /** `call` takes long: contended until it ends. */
  readonly during = (call: Promise<unknown>): void => {
    this.#running++;
    this.#update();
    const ended = () => {
      this.#running--;
      this.#update();
    };
    call.then(ended, ended);
  };

  #setTimer(now: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const later = performance.now();
      if (later < this.#until) this.#setTimer(later);
      this.#update();
    }, this.#until - now).unref();
  }

  #update(): void {
    const contended = this.#running > 0 || this.#timer !== undefined;
    if (contended === this.#contended) return;
    this.#contended = contended;
    this.#changed(contended);
  }
}
