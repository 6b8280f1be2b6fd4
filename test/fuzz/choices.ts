/**
 * Decisions read from the bytes of an input, so that whoever changes the bytes changes what happens: the fuzzer, which
 * mutates and shortens them, and a file of a corpus, which repeats them. When no byte is left every choice is the first.
 */
export class Choices {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  byte(): number {
    return this.#bytes[this.#at++] ?? 0;
  }

  u32(): number {
    return (this.byte() | (this.byte() << 8) | (this.byte() << 16) | (this.byte() << 24)) >>> 0;
  }

  /** A number from 0 to `count` − 1. */
  below(count: number): number {
    if (count <= 256) return this.byte() % count;
    if (count <= 65536) return (this.byte() | (this.byte() << 8)) % count;
    return this.u32() % count;
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** True once in `count` times. */
  rarely(count: number): boolean {
    return this.below(count) === count - 1;
  }

  /** So many bytes of the input, zeros where there are no more. */
  bytes(count: number): Buffer {
    const taken = Buffer.alloc(count);
    taken.set(this.#bytes.subarray(this.#at, this.#at + count));
    this.#at += count;
    return taken;
  }

  /** All that is left. */
  rest(): Buffer {
    return this.bytes(Math.max(0, this.#bytes.length - this.#at));
  }

  /** Some of these at once, each once. */
  some<T>(list: readonly T[]): T[] {
    const bits = this.below(2 ** Math.min(list.length, 16));
    return list.filter((_, i) => bits & (1 << i));
  }
}

/** mulberry32: the bytes of an input for a seed, where no fuzzer makes them. */
export function bytesOf(seed: number, count: number): Buffer {
  let state = seed;
  const bytes = Buffer.alloc(count);
  for (let i = 0; i < count; i++) {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    bytes[i] = (t ^ (t >>> 14)) >>> 24;
  }
  return bytes;
}

/** What is not as it must be. */
export function assert(holds: boolean, what: () => string): asserts holds {
  if (!holds) throw new Error(what());
}

/** Compares what can be written as JSON. */
export function assertEqual(got: unknown, wanted: unknown, what: () => string): void {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what()}: ${a} instead of ${b}`);
}
