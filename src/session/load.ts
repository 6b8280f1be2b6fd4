import type { Shares } from './shares.ts';

/** What a session's requests take of the server while they run, flushed ones too. */
export class Load {
  /** Requests that wait for the tree. */
  running = 0;
  /** Locks that wait for somebody to let go. */
  blocked = 0;
  /** Bytes of payloads and of what is read into. */
  bytes = 0;
  /** What waits until nothing runs; or, too, until nothing is blocked. */
  #idle: { readonly blockedToo: boolean; readonly resolve: () => void }[] = [];
  readonly shares: Shares;

  constructor(shares: Shares) {
    this.shares = shares;
  }

  /** So many requests run that no more shall be read. Blocked locks do not count. */
  get full(): boolean {
    return this.running >= this.shares.requests || this.bytes >= this.shares.bytes;
  }

  begin(blocked: boolean, bytes: number): void {
    if (blocked) this.blocked++;
    else this.running++;
    this.bytes += bytes;
  }

  /** What `begin` was told. */
  end(blocked: boolean, bytes: number): void {
    if (blocked) this.blocked--;
    else this.running--;
    this.bytes -= bytes;
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
    if (this.running > 0) return;
    this.#idle = this.#idle.filter(one => {
      const waits = one.blockedToo && this.blocked > 0;
      if (!waits) one.resolve();
      return waits;
    });
  }
}
