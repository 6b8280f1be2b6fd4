declare const owned: unique symbol;

/**
 * Memory that stays valid until the call that uses it has settled: nothing else writes, reuses or unmaps it before.
 *
 * A call that may block takes `Owned` memory. Memory valid only in the current event-loop callback (receive buffer, reply being
 * assembled, guest memory) is a plain `Uint8Array` and not assignable to it.
 */
export type Owned<T extends Uint8Array = Uint8Array> = T & { readonly [owned]: true };

/** A scatter-gather list. */
export type Segments = readonly Uint8Array[];
export type OwnedSegments = readonly Owned[];

export function lengthOf(segments: Segments): number {
  let length = 0;
  for (const segment of segments) length += segment.length;
  return length;
}

/** Copies bytes into segments, which must hold at least as many. */
export function spread(bytes: Uint8Array, segments: Segments): void {
  let at = 0;
  for (const segment of segments) {
    const piece = bytes.subarray(at, at + segment.length);
    segment.set(piece);
    at += piece.length;
  }
}

/** Allocates uninitialized memory. Small sizes are disjoint slices of Node's buffer pool. */
export function allocOwned(bytes: number): Owned<Buffer> {
  return Buffer.allocUnsafe(bytes) as Owned<Buffer>;
}

/** Marks memory as owned. The caller guarantees that nothing else uses it until the call that takes it has settled. */
export function asOwned<T extends Uint8Array>(bytes: T): Owned<T> {
  return bytes as Owned<T>;
}

export function copyOwned(bytes: Uint8Array): Owned<Buffer> {
  return Buffer.from(bytes) as Owned<Buffer>;
}
