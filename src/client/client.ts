import { ENOENT, EPROTO } from '#base/errno.ts';
import { noId } from '#base/ids.ts';
import { type Bytes, type Step, stepOf } from '#base/name.ts';
import {
  dialect,
  NOFID,
  NOTAG,
  P9_ATTR_ATIME,
  P9_ATTR_ATIME_SET,
  P9_ATTR_GID,
  P9_ATTR_MODE,
  P9_ATTR_MTIME,
  P9_ATTR_MTIME_SET,
  P9_ATTR_SIZE,
  P9_ATTR_UID,
  P9_STATS_ALL,
} from '#protocol/constants.ts';
import { type Dirent, parseDirents } from '#protocol/dirent.ts';
import { attr, type Qid, type Reading, statfs, unpack, type Wide } from '#protocol/kinds.ts';
import type { Draft, RMessage } from '#protocol/operations.ts';
import { msizeBytesMax, walkStepsMax } from '#quota/limits.ts';
import { type Address, Wire } from './wire.ts';

/** The attributes that `setattr` changes; the time 'now' is the server's clock. */
export interface AttrChange {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly atime?: { readonly sec: number; readonly nsec: number } | 'now';
  readonly mtime?: { readonly sec: number; readonly nsec: number } | 'now';
}

export type Attributes = Reading<typeof attr.fields>;
export type FileSystem = Reading<typeof statfs.fields>;

const start: Wide = { low: 0, high: 0 };

/**
 * A 9P2000.L client: one method for each message, plus helpers that allocate fids and split large transfers. Names are bytes as
 * latin1 strings. Every method rejects with the `Errno` of an Rlerror.
 */
export class Client {
  readonly wire: Wire;
  #nextFid = 1;

  constructor(wire: Wire) {
    this.wire = wire;
  }

  static async connect(address: Address, msize = msizeBytesMax): Promise<Client> {
    const client = new Client(await Wire.connect(address));
    await client.version(msize);
    return client;
  }

  /** Starts or resets the session; returns the negotiated msize. Rejects with EPROTO if the server does not support `version`. */
  async version(msize: number, version = dialect): Promise<number> {
    const reply = await this.wire.request('version', { msize, version }, NOTAG);
    if (reply.version !== dialect) throw EPROTO;
    this.wire.msize = reply.msize;
    return reply.msize;
  }

  get msize(): number {
    return this.wire.msize;
  }

  newFid(): number {
    return this.#nextFid++;
  }

  /** Attaches; returns the root fid. `uid` is n_uname. */
  async attach(aname: Bytes = '', uid = noId, fid = this.newFid()): Promise<number> {
    await this.wire.request('attach', { fid, afid: NOFID, uname: '', aname, n_uname: uid });
    return fid;
  }

  /**
   * Walks `path`, an array of components or a string with slashes, from `fid`; returns the new fid. Rejects with ENOENT if a
   * component is absent: then there is no new fid, and a fid walked in place may have moved by multiples of 16 names.
   */
  async walk(fid: number, path: Bytes | readonly Bytes[] = [], newfid = this.newFid()): Promise<number> {
    const steps = (typeof path === 'string' ? path.split('/').filter(part => part !== '') : path).map(stepOf);
    let from = fid;
    let rest: readonly Step[] = steps;
    do {
      const wname = rest.slice(0, walkStepsMax);
      rest = rest.slice(walkStepsMax);
      const { wqid } = await this.wire.request('walk', { fid: from, newfid, wname });
      if (wqid.length < wname.length) {
        if (from === newfid && newfid !== fid) await this.clunk(newfid);
        throw ENOENT;
      }
      from = newfid;
    } while (rest.length > 0);
    return newfid;
  }

  async clunk(...fids: readonly number[]): Promise<void> {
    await Promise.all(fids.map(fid => this.wire.request('clunk', { fid })));
  }

  async remove(fid: number): Promise<void> {
    await this.wire.request('remove', { fid });
  }

  /** All attributes under the manual's field names; 64-bit numbers are exact within ±2^53. */
  async getattr(fid: number): Promise<Attributes> {
    const reply = await this.wire.request('getattr', { fid, request_mask: P9_STATS_ALL });
    return unpack(attr, reply.attr);
  }

  async setattr(fid: number, change: AttrChange): Promise<void> {
    await this.wire.request('setattr', setattrOf(fid, change));
  }

  lopen(fid: number, flags = 0): Promise<RMessage<'lopen'>> {
    return this.wire.request('lopen', { fid, flags });
  }

  /** Creates a file; `fid`, of a directory, becomes the open file. */
  lcreate(fid: number, name: Bytes, flags: number, mode = 0o644, gid = 0): Promise<RMessage<'lcreate'>> {
    return this.wire.request('lcreate', { fid, name, flags, mode, gid });
  }

  /** Reads at most `count` bytes, in one message. */
  async read(fid: number, offset: number, count: number): Promise<Buffer> {
    const { data } = await this.wire.request('read', { fid, offset, count });
    return data.bytes as Buffer;
  }

  async readAll(fid: number, offset = 0): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let at = offset; ; ) {
      const part = await this.read(fid, at, this.msize - 24);
      if (part.length === 0) return Buffer.concat(parts);
      parts.push(part);
      at += part.length;
    }
  }

  /** Writes in one message; returns the number of bytes written. */
  async write(fid: number, offset: number, bytes: Uint8Array): Promise<number> {
    const { count } = await this.wire.request('write', { fid, offset, data: { count: bytes.length, bytes } });
    return count;
  }

  async writeAll(fid: number, bytes: Uint8Array, offset = 0): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      at += await this.write(fid, offset + at, bytes.subarray(at, at + this.msize - 24));
    }
  }

  /** The entries of one Rreaddir. */
  async readdirOnce(fid: number, offset: Wide = start, count = this.msize - 24): Promise<Dirent[]> {
    const { data } = await this.wire.request('readdir', { fid, offset, count });
    return parseDirents(data.bytes!);
  }

  /** All entries, `.` and `..` included. */
  async readdir(fid: number, count = this.msize - 24): Promise<Dirent[]> {
    const entries: Dirent[] = [];
    for (let offset = start; ; ) {
      const some = await this.readdirOnce(fid, offset, count);
      const last = some.at(-1);
      if (!last) return entries;
      entries.push(...some);
      offset = last.offset;
    }
  }

  mkdir(dfid: number, name: Bytes, mode = 0o755, gid = 0): Promise<{ qid: Qid }> {
    return this.wire.request('mkdir', { dfid, name, mode, gid });
  }

  symlink(dfid: number, name: Bytes, symtgt: Bytes, gid = 0): Promise<{ qid: Qid }> {
    return this.wire.request('symlink', { dfid, name, symtgt, gid });
  }

  mknod(dfid: number, name: Bytes, mode: number, major = 0, minor = 0, gid = 0): Promise<{ qid: Qid }> {
    return this.wire.request('mknod', { dfid, name, mode, major, minor, gid });
  }

  async readlink(fid: number): Promise<Bytes> {
    return (await this.wire.request('readlink', { fid })).target;
  }

  async link(dfid: number, fid: number, name: Bytes): Promise<void> {
    await this.wire.request('link', { dfid, fid, name });
  }

  async renameat(olddirfid: number, oldname: Bytes, newdirfid: number, newname: Bytes): Promise<void> {
    await this.wire.request('renameat', { olddirfid, oldname, newdirfid, newname });
  }

  async unlinkat(dirfid: number, name: Bytes, flags = 0): Promise<void> {
    await this.wire.request('unlinkat', { dirfid, name, flags });
  }

  async fsync(fid: number, datasync = 0): Promise<void> {
    await this.wire.request('fsync', { fid, datasync });
  }

  async statfs(fid: number): Promise<FileSystem> {
    return unpack(statfs, (await this.wire.request('statfs', { fid })).statfs);
  }

  /** The value of an xattr, or the NUL-terminated names for an empty name. */
  async getxattr(fid: number, name: Bytes): Promise<Buffer> {
    const newfid = this.newFid();
    const { size } = await this.wire.request('xattrwalk', { fid, newfid, name });
    try {
      const value = size === 0 ? Buffer.alloc(0) : await this.readAll(newfid);
      if (value.length !== size) throw EPROTO;
      return value;
    } finally {
      await this.clunk(newfid);
    }
  }

  /** Sets an xattr as Linux does: Txattrcreate on a cloned fid, Twrite, and Tclunk, which sets it. */
  async setxattr(fid: number, name: Bytes, value: Uint8Array, flags = 0): Promise<void> {
    const clone = await this.walk(fid);
    try {
      await this.wire.request('xattrcreate', { fid: clone, name, attr_size: value.length, flags });
      if (value.length > 0) await this.writeAll(clone, value);
    } catch (error) {
      await this.clunk(clone).catch(() => {});
      throw error;
    }
    await this.clunk(clone);
  }

  async lock(fid: number, lock: Omit<Draft<'lock'>, 'fid'>): Promise<number> {
    return (await this.wire.request('lock', { fid, ...lock })).status;
  }

  getlock(fid: number, lock: Omit<Draft<'getlock'>, 'fid'>): Promise<RMessage<'getlock'>> {
    return this.wire.request('getlock', { fid, ...lock });
  }

  flush(oldtag: number): Promise<void> {
    return this.wire.flush(oldtag);
  }

  close(): Promise<void> {
    return this.wire.close();
  }
}

function setattrOf(fid: number, change: AttrChange): Draft<'setattr'> {
  const { mode, uid, gid, size, atime, mtime } = change;
  const time = (value: AttrChange['atime'], now: number, set: number) =>
    value === undefined ? 0 : value === 'now' ? now : now | set;
  const valid =
    (mode === undefined ? 0 : P9_ATTR_MODE) |
    (uid === undefined ? 0 : P9_ATTR_UID) |
    (gid === undefined ? 0 : P9_ATTR_GID) |
    (size === undefined ? 0 : P9_ATTR_SIZE) |
    time(atime, P9_ATTR_ATIME, P9_ATTR_ATIME_SET) |
    time(mtime, P9_ATTR_MTIME, P9_ATTR_MTIME_SET);
  const none = { sec: 0, nsec: 0 };
  const at = typeof atime === 'object' ? atime : none;
  const mt = typeof mtime === 'object' ? mtime : none;
  return {
    fid,
    valid,
    mode: mode ?? 0,
    uid: uid ?? noId,
    gid: gid ?? noId,
    size: size ?? 0,
    atime_sec: at.sec,
    atime_nsec: at.nsec,
    mtime_sec: mt.sec,
    mtime_nsec: mt.nsec,
  };
}
