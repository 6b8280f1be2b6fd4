import type { Limits } from '../limits.ts';

/** What each session of a server may use at a time of what all of them use: an even share, where there are many. */
export class Shares {
  /** Requests that run. */
  requests = 0;
  /** Bytes of payloads and replies of requests that run. */
  bytes = 0;
  /** Bytes of replies that a peer leaves unread. */
  unreadBytes = 0;
  readonly #limits: Limits;

  constructor(limits: Limits) {
    this.#limits = limits;
    this.divide(1);
  }

  divide(sessions: number): void {
    const { requestsPerSession, requestsInAll, bytesPerSession, bytesInAll } = this.#limits;
    const { unreadBytesPerSession, unreadBytesInAll } = this.#limits;
    this.requests = Math.min(requestsPerSession, Math.ceil(requestsInAll / sessions));
    this.bytes = Math.min(bytesPerSession, bytesInAll / sessions);
    this.unreadBytes = Math.min(unreadBytesPerSession, unreadBytesInAll / sessions);
  }
}
