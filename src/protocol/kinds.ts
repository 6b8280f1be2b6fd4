/**
 * The kinds of a field: what it means, not only how wide it is. A kind knows how its values are read, written, measured,
 * printed and noted in the manual's notation; everything about a message follows from the kinds of its fields.
 */
import { attrWireBytes } from '../attr.ts';
import { EFBIG, EINVAL, EISDIR, ENOTEMPTY, EOVERFLOW, ERANGE, type Errno } from '../errno.ts';
import { xattrNameBytesMax } from '../limits.ts';
import { type Bytes, type Name, nameOf, type Step, stepOf } from '../name.ts';
import { Malformed, type Reader, type Writer } from './bytes.ts';

export interface Kind<T> {
  /** Behind the field's name in the manual's notation: `[4]`, `[s]`. */
  readonly notation: string;
  read(from: Reader): T;
  write(to: Writer, value: T): void;
  bytes(value: T): number;
  show(value: T): string;
}

export interface Qid {
  readonly type: number;
  readonly version: number;
  readonly pathLow: number;
  readonly pathHigh: number;
}

/** A 64-bit value that is only carried: two 32-bit halves, exact. */
export interface Wide {
  readonly low: number;
  readonly high: number;
}

/**
 * The data of a read, write or directory listing. `bytes` is absent where the data lies beside the head: in the payload of
 * a request, or in place behind the head of a reply.
 */
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
  return { notation: `[${width}]`, read, write, bytes: () => width, show: String };
}

export const u8 = integer(1);
export const u16 = integer(2);
export const u32 = integer(4);
/** A number that the client gives an object; must be known. */
export const fid: Kind<number> = { ...integer(4) };
/** A number that the client gives a new object; must be unknown. */
export const newfid: Kind<number> = { ...integer(4) };
export const tag: Kind<number> = { ...integer(2) };
/** Bits, where octal is what a person reads. */
export const mode: Kind<number> = { ...integer(4), show: value => `0${value.toString(8)}` };
export const bits: Kind<number> = { ...integer(4), show: value => `0x${value.toString(16)}` };

/** A u32 at the end of a message that old clients leave out: 0 then. */
export const optionalU32: Kind<number> = { ...integer(4), read: r => (r.at === r.total ? 0 : r.u32()) };

export const wide: Kind<Wide> = {
  notation: '[8]',
  read: r => ({ low: r.u32(), high: r.u32() }),
  write: (w, { low, high }) => {
    w.u32(low);
    w.u32(high);
  },
  bytes: () => 8,
  show: ({ low, high }) => `0x${((BigInt(high) << 32n) | BigInt(low)).toString(16)}`,
};

/** The number that a size or position is: EINVAL where it would be negative in the kernel, EFBIG where it is inexact. */
export function offsetOf({ low, high }: Wide): number {
  return exactOf(low, high, EFBIG, EINVAL);
}

function exactOf(low: number, high: number, inexact: Errno, negative: Errno): number {
  if (high >= 0x8000_0000) throw negative;
  if (high >= 0x20_0000) throw inexact;
  return high * 0x1_0000_0000 + low;
}

/** A u64 as a number that is exact: beyond 2^53 it is `inexact`, beyond 2^63, where it would be negative, `negative`. */
function exact(inexact: Errno, negative: Errno): Kind<number> {
  return {
    notation: '[8]',
    read: r => {
      const low = r.u32();
      return exactOf(low, r.u32(), inexact, negative);
    },
    write: (w, value) => {
      w.u32(value % 0x1_0000_0000);
      w.u32(Math.floor(value / 0x1_0000_0000));
    },
    bytes: () => 8,
    show: String,
  };
}

/** A position in a file, or its size. */
export const offset = exact(EFBIG, EINVAL);
/** The start or length of a lock: fcntl(2). */
export const extent = exact(EOVERFLOW, EINVAL);
/** How many bytes something has. */
export const size64 = exact(EFBIG, EFBIG);

/** Seconds since 1970, two's complement. Beyond 2^53 either way no safe integer: whoever uses it checks. */
export const seconds: Kind<number> = {
  notation: '[8]',
  read: r => {
    const low = r.u32();
    return (r.u32() | 0) * 0x1_0000_0000 + low;
  },
  write: (w, value) => {
    const high = Math.floor(value / 0x1_0000_0000);
    w.u32(value - high * 0x1_0000_0000);
    w.u32(high >>> 0);
  },
  bytes: () => 8,
  show: String,
};

/** Nanoseconds: whoever uses them checks that they are below 10^9. */
export const nanoseconds: Kind<number> = seconds;

function show(text: Bytes): string {
  const escaped = text.replace(/[^ !#-[\]-~]/g, c => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
  return escaped.length > 300 ? `"${escaped.slice(0, 300)}"…` : `"${escaped}"`;
}

function text<T extends Bytes>(check: (bytes: Bytes) => T): Kind<T> {
  return {
    notation: '[s]',
    read: r => check(r.str()),
    write: (w, value) => w.str(value),
    bytes: value => 2 + value.length,
    show,
  };
}

/** Any bytes. */
export const str: Kind<Bytes> = text(bytes => bytes);
/** The name of an object to be made: `.` and `..` exist already. */
export const name: Kind<Name> = text(bytes => nameOf(bytes));
/** A name in a rename: `.` and `..` are directories that cannot be replaced or moved. */
export const renameName: Kind<Name> = text(bytes => nameOf(bytes, EISDIR));
/** A name to be removed: rmdir(2) says EINVAL for `.` and ENOTEMPTY for `..`. */
export const unlinkName: Kind<Name> = text(bytes => nameOf(bytes, bytes === '.' ? EINVAL : ENOTEMPTY));
/** A step of a walk. */
export const step: Kind<Step> = text(stepOf);
/** The name of an xattr: xattr(7). Empty where a message says so. */
export const xattrName: Kind<Bytes> = text(bytes => {
  if (bytes.length > xattrNameBytesMax) throw ERANGE;
  if (bytes.includes('\0')) throw EINVAL;
  return bytes;
});

export const qid: Kind<Qid> = {
  notation: '[13]',
  read: r => ({ type: r.u8(), version: r.u32(), pathLow: r.u32(), pathHigh: r.u32() }),
  write: (w, value) => {
    w.u8(value.type);
    w.u32(value.version);
    w.u32(value.pathLow);
    w.u32(value.pathHigh);
  },
  bytes: () => 13,
  show: ({ type, version, pathLow, pathHigh }) =>
    `(${type.toString(16).padStart(2, '0')} ${version} ${wide.show({ low: pathLow, high: pathHigh })})`,
};

/** A record that is carried as the bytes it is. */
function record(width: number): Kind<Uint8Array> {
  return {
    notation: `[${width}]`,
    read: r => {
      const from = r.take(width);
      return r.bytes.subarray(from, from + width);
    },
    write: (w, value) => w.raw(value.length === width ? value : value.subarray(0, width)),
    bytes: () => width,
    show: value => Buffer.from(value.buffer, value.byteOffset, Math.min(value.length, width)).toString('hex'),
  };
}

/** The body of Rgetattr: attr.ts has its layout. */
export const attr = record(attrWireBytes);
/** The body of Rstatfs: type[4] bsize[4] blocks[8] bfree[8] bavail[8] files[8] ffree[8] fsid[8] namelen[4]. */
export const statfs = record(60);

export const data: Kind<Data> = {
  notation: '',
  read: r => {
    const count = r.u32();
    if (count !== r.total - r.at)
      throw new Malformed(`${count} bytes of data announced, ${r.total - r.at} there`);
    if (r.end !== r.total) {
      r.at = r.total;
      return { count };
    }
    const from = r.take(count);
    return { count, bytes: r.bytes.subarray(from, from + count) };
  },
  write: (w, { count, bytes }) => {
    w.u32(count);
    if (bytes) w.raw(bytes);
  },
  bytes: ({ count, bytes }) => 4 + (bytes ? count : 0),
  show: ({ count }) => `${count} bytes`,
};

/** A count[2] and as many values. */
export function list<T>(kind: Kind<T>, max: number): Kind<readonly T[]> {
  return {
    notation: kind.notation,
    read: r => {
      const count = r.u16();
      if (count > max) throw EINVAL;
      const values: T[] = [];
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
