/** Messages as text, for trace logs. */
import { Errno } from '#base/errno.ts';
import { decodeRequest, frameTag, frameType, requestOp } from './codec.ts';
import { showFields } from './kinds.ts';
import { type Op, operations, type RMessage, type TMessage } from './operations.ts';

const spaced = (text: string): string => (text === '' ? '' : ` ${text}`);

/** `Twalk tag 4 fid 1 newfid 2 wname 1 "bc"` */
export function showRequest<O extends Op>(op: O, tag: number, request: TMessage<O>): string {
  return `T${op} tag ${tag}${spaced(showFields(operations[op].T, request))}`;
}

/** `Rwalk tag 4 wqid 1 (80 7 0x10)`, or `Rlerror tag 4 ENOENT (2)`. */
export function showReply<O extends Op>(op: O, tag: number, reply: RMessage<O> | Errno): string {
  if (reply instanceof Errno) return `Rlerror tag ${tag} ${reply}`;
  return `R${op} tag ${tag}${spaced(showFields(operations[op].R, reply))}`;
}

/** Any T-frame: decoded, or in hexadecimal if that fails. */
export function showAny(frame: Buffer): string {
  const op = requestOp(frameType(frame));
  try {
    return op === undefined ? showFrame(frame) : showRequest(op, frameTag(frame), decodeRequest(op, frame));
  } catch {
    return showFrame(frame);
  }
}

/** A frame in hexadecimal, at most 64 bytes of its body. */
export function showFrame(frame: Buffer): string {
  const more = frame.length > 71 ? '…' : '';
  return `type ${frameType(frame)} tag ${frameTag(frame)} ${frame.toString('hex', 7, 71)}${more}`;
}
