import type { ServerShare } from './server-share.ts';

/**
 * A session's requests and bytes in flight, flushed requests included. After `takes` was false, every method here and in
 * `ServerShare` that may change that calls `resume`.
 */
export class InFlight {
  #running = 0;
  #blocked = 0;
  #bytes = 0;
  /** The last result of `takes` was false. */
  #refused = false;
  #idle: { readonly blockedToo: boolean; readonly resolve: () => void }[] = [];
  readonly #share: ServerShare;
  readonly #resume: () => void;

  /** `resume` is called when `takes` was false and may now be true. */
  constructor(share: ServerShare, resume: () => void) {
    this.#share = share;
    this.#resume = resume;
    share.join(this);
  }

  /** Number of detached requests, without blocked locks. */
  get running(): number {
    return this.#running;
  }

  /** Number of blocking lock requests that wait. */
  get blocked(): number {
    return this.#blocked;
  }

  /**
   * Whether to read one more request; see `SessionPort.takes`. Blocked locks do not count. A Tflush passes at the limits of
   * requests and bytes, since it frees some.
   */
  takes(flush: boolean, unreadBytes: number): boolean {
    const { requests, bytes, unreadBytes: unreadBytesMax } = this.#share;
    const full = this.#running >= requests || this.#bytes >= bytes;
    this.#refused = (full && !flush) || unreadBytes > unreadBytesMax;
    return !this.#refused;
  }

  /** Counts a detached request and `bytes` of memory for its reply. */
  begin(blocked: boolean, bytes: number): void {
    if (blocked) this.#blocked++;
    else this.#running++;
    this.#bytes += bytes;
  }

  /** Uncounts a request; same arguments as for `begin`. */
  end(blocked: boolean, bytes: number): void {
    if (blocked) this.#blocked--;
    else this.#running--;
    this.keep(-bytes);
  }

  /** Counts bytes kept for detached requests; negative when freed. */
  keep(bytes: number): void {
    this.#bytes += bytes;
    if (bytes <= 0) this.wake();
  }

  /** Calls `resume` if `takes` has returned false. */
  wake(): void {
    if (!this.#refused) return;
    this.#refused = false;
    this.#resume();
  }

  /** Resolves, now or in `settle`, when no request runs; with `blockedToo` also no lock waits. */
  whenIdle(blockedToo: boolean): Promise<void> {
    return new Promise(resolve => {
      this.#idle.push({ blockedToo, resolve });
      this.settle();
    });
  }

  /** Resolves the promises of `whenIdle` if idle. Called after an ended request was answered. */
  settle(): void {
    if (this.#running > 0) return;
    this.#idle = this.#idle.filter(one => {
      const waits = one.blockedToo && this.#blocked > 0;
      if (!waits) one.resolve();
      return waits;
    });
  }

  leave(): void {
    this.#share.leave(this);
  }
}
