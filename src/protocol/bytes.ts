import type { Bytes } from '../name.ts';

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

/** Writes the fields of one message into memory that is large enough: `bytes` of its fields was asked before. */
export class Writer {
  bytes: Buffer = Buffer.alloc(0);
  at = 0;

  open(bytes: Buffer, at: number): this {
    this.bytes = bytes;
    this.at = at;
    return this;
  }

  u8(value: number): void {
    this.bytes[this.at++] = value;
  }
  u16(value: number): void {
    this.at = this.bytes.writeUInt16LE(value, this.at);
  }
  u32(value: number): void {
    this.at = this.bytes.writeUInt32LE(value, this.at);
  }
  str(text: Bytes): void {
    this.u16(text.length);
    this.at += this.bytes.write(text, this.at, 'latin1');
  }
  raw(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.at);
    this.at += bytes.length;
  }
}
