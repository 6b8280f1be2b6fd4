import { decodeRequest, encodeRequest, errnoOf } from '#protocol/codec.ts';
import type { Draft, Op } from '#protocol/operations.ts';

/** The errno of a request that cannot be decoded; `taken` if it can. */
export function fault(op: Op, frame: Buffer): string {
  try {
    decodeRequest(op, frame);
    return 'taken';
  } catch (error) {
    const errno = errnoOf(error);
    if (!errno) throw error;
    return errno.name;
  }
}

export function faultOf<O extends Op>(op: O, draft: Draft<O>): string {
  return fault(op, encodeRequest(op, 1, draft));
}

/** The frame truncated or zero-padded to `bytes`, with size[4] adjusted. */
export function resized(frame: Buffer, bytes: number): Buffer {
  const other = Buffer.alloc(bytes);
  frame.copy(other);
  other.writeUInt32LE(bytes, 0);
  return other;
}
