import type { InFlight } from './in-flight.ts';
import type { Limits } from './limits.ts';

/** What each session of a server may use at a time of what all of them use: an even share, where there are many. */
export class ServerShare {
  /** Requests that run. */
  requests = 0;
  /** Bytes of payloads and replies of requests that run. */
  bytes = 0;
  /** Bytes of replies that a peer leaves unread. */
  unreadBytes = 0;
  readonly #limits: Limits;
  readonly #loads = new Set<InFlight>();

  constructor(limits: Limits) {
    this.#limits = limits;
    this.#divide();
  }

  join(load: InFlight): void {
    this.#loads.add(load);
    this.#divide();
  }

  /** The shares of the others grow. */
  leave(load: InFlight): void {
    if (!this.#loads.delete(load)) return;
    this.#divide();
    for (const other of this.#loads) other.wake();
  }

  #divide(): void {
    const { requestsPerSession, requestsInAll, bytesPerSession, bytesInAll } = this.#limits;
    const { unreadBytesPerSession, unreadBytesInAll } = this.#limits;
    const sessions = Math.max(1, this.#loads.size);
    this.requests = Math.min(requestsPerSession, Math.ceil(requestsInAll / sessions));
    this.bytes = Math.min(bytesPerSession, bytesInAll / sessions);
    this.unreadBytes = Math.min(unreadBytesPerSession, unreadBytesInAll / sessions);
  }
}
