/**
 * Choices derived from the bytes of a fuzzer's input or of a corpus file. After the last byte every choice is the first.
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

  /** The next `count` bytes of the input, padded with zeros. */
  bytes(count: number): Buffer {
    const taken = Buffer.alloc(count);
    taken.set(this.#bytes.subarray(this.#at, this.#at + count));
    this.#at += count;
    return taken;
  }

  /** The rest of the input. */
  rest(): Buffer {
    return this.bytes(Math.max(0, this.#bytes.length - this.#at));
  }

  /** A random subset. */
  some<T>(list: readonly T[]): T[] {
    const bits = this.below(2 ** Math.min(list.length, 16));
    return list.filter((_, i) => bits & (1 << i));
  }
}

/** mulberry32: an input for a seed, without a fuzzer. */
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

/** A failed assertion. */
export function assert(holds: boolean, what: () => string): asserts holds {
  if (!holds) throw new Error(what());
}

/** Compares values as JSON. */
export function assertEqual(got: unknown, wanted: unknown, what: () => string): void {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what()}: ${a} instead of ${b}`);
}
