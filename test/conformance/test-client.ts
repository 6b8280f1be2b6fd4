import { ENOENT, Errno } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import { type Address, Wire as ClientWire } from '#client/wire.ts';
import { type Dirent, parseDirents } from '#protocol/dirent.ts';
import { type Qid, type Wide, wide } from '#protocol/kinds.ts';
import { type Op, operations, type RMessage, type TMessage } from '#protocol/operations.ts';
import { body, frame, type Loose } from './raw-connection.ts';

/** P9_DOTL open flags. */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  NOACCESS: 3,
  CREATE: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DSYNC: 0o10000,
  FASYNC: 0o20000,
  DIRECT: 0o40000,
  LARGEFILE: 0o100000,
  DIRECTORY: 0o200000,
  NOFOLLOW: 0o400000,
  NOATIME: 0o1000000,
  CLOEXEC: 0o2000000,
  SYNC: 0o4000000,
} as const;

/** Tsetattr.valid. */
export const SET = {
  MODE: 1,
  UID: 2,
  GID: 4,
  SIZE: 8,
  ATIME: 0x10,
  MTIME: 0x20,
  CTIME: 0x40,
  ATIME_SET: 0x80,
  MTIME_SET: 0x100,
} as const;

export const AT_REMOVEDIR = 0x200;
export const NOFID = 0xffff_ffff;
export const NONUNAME = 0xffff_ffff;

/** The name of the errno with which a request fails; `none` if it succeeds. */
export async function errnoOf(answer: Promise<unknown>): Promise<string> {
  try {
    await answer;
    return 'none';
  } catch (error) {
    if (error instanceof Errno) return error.name;
    throw error;
  }
}

/** A message with plain numbers for 64-bit fields. */
type Plain<T> = T extends Wide
  ? number | bigint
  : T extends number
    ? number
    : T extends string
      ? string
      : T extends readonly unknown[]
        ? readonly string[]
        : T;
type PlainMessage<O extends Op> = { readonly [F in keyof TMessage<O>]: Plain<TMessage<O>[F]> };

/** Indexed by the type bits of a mode, shifted down. */
const typeNames: Readonly<Record<number, string>> = {
  12: 'socket',
  10: 'symlink',
  8: 'file',
  6: 'block',
  4: 'directory',
  2: 'char',
  1: 'fifo',
};

export interface PlainQid {
  readonly type: number;
  readonly version: number;
  readonly path: bigint;
}

export interface Entry {
  readonly name: string;
  readonly type: number;
  readonly offset: bigint;
  readonly qid: PlainQid;
}

const big = ({ low, high }: Wide) => (BigInt(high) << 32n) | BigInt(low);
const second = 1_000_000_000n;

/** A session over the real client: one method for each message, plain values, and a counter for fids. */
export class TestClient {
  readonly client: Client;
  #nextFid = 1;

  private constructor(client: Client) {
    this.client = client;
  }

  /** Connects, negotiates a version and attaches fid 0. */
  static async begin(
    address: Address,
    { aname = '', n_uname = 0, msize = 131_072 } = {},
  ): Promise<TestClient> {
    const client = new TestClient(new Client(await ClientWire.connect(address)));
    await client.client.version(msize);
    await client.attach(0, { aname, n_uname });
    return client;
  }

  get msize(): number {
    return this.client.msize;
  }

  fid(): number {
    return this.#nextFid++;
  }

  call<O extends Op>(op: O, message: PlainMessage<O>): Promise<RMessage<O>> {
    const { T } = operations[op];
    const exact = Object.entries(message).map(([field, value]) => {
      if (T[field as keyof typeof T] !== wide) return [field, value];
      const bits = BigInt.asUintN(64, BigInt(value as number | bigint));
      return [field, { low: Number(bits & 0xffff_ffffn), high: Number(bits >> 32n) }];
    });
    return this.client.wire.request(op, Object.fromEntries(exact) as TMessage<O>);
  }

  /** As `call`, for numbers that the client cannot encode; ignores the reply's fields. */
  async loose(op: Op, fields: Readonly<Record<string, Loose>>): Promise<void> {
    const { wire } = this.client;
    const tag = wire.freeTag();
    const ecode = await new Promise<number>(resolve => {
      wire.tap = reply => {
        if (reply.readUInt16LE(5) !== tag) return false;
        wire.tap = undefined;
        resolve(reply[4] === 7 ? reply.readUInt32LE(7) : 0);
        return true;
      };
      wire.send(frame(operations[op].type, tag, body(op, fields)));
    });
    if (ecode !== 0) throw Errno.of(ecode);
  }

  async attach(fid: number, { aname = '', n_uname = 0, afid = NOFID } = {}): Promise<PlainQid> {
    return this.qid((await this.call('attach', { fid, afid, uname: '', aname, n_uname })).qid);
  }

  qid({ type, version, pathLow, pathHigh }: Qid): PlainQid {
    return { type, version, path: big({ low: pathLow, high: pathHigh }) };
  }

  /** Walks to a new fid; ENOENT if the walk is partial. */
  async walk(fid: number, ...wname: string[]): Promise<number> {
    const newfid = this.fid();
    const { wqid } = await this.call('walk', { fid, newfid, wname });
    if (wqid.length < wname.length) throw ENOENT;
    return newfid;
  }

  /** Clones the fid and opens the clone. */
  async open(fid: number, flags: number): Promise<number> {
    const clone = await this.walk(fid);
    await this.call('lopen', { fid: clone, flags });
    return clone;
  }

  /** Creates a file; returns its open fid. */
  async create(
    dir: number,
    name: string,
    { flags = O.RDWR as number, mode = 0o644, gid = 0 } = {},
  ): Promise<number> {
    const fid = await this.walk(dir);
    await this.call('lcreate', { fid, name, flags, mode, gid });
    return fid;
  }

  /** Creates a file; returns a fid that is not open. */
  async file(dir: number, name: string, content: string | Uint8Array = '', mode = 0o644): Promise<number> {
    const open = await this.create(dir, name, { flags: O.WRONLY | O.EXCL, mode });
    const bytes = Buffer.from(content as string, 'latin1');
    const piece = this.msize - 24;
    for (let at = 0; at < bytes.length; at += piece)
      await this.write(open, at, bytes.subarray(at, at + piece));
    // A write by root keeps set-id bits, so the mode stays as requested.
    await this.clunk(open);
    return this.walk(dir, name);
  }

  async read(fid: number, offset: number | bigint, count: number): Promise<Buffer> {
    const { data } = await this.call('read', { fid, offset: Number(offset), count });
    return data.bytes as Buffer;
  }

  async write(fid: number, offset: number, content: string | Uint8Array): Promise<number> {
    const bytes = Buffer.from(content as string, 'latin1');
    return (await this.call('write', { fid, offset, data: { count: bytes.length, bytes } })).count;
  }

  clunk(fid: number): Promise<unknown> {
    return this.call('clunk', { fid });
  }

  async look(fid: number, request_mask = 0x3fff) {
    const { attr } = await this.call('getattr', { fid, request_mask });
    const bytes = attr as Buffer;
    const u64 = (at: number) => bytes.readBigUInt64LE(at);
    const time = (at: number) => bytes.readBigInt64LE(at) * second + u64(at + 8);
    const mode = bytes.readUInt32LE(21);
    return {
      valid: Number(u64(0)),
      qid: { type: bytes[8]!, version: bytes.readUInt32LE(9), path: u64(13) },
      mode,
      type: typeNames[mode >> 12],
      uid: bytes.readUInt32LE(25),
      gid: bytes.readUInt32LE(29),
      nlink: Number(u64(33)),
      rdev: Number(u64(41)),
      size: Number(u64(49)),
      blksize: Number(u64(57)),
      blocks: Number(u64(65)),
      atime: time(73),
      mtime: time(89),
      ctime: time(105),
    };
  }

  /** The fields of a Tsetattr that changes nothing, but `fid` and `valid`. */
  readonly noChange = {
    mode: 0,
    uid: 0xffff_ffff,
    gid: 0xffff_ffff,
    size: 0,
    atime_sec: 0,
    atime_nsec: 0,
    mtime_sec: 0,
    mtime_nsec: 0,
  };

  /** Creates a directory and walks to it. */
  async mkdir(dfid: number, name: string, mode = 0o755, gid = 0): Promise<number> {
    await this.call('mkdir', { dfid, name, mode, gid });
    return this.walk(dfid, name);
  }

  symlink(dfid: number, name: string, symtgt: string): Promise<unknown> {
    return this.call('symlink', { dfid, name, symtgt, gid: 0 });
  }

  mknod(dfid: number, name: string, mode: number, major = 0, minor = 0, gid = 0): Promise<unknown> {
    return this.call('mknod', { dfid, name, mode, major, minor, gid });
  }

  link(dfid: number, fid: number, name: string): Promise<unknown> {
    return this.call('link', { dfid, fid, name });
  }

  rename(olddirfid: number, oldname: string, newdirfid: number, newname: string): Promise<unknown> {
    return this.call('renameat', { olddirfid, oldname, newdirfid, newname });
  }

  unlink(dirfid: number, name: string): Promise<unknown> {
    return this.call('unlinkat', { dirfid, name, flags: 0 });
  }

  rmdir(dirfid: number, name: string): Promise<unknown> {
    return this.call('unlinkat', { dirfid, name, flags: AT_REMOVEDIR });
  }

  async readdir(fid: number, offset: number | bigint, count = 8192): Promise<Entry[]> {
    const { data } = await this.call('readdir', { fid, offset, count });
    if (data.count > count) throw new Error(`${data.count} bytes for a count of ${count}`);
    return parseDirents(data.bytes!).map((entry: Dirent) => ({
      name: entry.name,
      type: entry.type,
      offset: big(entry.offset),
      qid: this.qid(entry.qid),
    }));
  }

  /** All entries, read through a clone of the fid. */
  async list(dir: number, count = 8192): Promise<Entry[]> {
    const open = await this.open(dir, O.RDONLY);
    const all: Entry[] = [];
    for (let some = await this.readdir(open, 0, count); some.length > 0; ) {
      all.push(...some);
      some = await this.readdir(open, some.at(-1)!.offset, count);
    }
    await this.clunk(open);
    return all;
  }

  async statfs(fid: number) {
    const bytes = (await this.call('statfs', { fid })).statfs as Buffer;
    const u64 = (at: number) => Number(bytes.readBigUInt64LE(at));
    return {
      type: bytes.readUInt32LE(0),
      bsize: bytes.readUInt32LE(4),
      blocks: u64(8),
      bfree: u64(16),
      bavail: u64(24),
      files: u64(32),
      ffree: u64(40),
      namelen: bytes.readUInt32LE(56),
    };
  }

  /** As v9fs does: on a clone, whose clunk sets the xattr. */
  async setXattr(from: number, name: string, value: string | Uint8Array, flags = 0): Promise<void> {
    const fid = await this.walk(from);
    const bytes = Buffer.from(value as string, 'latin1');
    try {
      await this.call('xattrcreate', { fid, name, attr_size: bytes.length, flags });
    } catch (error) {
      await this.clunk(fid);
      throw error;
    }
    const piece = this.msize - 24;
    for (let at = 0; at < bytes.length; at += piece)
      await this.write(fid, at, bytes.subarray(at, at + piece));
    await this.clunk(fid);
  }

  async getXattr(fid: number, name: string): Promise<Buffer> {
    const newfid = this.fid();
    const { size } = await this.call('xattrwalk', { fid, newfid, name });
    const value = Buffer.alloc(size);
    for (let at = 0; at < size; ) at += (await this.read(newfid, at, size - at)).copy(value, at);
    await this.clunk(newfid);
    return value;
  }

  /** The names of all xattrs. */
  async xattrs(fid: number): Promise<string[]> {
    const names = (await this.getXattr(fid, '')).toString('latin1');
    return names.split('\0').slice(0, -1).sort();
  }

  close(): Promise<void> {
    return this.client.close();
  }
}
