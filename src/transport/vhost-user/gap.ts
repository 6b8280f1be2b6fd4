/**
 * How long to wait for removed memory. A monitor that splits regions removes the old ones before it adds the new ones (QEMU's
 * vhost_user_add_remove_regions), while the guest keeps running.
 */
const gapMsMax = 1000;

/** The time after a memory region was removed in which the same memory may be added again as other regions. */
export class Gap {
  /** By performance.now(). */
  #end = 0;
  #timer: NodeJS.Timeout | undefined;
  readonly #expired: () => void;

  /** `expired` is called when a gap ends while `waiting`. */
  constructor(expired: () => void) {
    this.#expired = expired;
  }

  /** Memory was removed. */
  begin(): void {
    this.#end = performance.now() + gapMsMax;
  }

  get open(): boolean {
    return performance.now() < this.#end;
  }

  /** Whether the device waits for memory. */
  get waiting(): boolean {
    return this.#timer !== undefined;
  }

  wait(): void {
    this.#timer ??= setTimeout(this.#expired, Math.max(0, this.#end - performance.now()));
  }

  cancel(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
