import { poison } from '#base/poison.ts';

/**
 * Pool of reply buffers. A buffer is returned once, when nothing reads or writes it any more. Sizes are powers of two from 64
 * KiB, which the replies to a burst of small requests fill.
 */
export const bufferBytesMin = 65536;

/** Limit of the pooled bytes, over all sizes. */
const pooledBytesMax = 32 * 1024 * 1024;

const pool = new Map<number, Buffer[]>();
let pooledBytes = 0;

/** A buffer of at least `bytes` bytes; its contents are undefined. */
export function takeBuffer(bytes: number): Buffer {
  let size = bufferBytesMin;
  while (size < bytes) size *= 2;
  const buffer = pool.get(size)?.pop();
  if (!buffer) return Buffer.allocUnsafeSlow(size);
  pooledBytes -= size;
  return buffer;
}

export function returnBuffer(buffer: Buffer): void {
  poison(buffer);
  const size = buffer.length;
  if (pooledBytes + size > pooledBytesMax) return;
  const sameSize = pool.get(size);
  if (sameSize) sameSize.push(buffer);
  else pool.set(size, [buffer]);
  pooledBytes += size;
}
