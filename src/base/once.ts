/** Tells for each key whether it is the first time, or the first in `repeatMs`. Remembers every key: there must be few. */
export class Once {
  readonly #repeatMs: number;
  readonly #last = new Map<unknown, number>();

  constructor(repeatMs = Number.POSITIVE_INFINITY) {
    this.#repeatMs = repeatMs;
  }

  isFirst(key: unknown): boolean {
    const now = performance.now();
    const last = this.#last.get(key);
    if (last !== undefined && now - last < this.#repeatMs) return false;
    this.#last.set(key, now);
    return true;
  }
}
