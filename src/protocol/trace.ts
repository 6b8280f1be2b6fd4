/** Messages in the manual's notation, for people: trace logs and the table's own documentation. */
import { Errno } from '../errno.ts';
import { frameTag } from './codec.ts';
import type { Kind } from './kinds.ts';
import { type Op, operations, type RMessage, type TMessage } from './operations.ts';

function fields(layout: object, message: object): string {
  const values = message as Record<string, unknown>;
  return Object.entries(layout as Record<string, Kind<unknown>>)
    .map(([field, kind]) => ` ${field} ${kind.show(values[field])}`)
    .join('');
}

/** `Twalk tag 4 fid 1 newfid 2 wname 1 "bc"` */
export function showRequest<O extends Op>(op: O, tag: number, request: TMessage<O>): string {
  return `T${op} tag ${tag}${fields(operations[op].T, request)}`;
}

/** `Rwalk tag 4 wqid 1 (80 7 0x10)`, or `Rlerror tag 4 ENOENT (2)`. */
export function showReply<O extends Op>(op: O, tag: number, reply: RMessage<O> | Errno): string {
  if (reply instanceof Errno) return `Rlerror tag ${tag} ${reply}`;
  return `R${op} tag ${tag}${fields(operations[op].R, reply)}`;
}

/** A frame that could not be decoded. */
export function showFrame(frame: Buffer): string {
  return `type ${frame[4]} tag ${frameTag(frame)} ${frame.toString('hex', 7, 71)}${frame.length > 71 ? '…' : ''}`;
}

function layoutNotation(layout: object): string {
  return Object.entries(layout as Record<string, Kind<unknown>>)
    .map(([field, kind]) => ` ${fieldNotation(field, kind)}`)
    .join('');
}

function fieldNotation(field: string, kind: Kind<unknown>): string {
  if (field === 'wname' || field === 'wqid') return `n${field}[2] n${field}*(${field}${kind.notation})`;
  if (field === 'data') return 'count[4] data[count]';
  return `${field}${kind.notation}`;
}

/** A row as the manual writes it: `size[4] Tclunk tag[2] fid[4]`. */
export function notation(op: Op): { readonly T: string; readonly R: string } {
  const { T, R } = operations[op];
  return { T: `size[4] T${op} tag[2]${layoutNotation(T)}`, R: `size[4] R${op} tag[2]${layoutNotation(R)}` };
}
