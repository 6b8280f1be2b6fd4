/**
 * How long memory that was taken away is waited for. A monitor that cuts regions anew takes the old ones away before it
 * adds the new ones (QEMU's vhost_user_add_remove_regions), while the guest runs on.
 */
const gapMsMax = 1000;

/** The time after memory was taken away in which it may come again, cut otherwise. */
export class Gap {
  /** By performance.now(). */
  #end = 0;
  #waiting: NodeJS.Timeout | undefined;
  readonly #over: () => void;

  /** `over` is called at the end of a gap that was waited for. */
  constructor(over: () => void) {
    this.#over = over;
  }

  /** Memory is taken away. */
  begin(): void {
    this.#end = performance.now() + gapMsMax;
  }

  get open(): boolean {
    return performance.now() < this.#end;
  }

  /** Whether somebody waits for memory. */
  get waited(): boolean {
    return this.#waiting !== undefined;
  }

  wait(): void {
    this.#waiting ??= setTimeout(this.#over, Math.max(0, this.#end - performance.now()));
  }

  stopWaiting(): void {
    clearTimeout(this.#waiting);
    this.#waiting = undefined;
  }
}
