import { type Step, stepOf } from '#base/name.ts';

/** A power of two: as many names of 255 bytes are 256 KiB. */
const places = 1024;
const seen: (Step | undefined)[] = new Array(places).fill(undefined);

/**
 * The step of a walk that `length` bytes at `from` are; throws the Errno of what is none. The same few names are asked for
 * over and over, and making and checking a string costs more than finding the one that was made last time. A client that
 * holds many fids on one name holds one string.
 */
export function stepAt(bytes: Uint8Array, from: number, length: number): Step {
  let hash = length;
  for (let i = 0; i < length; i++) hash = Math.imul(hash ^ bytes[from + i]!, 0x01000193);
  const place = (hash ^ (hash >>> 16)) & (places - 1);
  const known = seen[place];
  if (known !== undefined && isWritten(known, bytes, from, length)) return known;
  const step = stepOf(Buffer.from(bytes.buffer, bytes.byteOffset + from, length).toString('latin1'));
  seen[place] = step;
  return step;
}

function isWritten(name: Step, bytes: Uint8Array, from: number, length: number): boolean {
  if (name.length !== length) return false;
  for (let i = 0; i < length; i++) if (name.charCodeAt(i) !== bytes[from + i]) return false;
  return true;
}
