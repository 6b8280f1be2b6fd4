import type { Bytes } from '#base/name.ts';

/** A malformed message body: answered with EINVAL; the connection stays open. */
export class Malformed extends Error {
  override readonly name = 'Malformed';
}

/** Reads the fields of one message. Checks every length before use; throws Malformed. */
export class Reader {
  bytes: Buffer = Buffer.alloc(0);
  at = 0;
  /** End of the bytes in `bytes`. */
  end = 0;
  /** End of the message; beyond `end` if the payload is in other memory. */
  total = 0;

  open(bytes: Buffer, at: number, end: number, total: number): this {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
    this.total = total;
    return this;
  }

  /** Advances by `count` bytes and returns their offset. */
  take(count: number): number {
    const from = this.at;
    if (count > this.end - from) throw new Malformed(`the message ends before ${count} bytes at ${from}`);
    this.at = from + count;
    return from;
  }

  u8(): number {
    return this.bytes[this.take(1)]!;
  }
  u16(): number {
    return this.bytes.readUInt16LE(this.take(2));
  }
  u32(): number {
    return this.bytes.readUInt32LE(this.take(4));
  }
  str(): Bytes {
    const length = this.u16();
    const from = this.take(length);
    return this.bytes.toString('latin1', from, from + length);
  }
}

/** Writes the fields of one message. Throws RangeError if a value does not fit its field or the memory is too small. */
export class Writer {
  bytes: Buffer = Buffer.alloc(0);
  at = 0;
  /** Bytes of data that are already in place behind the written bytes. */
  beside = 0;

  open(bytes: Buffer, at: number): this {
    this.bytes = bytes;
    this.at = at;
    this.beside = 0;
    return this;
  }

  u8(value: number): void {
    this.at = this.bytes.writeUInt8(value, this.at);
  }
  u16(value: number): void {
    this.at = this.bytes.writeUInt16LE(value, this.at);
  }
  u32(value: number): void {
    this.at = this.bytes.writeUInt32LE(value, this.at);
  }
  /** Writes a safe integer ≥ 0; RangeError for anything else. */
  u64(value: number): void {
    if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is not a safe integer`);
    this.u32(value % 0x1_0000_0000);
    this.u32(Math.floor(value / 0x1_0000_0000));
  }
  str(text: Bytes): void {
    this.u16(text.length);
    const written = this.bytes.write(text, this.at, 'latin1');
    if (written !== text.length) throw new RangeError('the memory is too small for a string');
    this.at += written;
  }
  /** Writes the first `count` of `bytes`; copies nothing if they are already in place. */
  raw(bytes: Uint8Array, count: number): void {
    if (bytes.length < count) throw new RangeError(`${bytes.length} bytes given, ${count} needed`);
    const inPlace =
      bytes.buffer === this.bytes.buffer && bytes.byteOffset === this.bytes.byteOffset + this.at;
    if (!inPlace) this.bytes.set(bytes.length === count ? bytes : bytes.subarray(0, count), this.at);
    this.at += count;
  }
}
