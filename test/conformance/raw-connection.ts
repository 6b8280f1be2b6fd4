import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { type Op, operations } from '#protocol/operations.ts';

export const NOTAG = 0xffff;

/** The value of a field. Not checked, so that tests can send invalid messages. */
export type Loose = number | bigint | string | Uint8Array | readonly Loose[];

function integer(value: number | bigint, width: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
  return bytes.subarray(0, width);
}

/** Encodes a field by its notation in the manual, independently of src/protocol. */
function encodeField(notation: string, value: Loose): Buffer {
  if (Array.isArray(value))
    return Buffer.concat([integer(value.length, 2), ...value.map(one => encodeField(notation, one))]);
  if (value instanceof Uint8Array) return Buffer.concat([integer(value.length, 4), value]);
  if (typeof value === 'string')
    return Buffer.concat([integer(value.length, 2), Buffer.from(value, 'latin1')]);
  return integer(value as number | bigint, Number(/\[(\d+)\]/.exec(notation)?.[1]));
}

export function body(op: Op, fields: Readonly<Record<string, Loose>>): Buffer {
  const kinds = Object.entries(operations[op].T);
  return Buffer.concat(kinds.map(([field, { notation }]) => encodeField(notation, fields[field] ?? 0)));
}

/** A frame with the correct size. */
export function frame(type: number, tag: number, content: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([integer(7 + content.length, 4), integer(type, 1), integer(tag, 2), content]);
}

export interface Reply {
  readonly type: number;
  readonly tag: number;
  /** Without the header. */
  readonly body: Buffer;
  /** The errno of Rlerror; 0 for every other reply. */
  readonly ecode: number;
}

/** A connection that can send arbitrary bytes. */
export class RawConnection {
  readonly socket: Socket;
  readonly replies: Reply[] = [];
  #bytes: Buffer = Buffer.alloc(0);
  #wake: () => void = () => undefined;
  #gone = false;
  readonly #closed: Promise<void>;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', chunk => this.#arrived(chunk));
    socket.on('error', () => undefined);
    this.#closed = new Promise(resolve =>
      socket.on('close', () => {
        this.#gone = true;
        this.#wake();
        resolve();
      }),
    );
  }

  static async connect(path: string): Promise<RawConnection> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new RawConnection(socket);
  }

  /** A connection after Tversion, with fid 0 attached. */
  static async begin(path: string, msize = 131_072): Promise<RawConnection> {
    const wire = await RawConnection.connect(path);
    await wire.version(msize);
    const reply = await wire.request('attach', {
      fid: 0,
      afid: 0xffff_ffff,
      uname: '',
      aname: '',
      n_uname: 0,
    });
    if (reply.ecode !== 0) throw new Error(`attach: errno ${reply.ecode}`);
    return wire;
  }

  version(msize = 131_072, version = '9P2000.L'): Promise<Reply> {
    return this.request('version', { msize, version }, NOTAG);
  }

  #arrived(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    while (this.#bytes.length >= 7) {
      const size = this.#bytes.readUInt32LE(0);
      if (size < 7) throw new Error(`a reply of ${size} bytes`);
      if (this.#bytes.length < size) break;
      const [type, tag] = [this.#bytes[4]!, this.#bytes.readUInt16LE(5)];
      const content = this.#bytes.subarray(7, size);
      this.replies.push({ type, tag, body: content, ecode: type === 7 ? content.readUInt32LE(0) : 0 });
      this.#bytes = this.#bytes.subarray(size);
    }
    this.#wake();
  }

  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  say(op: Op, fields: Readonly<Record<string, Loose>>, tag = 1): void {
    this.send(frame(operations[op].type, tag, body(op, fields)));
  }

  /** Waits for the next reply and removes it from `replies`. Throws if the connection ends first. */
  async next(msMax = 5000): Promise<Reply> {
    const end = performance.now() + msMax;
    while (this.replies.length === 0) {
      if (this.#gone) throw new Error('the connection was closed');
      await this.#until(end, 'a reply');
    }
    return this.replies.shift()!;
  }

  /** Waits for `count` replies and removes them from `replies`. */
  async nextOf(count: number): Promise<Reply[]> {
    const replies: Reply[] = [];
    while (replies.length < count) replies.push(await this.next());
    return replies;
  }

  #until(end: number, what: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`no ${what} came`)),
        Math.max(0, end - performance.now()),
      );
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async request(op: Op, fields: Readonly<Record<string, Loose>>, tag = 1): Promise<Reply> {
    this.say(op, fields, tag);
    return this.next();
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** Resolves when the server has closed the connection. */
  async closed(): Promise<void> {
    const timer = setTimeout(() => this.socket.destroy(new Error('still open')), 5000);
    await this.#closed;
    clearTimeout(timer);
    if (this.socket.errored?.message === 'still open') throw this.socket.errored;
  }

  async end(): Promise<void> {
    this.socket.destroy();
    await this.#closed;
  }
}
