import { poison } from './poison.ts';

/**
 * Memory that replies are gathered in. Whoever takes a chunk gives it back once, when nothing reads or writes it any more.
 * Sizes are powers of two from 64 KiB on: what replies to a burst of small requests fill.
 */
export const bufferBytesMin = 65536;

/** Bytes that are kept for later use, over all sizes. */
const keptBytesMax = 32 * 1024 * 1024;

const kept = new Map<number, Buffer[]>();
let keptBytes = 0;

/** A chunk of at least `bytes` bytes, with whatever was in it. */
export function takeBuffer(bytes: number): Buffer {
  let size = bufferBytesMin;
  while (size < bytes) size *= 2;
  const buffer = kept.get(size)?.pop();
  if (!buffer) return Buffer.allocUnsafeSlow(size);
  keptBytes -= size;
  return buffer;
}

export function returnBuffer(buffer: Buffer): void {
  poison(buffer);
  const size = buffer.length;
  if (keptBytes + size > keptBytesMax) return;
  const those = kept.get(size);
  if (those) those.push(buffer);
  else kept.set(size, [buffer]);
  keptBytes += size;
}
