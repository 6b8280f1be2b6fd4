import type { Segments } from '#base/owned.ts';

/** Copies bytes into segments, which must hold at least as many. */
export function spread(bytes: Uint8Array, segments: Segments): void {
  let at = 0;
  for (const segment of segments) {
    const piece = bytes.subarray(at, at + segment.length);
    segment.set(piece);
    at += piece.length;
  }
}
