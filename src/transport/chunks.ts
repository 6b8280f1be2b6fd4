import { poison } from './poison.ts';

/**
 * Memory that replies are gathered in. Whoever takes a chunk gives it back once, when nothing reads or writes it any more.
 * Sizes are powers of two from 64 KiB on: what replies to a burst of small requests fill.
 */
export const chunkBytesMin = 65536;

/** Bytes that are kept for later use, over all sizes. */
const keptBytesMax = 32 * 1024 * 1024;

const kept = new Map<number, Buffer[]>();
let keptBytes = 0;

/** A chunk of at least `bytes` bytes, with whatever was in it. */
export function takeChunk(bytes: number): Buffer {
  let size = chunkBytesMin;
  while (size < bytes) size *= 2;
  const chunk = kept.get(size)?.pop();
  if (!chunk) return Buffer.allocUnsafeSlow(size);
  keptBytes -= size;
  return chunk;
}

export function giveBackChunk(chunk: Buffer): void {
  poison(chunk);
  const size = chunk.length;
  if (keptBytes + size > keptBytesMax) return;
  const those = kept.get(size);
  if (those) those.push(chunk);
  else kept.set(size, [chunk]);
  keptBytes += size;
}
