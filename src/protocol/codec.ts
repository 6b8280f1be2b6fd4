/** Encodes and decodes all messages, for server and client, from the table in operations.ts. */
import { EINVAL, Errno } from '#base/errno.ts';
import { Malformed, Reader, Writer } from './bytes.ts';
import { headerBytes } from './constants.ts';
import type { Kind } from './kinds.ts';
import { type Draft, lerror, type Op, operations, ops, type RMessage, type TMessage } from './operations.ts';

export { Malformed } from './bytes.ts';

type Layout = readonly (readonly [field: string, kind: Kind<unknown>])[];

interface Row {
  readonly op: Op;
  readonly T: Layout;
  readonly R: Layout;
}

const rows: readonly (Row | undefined)[] = (() => {
  const byType: (Row | undefined)[] = new Array(256).fill(undefined);
  for (const op of ops) {
    const { type, T, R } = operations[op];
    byType[type] = { op, T: Object.entries(T), R: Object.entries(R) };
  }
  return byType;
})();

const errorLayout: Layout = Object.entries(lerror.R);

const reader = new Reader();
const writer = new Writer();

const frameSize = (frame: Buffer, at = 0): number => frame.readUInt32LE(at);
export const frameType = (frame: Buffer, at = 0): number => frame[at + 4]!;
export const frameTag = (frame: Buffer, at = 0): number => frame.readUInt16LE(at + 5);

/** The operation of a T-message type; undefined for any other type, which is answered with EOPNOTSUPP. */
export function requestOp(type: number): Op | undefined {
  return rows[type]?.op;
}

function decode(layout: Layout, frame: Buffer, at: number, end: number): Record<string, unknown> {
  const total = at + frameSize(frame, at);
  const from = reader.open(frame, at + headerBytes, Math.min(end, total), total);
  const message: Record<string, unknown> = {};
  for (const [field, kind] of layout) message[field] = kind.read(from);
  if (from.at !== from.total) throw new Malformed(`${from.total - from.at} bytes after the last field`);
  return message;
}

/**
 * Decodes the request from `at` to `end`, whose size[4] was checked. The data of Twrite may be in other memory. Throws Malformed,
 * or an Errno for an invalid name or number.
 */
export function decodeRequest<O extends Op>(op: O, frame: Buffer, at = 0, end = frame.length): TMessage<O> {
  const row = rows[operations[op].type]!;
  return decode(row.T, frame, at, end) as TMessage<O>;
}

/** The Errno to answer for an error; undefined if the error is a bug. */
export function errnoOf(error: unknown): Errno | undefined {
  return error instanceof Errno ? error : error instanceof Malformed ? EINVAL : undefined;
}

function measure(layout: Layout, message: Readonly<Record<string, unknown>>): number {
  let bytes = headerBytes;
  for (const [field, kind] of layout) bytes += kind.bytes(message[field]);
  return bytes;
}

/** Writes a message; returns the bytes written. Data in place behind them counts in size[4] only. */
function encode(
  type: number,
  layout: Layout,
  tag: number,
  message: Readonly<Record<string, unknown>>,
  into: Buffer,
  at: number,
): number {
  const to = writer.open(into, at + 4);
  to.u8(type);
  to.u16(tag);
  for (const [field, kind] of layout) kind.write(to, message[field]);
  const written = to.at - at;
  into.writeUInt32LE(written + to.beside, at);
  return written;
}

/** Writes a reply at `at`; returns the bytes written, without data in place behind them. */
export function encodeReply<O extends Op>(
  op: O,
  tag: number,
  reply: RMessage<O>,
  into: Buffer,
  at = 0,
): number {
  const { type } = operations[op];
  return encode(type + 1, rows[type]!.R, tag, reply as Record<string, unknown>, into, at);
}

/** Writes Rlerror at `at`; returns the bytes written. */
export function encodeError(tag: number, errno: Errno, into: Buffer, at = 0): number {
  const to = writer.open(into, at);
  to.u32(headerBytes + 4);
  to.u8(lerror.type);
  to.u16(tag);
  to.u32(errno.code);
  return headerBytes + 4;
}

/** Encodes a T-message. Throws RangeError if a value does not fit its field. */
export function encodeRequest<O extends Op>(op: O, tag: number, request: Draft<O> | TMessage<O>): Buffer {
  const { type } = operations[op];
  const row = rows[type]!;
  const frame = Buffer.allocUnsafe(measure(row.T, request as Record<string, unknown>));
  encode(type, row.T, tag, request as Record<string, unknown>, frame, 0);
  return frame;
}

/** Decodes the reply in an R-frame; an Errno for Rlerror. Throws Malformed if it is not a reply to `op`. */
export function decodeReply<O extends Op>(op: O, frame: Buffer): RMessage<O> | Errno {
  const type = frameType(frame);
  if (type === lerror.type) return Errno.of(decode(errorLayout, frame, 0, frame.length).ecode as number);
  if (type !== operations[op].type + 1) throw new Malformed(`type ${type} is not the reply to ${op}`);
  return decode(rows[operations[op].type]!.R, frame, 0, frame.length) as RMessage<O>;
}
