import type { Request } from './request.ts';

/** Resolves when `over` does, or after `ms`. */
export async function waitAtMost(ms: number, over: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>(resolve => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([over, late]);
  clearTimeout(timer);
}

/** The requests of one session that wait, by tag. */
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

  /** Frees the tag, which happens before the reply is sent. */
  free(request: Request): void {
    if (this.#waiting.get(request.tag) === request) this.#waiting.delete(request.tag);
  }

  /** Frees the tag of a request whose reply is discarded. */
  abandon(request: Request): void {
    this.free(request);
    request.unwanted = true;
    // A request with an effect may still be reading its payload.
    if (request.isWithoutEffect) request.drop();
  }

  /** Frees all tags: nothing that was asked is answered any more. Returns what may still have an effect. */
  abandonAll(): Request[] {
    const all = [...this.#waiting.values()];
    const effective = all.filter(request => !request.withdraw?.() && !request.isWithoutEffect);
    for (const request of all) this.abandon(request);
    return effective;
  }
}
