import type { Request } from './request.ts';

export async function waitAtMost(ms: number, done: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>(resolve => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([done, timeout]);
  clearTimeout(timer);
}

/** The detached requests of one session, by tag. */
export class Tags {
  readonly #waiting = new Map<number, Request>();

  has(tag: number): boolean {
    return this.#waiting.size > 0 && this.#waiting.has(tag);
  }

  get(tag: number): Request | undefined {
    return this.#waiting.get(tag);
  }

  add(request: Request): void {
    this.#waiting.set(request.tag, request);
  }

  /** Frees the tag. Called before the reply is sent, since the client may then reuse it. */
  free(request: Request): void {
    if (this.#waiting.get(request.tag) === request) this.#waiting.delete(request.tag);
  }

  /** Frees the tag and marks the reply as unwanted. */
  abandon(request: Request): void {
    this.free(request);
    request.unwanted = true;
    // Other requests may still be reading their payload; they are dropped when they end.
    if (request.isWithoutEffect) request.drop();
  }

  /** Abandons all requests. Returns those that may still have an effect. */
  abandonAll(): Request[] {
    const all = [...this.#waiting.values()];
    const effective = all.filter(request => !request.withdraw?.() && !request.isWithoutEffect);
    for (const request of all) this.abandon(request);
    return effective;
  }
}
