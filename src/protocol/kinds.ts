/**
 * Field types of messages: how a field is read, validated, written, measured, printed and noted in the 9P manual. Codec, trace
 * and types of a message are derived from them.
 */

import { EFBIG, EINVAL, EISDIR, ENOTEMPTY, EOVERFLOW, ERANGE, type Errno } from '#base/errno.ts';
import { ATTR_WIRE_BYTES, STATFS_BYTES } from '#base/layout.ts';
import { type Bytes, type Name, nameOf, type Step, stepOf } from '#base/name.ts';
import { xattrNameBytesMax } from '#quota/limits.ts';
import { Malformed, Reader, type Writer } from './bytes.ts';

/** `Out` is the type of a value read; `In` of a value written, often wider: tests send names that servers must reject. */
export interface Kind<Out, In = Out> {
  /** Suffix of the field's name in the manual's notation: `[4]`, `[s]`. */
  readonly notation: string;
  /** The whole field in that notation if it is more than name and suffix: `nwname[2] nwname*(wname[s])`. */
  fieldNotation?(field: string): string;
  /** Throws `Malformed` for a malformed frame and an `Errno` for an invalid value. */
  read(from: Reader): Out;
  write(to: Writer, value: In): void;
  /** Size of the value in bytes. */
  bytes(value: In): number;
  /** The value in a trace, with the client's bytes escaped. */
  show(value: Out): string;
}

// biome-ignore lint/suspicious/noExplicitAny: a message holds kinds of any value
export type Fields = Readonly<Record<string, Kind<any>>>;
type OutOf<K> = K extends Kind<infer Out, infer _> ? Out : never;
type InOf<K> = K extends Kind<infer _, infer In> ? In : never;
/** A message of these fields: as it is read, and as it can be written. */
export type Reading<F> = { readonly [Field in keyof F]: OutOf<F[Field]> };
export type Writing<F> = { readonly [Field in keyof F]: InOf<F[Field]> };

function fixed(width: number): { readonly notation: string; bytes(): number } {
  return { notation: `[${width}]`, bytes: () => width };
}

export interface Qid {
  readonly type: number;
  readonly version: number;
  readonly pathLow: number;
  readonly pathHigh: number;
}

/** A u64 that is never computed with, as two 32-bit halves. */
export interface Wide {
  readonly low: number;
  readonly high: number;
}

/** Data of a read, write or readdir. `bytes` is absent if it is in the request's payload or already behind the reply's head. */
export interface Data {
  readonly count: number;
  readonly bytes?: Uint8Array;
}

function integer(width: 1 | 2 | 4): Kind<number> {
  const read = { 1: (r: Reader) => r.u8(), 2: (r: Reader) => r.u16(), 4: (r: Reader) => r.u32() }[width];
  const write = {
    1: (w: Writer, value: number) => w.u8(value),
    2: (w: Writer, value: number) => w.u16(value),
    4: (w: Writer, value: number) => w.u32(value),
  }[width];
  return { ...fixed(width), read, write, show: String };
}

export const u8 = integer(1);
export const u16 = integer(2);
export const u32 = integer(4);
/** A fid that must exist. */
export const fid: Kind<number> = { ...integer(4) };
/** A fid that the message creates. */
export const newfid: Kind<number> = { ...integer(4) };
export const tag: Kind<number> = { ...integer(2) };
export const mode: Kind<number> = { ...integer(4), show: value => `0${value.toString(8)}` };
export const bits: Kind<number> = { ...integer(4), show: value => `0x${value.toString(16)}` };

/** A u32 at the end of a message that old clients omit; then 0. */
export const optionalU32: Kind<number> = { ...integer(4), read: r => (r.at === r.total ? 0 : r.u32()) };

/** A u64 as `Wide`. A safe integer ≥ 0 can be written too. */
export const wide: Kind<Wide, Wide | number> = {
  ...fixed(8),
  read: r => ({ low: r.u32(), high: r.u32() }),
  write: (w, value) => {
    if (typeof value === 'number') return w.u64(value);
    w.u32(value.low);
    w.u32(value.high);
  },
  show: ({ low, high }) => `0x${((BigInt(high) << 32n) | BigInt(low)).toString(16)}`,
};

/** A size or offset as a number. EINVAL from 2^63, which is negative in the kernel; EFBIG from 2^53, which is inexact. */
export function offsetOf({ low, high }: Wide): number {
  return exactOf(low, high, EFBIG, EINVAL);
}

function exactOf(low: number, high: number, inexact: Errno, negative: Errno): number {
  if (high >= 0x8000_0000) throw negative;
  if (high >= 0x20_0000) throw inexact;
  return high * 0x1_0000_0000 + low;
}

/** A u64 as an exact number. Throws `inexact` from 2^53 and `negative` from 2^63. */
function exact(inexact: Errno, negative: Errno): Kind<number> {
  return {
    ...fixed(8),
    read: r => {
      const low = r.u32();
      return exactOf(low, r.u32(), inexact, negative);
    },
    write: (w, value) => w.u64(value),
    show: String,
  };
}

export const offset = exact(EFBIG, EINVAL);
/** The offset of Tread. From 2^53 no file has data, so it becomes the largest offset: a read of 0 bytes, no error. */
export const readOffset: Kind<number> = {
  ...offset,
  read: r => {
    const low = r.u32();
    const high = r.u32();
    return high >= 0x8000_0000 || high < 0x20_0000
      ? exactOf(low, high, EFBIG, EINVAL)
      : Number.MAX_SAFE_INTEGER;
  },
};
/** The start of a lock; EOVERFLOW as fcntl(2). */
export const extent = exact(EOVERFLOW, EINVAL);
/** The length of a lock. 0 means to the end of the file; a length from 2^53 means the same. */
export const extentLength: Kind<number> = {
  ...extent,
  read: r => {
    const low = r.u32();
    const high = r.u32();
    return high >= 0x20_0000 && high < 0x8000_0000 ? 0 : exactOf(low, high, EOVERFLOW, EINVAL);
  },
};
export const size64 = exact(EFBIG, EFBIG);

/** A signed 64-bit number, two's complement. Beyond ±2^53 it is the nearest double, up to ±2^63. */
export const i64: Kind<number> = {
  ...fixed(8),
  read: r => {
    const low = r.u32();
    return (r.u32() | 0) * 0x1_0000_0000 + low;
  },
  write: (w, value) => {
    const high = Math.floor(value / 0x1_0000_0000);
    w.u32(value - high * 0x1_0000_0000);
    w.u32(high >>> 0);
  },
  show: String,
};

/** Seconds since 1970, which may be negative: fs/9p sends and takes time64_t as it is. */
export const seconds: Kind<number> = i64;
/** Nanoseconds. Users must check for 0 ≤ value < 10^9. */
export const nanoseconds: Kind<number> = i64;

const shownBytesMax = 300;

/** Escapes bytes for a log, so that a client cannot forge lines or send terminal escapes. Truncates to 300 bytes. */
export function quote(bytes: Bytes): string {
  const escaped = bytes
    .slice(0, shownBytesMax)
    .replace(/[^ !#-[\]-~]/g, c => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
  return bytes.length > shownBytesMax ? `"${escaped}"…` : `"${escaped}"`;
}

function text<T extends Bytes>(check: (bytes: Bytes) => T): Kind<T, Bytes> {
  return {
    notation: '[s]',
    read: r => check(r.str()),
    write: (w, value) => w.str(value),
    bytes: value => 2 + value.length,
    show: quote,
  };
}

export const str = text<Bytes>(bytes => bytes);
/** The name of a new object; EEXIST for `.` and `..`. */
export const name = text<Name>(bytes => nameOf(bytes));
/** A name in a rename; EISDIR for `.` and `..`, as QEMU's 9pfs. */
export const renameName = text<Name>(bytes => nameOf(bytes, EISDIR));
/** The name of an object to remove; EINVAL for `.` and ENOTEMPTY for `..`, as rmdir(2). */
export const unlinkName = text<Name>(bytes => nameOf(bytes, bytes === '.' ? EINVAL : ENOTEMPTY));
export const step = text<Step>(stepOf);
function checkXattrName(bytes: Bytes): Bytes {
  if (bytes.length > xattrNameBytesMax) throw ERANGE;
  if (bytes.includes('\0')) throw EINVAL;
  return bytes;
}

/** The name of an xattr, or empty to list all names. ERANGE if longer than 255 bytes. */
export const xattrNameOrNone = text(checkXattrName);
/** The name of an xattr. ERANGE if empty or longer than 255 bytes (setxattr(2)). */
export const xattrName = text(bytes => {
  if (bytes.length === 0) throw ERANGE;
  return checkXattrName(bytes);
});

export const qid: Kind<Qid> = {
  ...fixed(13),
  read: r => ({ type: r.u8(), version: r.u32(), pathLow: r.u32(), pathHigh: r.u32() }),
  write: (w, value) => {
    w.u8(value.type);
    w.u32(value.version);
    w.u32(value.pathLow);
    w.u32(value.pathHigh);
  },
  show: ({ type, version, pathLow, pathHigh }) =>
    `(${type.toString(16).padStart(2, '0')} ${version} ${wide.show({ low: pathLow, high: pathHigh })})`,
};

/** A record of fields that is passed as bytes from the system call to the wire. `unpack` decodes it. */
export interface RecordKind<F extends Fields> extends Kind<Uint8Array> {
  readonly fields: F;
}

function record<F extends Fields>(width: number, fields: F): RecordKind<F> {
  return {
    fields,
    notation: `[${width}]`,
    fieldNotation: () => notationOf(fields),
    read: r => {
      const from = r.take(width);
      return r.bytes.subarray(from, from + width);
    },
    write: (w, value) => w.raw(value, width),
    bytes: () => width,
    show: value => showFields(fields, unpack({ fields }, value)),
  };
}

export function unpack<F extends Fields>({ fields }: { readonly fields: F }, bytes: Uint8Array): Reading<F> {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const from = new Reader().open(buffer, 0, buffer.length, buffer.length);
  return Object.fromEntries(
    Object.entries(fields).map(([field, kind]) => [field, kind.read(from)]),
  ) as Reading<F>;
}

/** The body of Rgetattr: the first ATTR_WIRE_BYTES of `Attr`. */
export const attr = record(ATTR_WIRE_BYTES, {
  valid: wide,
  qid,
  mode,
  uid: u32,
  gid: u32,
  nlink: i64,
  rdev: i64,
  size: i64,
  blksize: i64,
  blocks: i64,
  atime_sec: seconds,
  atime_nsec: nanoseconds,
  mtime_sec: seconds,
  mtime_nsec: nanoseconds,
  ctime_sec: seconds,
  ctime_nsec: nanoseconds,
  btime_sec: seconds,
  btime_nsec: nanoseconds,
  gen: wide,
  data_version: wide,
});

/** The body of Rstatfs, as `Tree.statfs` fills it. */
export const statfs = record(STATFS_BYTES, {
  type: bits,
  bsize: u32,
  blocks: i64,
  bfree: i64,
  bavail: i64,
  files: i64,
  ffree: i64,
  fsid: wide,
  namelen: u32,
});

/** count[4] data[count] at the end of a message: Malformed unless the count is the rest of the message. */
export const data: Kind<Data> = {
  notation: '',
  fieldNotation: field => `count[4] ${field}[count]`,
  read: r => {
    const count = r.u32();
    if (count !== r.total - r.at)
      throw new Malformed(`count is ${count}, but ${r.total - r.at} bytes of data follow`);
    if (r.end !== r.total) {
      r.at = r.total;
      return { count };
    }
    const from = r.take(count);
    return { count, bytes: r.bytes.subarray(from, from + count) };
  },
  write: (w, { count, bytes }) => {
    w.u32(count);
    if (bytes) w.raw(bytes, count);
    else w.beside += count;
  },
  bytes: ({ count, bytes }) => 4 + (bytes ? count : 0),
  show: ({ count, bytes }) =>
    bytes
      ? `${count} ${quote(latin1(bytes.subarray(0, shownDataBytesMax)))}${count > shownDataBytesMax ? '…' : ''}`
      : `${count}`,
};

/** A count[2] and as many values; EINVAL for more than `max`. */
export function list<Out, In>(kind: Kind<Out, In>, max: number): Kind<readonly Out[], readonly In[]> {
  return {
    notation: kind.notation,
    fieldNotation: field => `n${field}[2] n${field}*(${field}${kind.notation})`,
    read: r => {
      const count = r.u16();
      if (count > max) throw EINVAL;
      const values: Out[] = [];
      for (let i = 0; i < count; i++) values.push(kind.read(r));
      return values;
    },
    write: (w, values) => {
      w.u16(values.length);
      for (const value of values) kind.write(w, value);
    },
    bytes: values => values.reduce((sum, value) => sum + kind.bytes(value), 2),
    show: values => `${values.length} ${values.map(kind.show).join(' ')}`.trimEnd(),
  };
}

const shownDataBytesMax = 32;

function latin1(bytes: Uint8Array): Bytes {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

/** The fields in the manual's notation: `fid[4] name[s]`. */
export function notationOf(fields: Fields): string {
  return Object.entries(fields)
    .map(([field, kind]) => kind.fieldNotation?.(field) ?? `${field}${kind.notation}`)
    .join(' ');
}

/** The fields of a message for a trace: `fid 1 name "a"`. */
export function showFields(fields: Fields, message: object): string {
  const values = message as Readonly<Record<string, unknown>>;
  return Object.entries(fields)
    .map(([field, kind]) => `${field} ${kind.show(values[field])}`)
    .join(' ');
}
