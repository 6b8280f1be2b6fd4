import type { Op } from '../../src/protocol/operations.ts';
import { manual } from '../unit/protocol/manual.ts';

/** The value of a field: integer, string as latin1, data, list. */
export type Raw = bigint | string | Buffer | readonly Raw[];

/** The fields of a body, or the errno of the reply. */
export type Reading =
  | { readonly fields: ReadonlyMap<string, Raw>; readonly errno?: undefined }
  | { readonly errno: string };

const wide = 2n ** 53n;
const negative = 2n ** 63n;

/** A name to create, change or look up; `dots` is the errno for `.` and `..`. */
function nameFault(name: string, dots: (name: string) => string | undefined): string | undefined {
  if (name.length === 0) return 'ENOENT';
  if (name.length > 255) return 'ENAMETOOLONG';
  if (/[/\0]/.test(name)) return 'ENOENT';
  return name === '.' || name === '..' ? dots(name) : undefined;
}

function positionFault(value: bigint, inexact: string | undefined): string | undefined {
  return value >= negative ? 'EINVAL' : value >= wide ? inexact : undefined;
}

/** The errno for a field's value: that of the Linux call to which the message corresponds. */
function refusal(op: Op, field: string, value: Raw): string | undefined {
  if (op === 'xattrwalk' || op === 'xattrcreate') {
    if (field !== 'name') return undefined;
    const name = value as string;
    if (op === 'xattrcreate' && name.length === 0) return 'ERANGE';
    return name.length > 255 ? 'ERANGE' : name.includes('\0') ? 'EINVAL' : undefined;
  }
  if (field === 'wname') return nameFault(value as string, name => (name === '.' ? 'EINVAL' : undefined));
  if (/^(old|new)?name$/.test(field)) {
    if (op === 'rename' || op === 'renameat') return nameFault(value as string, () => 'EISDIR');
    const dots = (name: string) => (op !== 'unlinkat' ? 'EEXIST' : name === '.' ? 'EINVAL' : 'ENOTEMPTY');
    return nameFault(value as string, dots);
  }
  if (op === 'write' && field === 'offset') return positionFault(value as bigint, 'EFBIG');
  if (op === 'read' && field === 'offset') return positionFault(value as bigint, undefined);
  if (op !== 'lock' && op !== 'getlock') return undefined;
  if (field === 'start') return positionFault(value as bigint, 'EOVERFLOW');
  return field === 'length' ? positionFault(value as bigint, undefined) : undefined;
}

class Fault extends Error {}

/** Decodes bodies by the manual's notation, without code of src. */
class Body {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.at;
  }

  take(count: number): Buffer {
    if (count > this.left) throw new Fault('EINVAL');
    this.at += count;
    return this.#bytes.subarray(this.at - count, this.at);
  }

  integer(width: number): bigint {
    return [...this.take(width)].reduceRight((value, byte) => value * 256n + BigInt(byte), 0n);
  }

  field(notation: string): Raw {
    if (notation === 's') return this.take(Number(this.integer(2))).toString('latin1');
    return Number(notation) > 8 ? this.take(Number(notation)) : this.integer(Number(notation));
  }
}

/** `nwname[2] nwname*(wname[s])`, `count[4] data[count]`, and plain fields. */
const piece = /n(\w+)\[2\] n\1\*\(\1\[(\w+)\]\)|count\[4\] (\w+)\[count\]|(\w+)\[(\w+)\]/g;

function readPiece(
  body: Body,
  op: Op,
  [, listed, inner, data, plain, width]: RegExpMatchArray,
): [string, Raw] {
  const checked = (field: string, value: Raw): Raw => {
    const errno = refusal(op, field, value);
    if (errno !== undefined) throw new Fault(errno);
    return value;
  };
  if (listed !== undefined) {
    const count = Number(body.integer(2));
    if (count > 16) throw new Fault('EINVAL');
    return [listed, Array.from({ length: count }, () => checked(listed, body.field(inner!)))];
  }
  if (data !== undefined) {
    if (Number(body.integer(4)) !== body.left) throw new Fault('EINVAL');
    return [data, body.take(body.left)];
  }
  // fsync: old clients omit it.
  if (plain === 'datasync' && body.left === 0) return [plain, 0n];
  return [plain!, checked(plain!, body.field(width!))];
}

/** The body of a T-message, or the errno of its reply. */
export function readByManual(op: Op, bytes: Buffer): Reading {
  const body = new Body(bytes);
  const fields = new Map<string, Raw>();
  try {
    for (const match of manual[op][1].matchAll(piece)) {
      const [field, value] = readPiece(body, op, match);
      fields.set(field, value);
    }
    if (body.left > 0) throw new Fault('EINVAL');
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return { errno: error.message };
  }
  return { fields };
}
