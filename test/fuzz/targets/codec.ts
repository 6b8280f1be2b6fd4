/** The request decoder against an independent one, and the decoders of replies and directory entries, and the trace. */
import { Errno } from '../../../src/base/errno.ts';
import {
  decodeReply,
  decodeRequest,
  encodeReply,
  encodeRequest,
  errnoOf,
} from '../../../src/protocol/codec.ts';
import { headerBytes, writeHeadBytes } from '../../../src/protocol/constants.ts';
import { parseDirents } from '../../../src/protocol/dirent.ts';
import { type Op, operations, ops, type RMessage, type TMessage } from '../../../src/protocol/operations.ts';
import { showFrame, showReply, showRequest } from '../../../src/protocol/trace.ts';
import { packDirents } from '../../support/pack-dirents.ts';
import { assert, assertEqual, Choices } from '../choices.ts';
import { type Raw, readByManual } from '../manual-reader.ts';

const tag = 7;
const wide = 2n ** 53n;

function frameOf(type: number, body: Buffer): Buffer {
  const frame = Buffer.alloc(headerBytes + body.length);
  frame.writeUInt32LE(frame.length, 0);
  frame[4] = type;
  frame.writeUInt16LE(tag, 5);
  frame.set(body, headerBytes);
  return frame;
}

/** The value or the errno; any other exception is a bug. */
function outcome<T>(act: () => T): T | Errno {
  try {
    return act();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno) return errno;
    throw error;
  }
}

/** A decoded field in the form of `manual-reader.ts`; `inexact` for a number beyond the decoder's precision. */
function sameField(field: string, value: unknown, raw: Raw): boolean | 'inexact' {
  if (typeof raw === 'string') return value === raw;
  if (Buffer.isBuffer(raw)) {
    const { count, bytes } = value as { count: number; bytes?: Uint8Array };
    return count === raw.length && bytes !== undefined && raw.equals(bytes);
  }
  if (typeof raw !== 'bigint') {
    const values = value as readonly unknown[];
    return values.length === raw.length && raw.every((one, i) => sameField(field, values[i], one) === true);
  }
  if (typeof value === 'object') {
    const { low, high } = value as { low: number; high: number };
    return BigInt(low) + (BigInt(high) << 32n) === raw;
  }
  if (/_n?sec$/.test(field)) {
    const signed = BigInt.asIntN(64, raw);
    if (signed < -wide || signed > wide) return Number.isSafeInteger(value) ? false : 'inexact';
    return BigInt(value as number) === signed;
  }
  if (raw < wide) return BigInt(value as number) === raw;
  // Beyond any file: a read returns nothing there, and a lock ends at the end of the file.
  return (field === 'offset' ? value === Number.MAX_SAFE_INTEGER : value === 0) ? 'inexact' : false;
}

function checkRequest(op: Op, body: Buffer): void {
  const frame = frameOf(operations[op].type, body);
  const wanted = readByManual(op, body);
  const got = outcome(() => decodeRequest(op, frame));
  const what = () => `T${op} ${body.toString('hex')}`;
  if (got instanceof Errno || wanted.errno !== undefined) {
    assertEqual(got instanceof Errno ? got.name : 'taken', wanted.errno ?? 'taken', what);
    return;
  }
  const same = [...wanted.fields].map(([field, raw]) => {
    const is = sameField(field, (got as Readonly<Record<string, unknown>>)[field], raw);
    assert(is !== false, () => `${what()}: ${field} is ${JSON.stringify((got as never)[field])}`);
    return is;
  });
  assertEqual(Object.keys(got), [...wanted.fields.keys()], what);
  const shortened = op === 'fsync' && body.length === 4;
  if (!same.includes('inexact') && !shortened)
    assertEqual(encodeRequest(op, tag, got).toString('hex'), frame.toString('hex'), what);
  printable(showRequest(op, tag, got));
  if (op === 'write') checkHead(frame, got as TMessage<'write'>);
}

/** A transport passes the head of Twrite alone, at any offset. */
function checkHead(frame: Buffer, whole: TMessage<'write'>): void {
  const memory = Buffer.concat([Buffer.alloc(3, 0xee), frame.subarray(0, writeHeadBytes)]);
  const { fid, offset, data } = decodeRequest('write', memory, 3);
  assertEqual([fid, offset, data.count], [whole.fid, whole.offset, whole.data.count], () => 'head of Twrite');
}

function checkReply(op: Op, type: number, body: Buffer): void {
  const frame = frameOf(type, body);
  const got = outcome(() => decodeReply(op, frame));
  if (got instanceof Errno) return;
  printable(showReply(op, tag, got as RMessage<Op>));
  // Times and other opaque numbers may be beyond exact numbers.
  const again = Buffer.alloc(frame.length);
  assertEqual(encodeReply(op, tag, got as RMessage<Op>, again), frame.length, () => `R${op}`);
  assert(again.equals(frame), () => `R${op} ${body.toString('hex')} became ${again.toString('hex', 7)}`);
}

function checkDirents(data: Buffer): void {
  const entries = outcome(() => parseDirents(data));
  if (entries instanceof Errno) return;
  assert(packDirents(entries).equals(data), () => `entries ${data.toString('hex')}`);
}

function printable(text: string): void {
  assert(/^[ -~…]*$/.test(text), () => `a trace that is not plain: ${JSON.stringify(text)}`);
}

export function fuzz(data: Buffer): void {
  const choices = new Choices(data);
  const what = choices.below(8);
  const op = choices.of(ops);
  const body = choices.rest();
  if (what < 5) checkRequest(op, body);
  else if (what === 5) checkReply(op, operations[op].type + 1, body);
  else if (what === 6) checkReply(op, choices.byte(), body);
  else checkDirents(body);
  printable(showFrame(frameOf(body[0] ?? 0, body)));
}
