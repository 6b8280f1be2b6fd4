import { type Step, stepOf } from '#base/name.ts';

/** A power of two. 1024 names of 255 bytes take 256 KiB. */
const slotCount = 1024;
const slots: (Step | undefined)[] = new Array(slotCount).fill(undefined);

/**
 * The walk step in `length` bytes at `from`; throws as `stepOf`. Direct-mapped cache (FNV-1a hash): a hit costs less than
 * decoding and checking a string, and fids with equal names share one.
 */
export function stepAt(bytes: Uint8Array, from: number, length: number): Step {
  let hash = length;
  for (let i = 0; i < length; i++) hash = Math.imul(hash ^ bytes[from + i]!, 0x01000193);
  const slot = (hash ^ (hash >>> 16)) & (slotCount - 1);
  const cached = slots[slot];
  if (cached !== undefined && equalsBytes(cached, bytes, from, length)) return cached;
  const step = stepOf(Buffer.from(bytes.buffer, bytes.byteOffset + from, length).toString('latin1'));
  slots[slot] = step;
  return step;
}

function equalsBytes(name: Step, bytes: Uint8Array, from: number, length: number): boolean {
  if (name.length !== length) return false;
  for (let i = 0; i < length; i++) if (name.charCodeAt(i) !== bytes[from + i]) return false;
  return true;
}
