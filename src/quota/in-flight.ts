import type { ServerShare } from './server-share.ts';

/**
 * What a session's requests take of the server while they run, flushed ones too. Whoever was told that there is no room is
 * told to ask again whenever room may have come: all that gives something back is a method here or in `Shares`.
 */
export class InFlight {
  #running = 0;
  #blocked = 0;
  #bytes = 0;
  /** The last answer of `takes` was no. */
  #refused = false;
  /** What waits until nothing runs; or, too, until nothing is blocked. */
  #idle: { readonly blockedToo: boolean; readonly resolve: () => void }[] = [];
  readonly #share: ServerShare;
  readonly #askAgain: () => void;

  /** `askAgain` is called after `takes` was false, when it may be true. */
  constructor(share: ServerShare, askAgain: () => void) {
    this.#share = share;
    this.#askAgain = askAgain;
    share.join(this);
  }

  /** Requests that wait for the tree. */
  get running(): number {
    return this.#running;
  }

  /** Locks that wait for somebody to let go. */
  get blocked(): number {
    return this.#blocked;
  }

  /**
   * Whether one more request shall be read from a peer that leaves so many bytes of replies unread. Blocked locks do not
   * count, and a flush is let through while there is too much to do, since it makes less of it.
   */
  takes(flush: boolean, unreadBytes: number): boolean {
    const { requests, bytes, unreadBytes: unreadBytesMax } = this.#share;
    const full = this.#running >= requests || this.#bytes >= bytes;
    this.#refused = (full && !flush) || unreadBytes > unreadBytesMax;
    return !this.#refused;
  }

  begin(blocked: boolean, bytes: number): void {
    if (blocked) this.#blocked++;
    else this.#running++;
    this.#bytes += bytes;
  }

  /** What `begin` was told. */
  end(blocked: boolean, bytes: number): void {
    if (blocked) this.#blocked--;
    else this.#running--;
    this.keep(-bytes);
  }

  /** Bytes of payloads and of what is read into that are kept for requests: so many more, or less. */
  keep(bytes: number): void {
    this.#bytes += bytes;
    if (bytes <= 0) this.wake();
  }

  /** Room may have come. */
  wake(): void {
    if (!this.#refused) return;
    this.#refused = false;
    this.#askAgain();
  }

  /** Resolves when nothing runs, at the next `settle` or now. */
  whenIdle(blockedToo: boolean): Promise<void> {
    return new Promise(resolve => {
      this.#idle.push({ blockedToo, resolve });
      this.settle();
    });
  }

  /** Tells who waits; for when what has ended is dealt with. */
  settle(): void {
    if (this.#running > 0) return;
    this.#idle = this.#idle.filter(one => {
      const waits = one.blockedToo && this.#blocked > 0;
      if (!waits) one.resolve();
      return waits;
    });
  }

  /** The session is over. */
  leave(): void {
    this.#share.leave(this);
  }
}
