import { ftruncateSync, openSync, unlinkSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { closeFd, dupCloexec } from '#host/fd.ts';
import { receiveMessage, sendMessage } from '#host/message.ts';
import { fdOf } from '#transport/handle.ts';

export interface Region {
  guestAddress: number;
  bytes: number;
  monitorAddress: number;
  fileOffset: number;
}

const EAGAIN = 11;
const EPIPE = 32;
const waitMsMax = 5000;
let files = 0;

/** An unlinked file for guest memory. */
export function memoryFile(bytes: number): number {
  const path = `/dev/shm/ninepd-test-${process.pid}-${files++}`;
  const fd = openSync(path, 'wx+', 0o600);
  unlinkSync(path);
  ftruncateSync(fd, bytes);
  return fd;
}

export function u64(...values: (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [i, value] of values.entries()) bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 8 * i);
  return bytes;
}

export function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value >>> 0, 4 * i);
  return bytes;
}

export function regionBytes({ guestAddress, bytes, monitorAddress, fileOffset }: Region): Buffer {
  return u64(guestAddress, bytes, monitorAddress, fileOffset);
}

export async function until(what: string, done: () => boolean): Promise<void> {
  const end = Date.now() + waitMsMax;
  while (!done()) {
    if (Date.now() > end) throw new Error(`${what}: not after ${waitMsMax} ms`);
    await new Promise(resolve => setImmediate(resolve));
  }
}

/** A monitor: one end of a vhost-user socket, which can send arbitrary messages. */
export class Monitor {
  readonly descriptor: number;

  private constructor(descriptor: number) {
    this.descriptor = descriptor;
  }

  static async connect(path: string): Promise<Monitor> {
    const socket: Socket = connect({ path });
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const descriptor = dupCloexec(fdOf(socket));
    socket.destroy();
    return new Monitor(descriptor);
  }

  close(): void {
    closeFd(this.descriptor);
  }

  /** Bytes as they are. */
  raw(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    const sent = sendMessage(this.descriptor, bytes, descriptors);
    if (sent !== bytes.length && sent !== -EPIPE) throw new Error(`sendmsg: ${sent}`);
  }

  /** Sends a request without a reply. */
  tell(
    number: number,
    payload: Uint8Array = Buffer.alloc(0),
    descriptors: readonly number[] = [],
    flags = 1,
  ): void {
    this.raw(Buffer.concat([u32(number, flags, payload.length), payload]), descriptors);
  }

  /** The payload of the reply. */
  async ask(
    number: number,
    payload: Uint8Array = Buffer.alloc(0),
    descriptors: readonly number[] = [],
  ): Promise<Buffer> {
    this.tell(number, payload, descriptors);
    return this.reply(number);
  }

  /** Sends a request with REPLY_ACK; the acknowledgement must be success. */
  async order(
    number: number,
    payload: Uint8Array = Buffer.alloc(0),
    descriptors: readonly number[] = [],
  ): Promise<void> {
    this.tell(number, payload, descriptors, 9);
    const acknowledged = await this.reply(number);
    if (acknowledged.length !== 8 || acknowledged.readBigUInt64LE() !== 0n) throw new Error('it was refused');
  }

  async reply(number: number): Promise<Buffer> {
    const header = await this.#read(12);
    if (header.readUInt32LE(0) !== number || header.readUInt32LE(4) !== 5) throw new Error('another reply');
    return this.#read(header.readUInt32LE(8));
  }

  async #read(bytes: number): Promise<Buffer> {
    const into = Buffer.alloc(bytes);
    let have = 0;
    await until('a reply', () => {
      if (have === bytes) return true;
      const got = receiveMessage(this.descriptor, into.subarray(have), []);
      if (got === -EAGAIN) return false;
      if (got <= 0) throw new Error('the connection was closed');
      have += got;
      return have === bytes;
    });
    return into;
  }

  /** Resolves when the other side has closed the connection. */
  async closed(): Promise<void> {
    const into = Buffer.alloc(4096);
    await until('the end of the connection', () => {
      const got = receiveMessage(this.descriptor, into, []);
      return got === 0 || (got < 0 && got !== -EAGAIN);
    });
  }
}
