import type { Limits } from './limits.ts';

/** A session that may wait for its share to grow. */
interface Waiter {
  wake(): void;
}

/** The limits of each session on what runs at a time: its own limit, or an even share of the server's if that is less. */
export class ServerShare {
  requests = 0;
  /** Bytes of payloads and replies of running requests. */
  bytes = 0;
  /** Bytes of replies that the peer has not read. */
  unreadBytes = 0;
  readonly #limits: Limits;
  readonly #sessions = new Set<Waiter>();

  constructor(limits: Limits) {
    this.#limits = limits;
    this.#divide();
  }

  join(session: Waiter): void {
    this.#sessions.add(session);
    this.#divide();
  }

  /** Removes a session; the others' shares grow, so they are woken. */
  leave(session: Waiter): void {
    if (!this.#sessions.delete(session)) return;
    this.#divide();
    for (const other of this.#sessions) other.wake();
  }

  #divide(): void {
    const { requestsPerSession, requestsInAll, bytesPerSession, bytesInAll } = this.#limits;
    const { unreadBytesPerSession, unreadBytesInAll } = this.#limits;
    const sessions = Math.max(1, this.#sessions.size);
    this.requests = Math.min(requestsPerSession, Math.ceil(requestsInAll / sessions));
    this.bytes = Math.min(bytesPerSession, bytesInAll / sessions);
    this.unreadBytes = Math.min(unreadBytesPerSession, unreadBytesInAll / sessions);
  }
}
