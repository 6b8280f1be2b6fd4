import type { Bytes } from '#base/name.ts';

/** A message's body breaks its own rules: answered with EINVAL, and the connection lives. */
export class Malformed extends Error {
  override readonly name = 'Malformed';
}

/** Reads the fields of one message. Every length is checked before it is used. */
export class Reader {
  bytes: Buffer = Buffer.alloc(0);
  at = 0;
  /** End of the bytes at hand. */
  end = 0;
  /** End of the message; beyond `end` when the payload lies elsewhere. */
  total = 0;

  open(bytes: Buffer, at: number, end: number, total: number): this {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
    this.total = total;
    return this;
  }

  /** Moves on by `count` bytes and returns where they start. */
  take(count: number): number {
    const from = this.at;
    if (count > this.end - from) throw new Malformed(`${count} bytes wanted at ${from} of ${this.end}`);
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

/** Writes the fields of one message into memory that is large enough; RangeError when a value or the memory is not so. */
export class Writer {
  bytes: Buffer = Buffer.alloc(0);
  at = 0;
  /** Bytes of the message that lie in place behind what is written. */
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
  /** A safe integer from 0 on; RangeError for anything else. */
  u64(value: number): void {
    if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is not written exactly`);
    this.u32(value % 0x1_0000_0000);
    this.u32(Math.floor(value / 0x1_0000_0000));
  }
  str(text: Bytes): void {
    this.u16(text.length);
    const written = this.bytes.write(text, this.at, 'latin1');
    if (written !== text.length) throw new RangeError('no room for a string');
    this.at += written;
  }
  /** The first `count` of `bytes`. Costs nothing where they lie in place already. */
  raw(bytes: Uint8Array, count: number): void {
    if (bytes.length < count) throw new RangeError(`${bytes.length} bytes where ${count} are needed`);
    const inPlace =
      bytes.buffer === this.bytes.buffer && bytes.byteOffset === this.bytes.byteOffset + this.at;
    if (!inPlace) this.bytes.set(bytes.length === count ? bytes : bytes.subarray(0, count), this.at);
    this.at += count;
  }
}
