declare const owned: unique symbol;

/**
 * Memory that a call may use for as long as it takes: until the call is settled nobody else writes, reuses or unmaps it.
 *
 * A call that may wait takes `Owned` memory. Memory that is valid until the end of the current event-loop callback only (a receive
 * buffer, a reply being gathered, a guest's buffers) is a plain `Uint8Array`: it is not assignable to `Owned`, so only functions that are done
 * when they return can be given it.
 */
export type Owned<T extends Uint8Array = Uint8Array> = T & { readonly [owned]: true };

/** Bytes in several places, in order. */
export type Segments = readonly Uint8Array[];
export type OwnedSegments = readonly Owned[];

/** New memory with undefined content. Small sizes share Node's pool of buffers, each with bytes of its own. */
export function allocOwned(bytes: number): Owned<Buffer> {
  return Buffer.allocUnsafe(bytes) as Owned<Buffer>;
}

/** The caller vouches that nobody else uses the memory until the call that it is given to is settled. */
export function asOwned<T extends Uint8Array>(bytes: T): Owned<T> {
  return bytes as Owned<T>;
}

export function copyOwned(bytes: Uint8Array): Owned<Buffer> {
  return Buffer.from(bytes) as Owned<Buffer>;
}
