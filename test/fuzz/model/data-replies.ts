import { parseDirents } from '../../../src/protocol/dirent.ts';
import { lockCells } from './locks.ts';
import { FILE, LINK, type ModelNode, refuse, type Time } from './nodes.ts';
import type { Asked, ExpectedReplies, Wanted } from './replies.ts';
import { type Fid, type Listed, type ModelSession, rowOf } from './session.ts';

const ok: Wanted = {};
const direntHead = 24;
const acl = 'system.posix_acl_';

/** A u64 field of a request. */
type Wide = { readonly low: number; readonly high: number } | number;
const numberOf = (wide: Wide) => (typeof wide === 'number' ? wide : wide.high * 2 ** 32 + wide.low);

const valid = {
  mode: 1,
  uid: 2,
  gid: 4,
  size: 8,
  atime: 16,
  mtime: 32,
  ctime: 64,
  atimeSet: 128,
  mtimeSet: 256,
};

/** Undefined if the model cannot know it. */
function timeOf(asked: Asked<'setattr'>, which: 'atime' | 'mtime'): Time | undefined | 'now' {
  const [sec, nsec] = [asked[`${which}_sec`], asked[`${which}_nsec`]];
  if ((asked.valid & valid[`${which}Set`]) === 0) return 'now';
  if (nsec < 0 || nsec >= 1e9) refuse('EINVAL');
  // The file system decides how it stores times that far away.
  return Number.isSafeInteger(sec) ? { sec, nsec } : undefined;
}

/** Fails before anything is changed. */
function checkChange(node: ModelNode, asked: Asked<'setattr'>): void {
  const set = (bit: number) => (asked.valid & bit) !== 0;
  if (set(valid.uid) && asked.uid === 0xffff_ffff) refuse('EINVAL');
  if (set(valid.gid) && asked.gid === 0xffff_ffff) refuse('EINVAL');
  if (set(valid.size)) {
    const size = numberOf(asked.size);
    if (size >= 2 ** 63) refuse('EINVAL');
    if (size >= 2 ** 53) refuse('EFBIG');
    if (node.isDirectory) refuse('EISDIR');
    if (node.type !== FILE) refuse('EINVAL');
  }
  if (set(valid.atime)) timeOf(asked, 'atime');
  if (set(valid.mtime)) timeOf(asked, 'mtime');
}

function change(session: ModelSession, { node, attached, open }: Fid, asked: Asked<'setattr'>): void {
  const set = (bit: number) => (asked.valid & bit) !== 0;
  const { files } = session.world;
  const { user } = attached;
  if (set(valid.uid) || set(valid.gid)) {
    files.chown(user, node, set(valid.uid) ? asked.uid : undefined, set(valid.gid) ? asked.gid : undefined);
  }
  if (set(valid.mode)) files.chmod(user, node, asked.mode & 0o7777);
  if (set(valid.size)) files.truncate(user, node, numberOf(asked.size), open?.kind === 'file' && open.writes);
  const [atime, mtime] = [timeOf(asked, 'atime'), timeOf(asked, 'mtime')];
  // The change of size has already set mtime.
  const setsMtime = set(valid.mtime) && !(set(valid.size) && mtime === 'now');
  if (set(valid.atime) || setsMtime) {
    files.setTimes(user, node, set(valid.atime) && setsMtime && atime === 'now' && mtime === 'now');
  }
  if (set(valid.atime)) node.atime = atime === 'now' ? undefined : atime?.sec;
  if (setsMtime) node.mtime = mtime === 'now' ? undefined : mtime;
}

/** The expected listing after `cookie`, or from the start. */
function checkListing(fid: Fid, listed: Listed, cookie: Asked<'readdir'>['offset'], most: number) {
  const { node } = fid;
  const wide = cookie as { readonly low: number; readonly high: number };
  const begins = numberOf(wide) === 0;
  const goesOn =
    listed.generation === node.listing && wide.low === listed.cookie?.low && wide.high === listed.cookie.high;
  const all = node.nlink === 0 ? [] : ['.', '..', ...node.entries!.keys()];
  if (begins) Object.assign(listed, { generation: node.listing, names: new Set(), cookie: undefined });
  return ({ bytes }: { bytes: Uint8Array }): string | undefined => {
    const entries = parseDirents(bytes);
    const names = entries.map(({ name }) => name);
    if (new Set(names).size !== names.length) return `an entry is there twice: ${names}`;
    if (bytes.length > most) return `${bytes.length} bytes where ${most} were asked for`;
    const strange = names.find(name => !all.includes(name));
    if (strange !== undefined && (begins || goesOn)) return `there is no entry ${strange}`;
    const wrong = entries.find(({ name, type }) => all.includes(name) && type !== typeIn(node, name) >> 12);
    if (wrong) return `the entry ${wrong.name} has the type ${wrong.type}`;
    if (!begins && !goesOn) return undefined;
    const again = names.find(name => listed.names.has(name));
    if (again !== undefined) return `the entry ${again} came again`;
    for (const name of names) listed.names.add(name);
    listed.cookie = entries.at(-1)?.offset ?? listed.cookie;
    const left = all.filter(name => !listed.names.has(name));
    if (entries.length === 0 && left.length > 0) return `the listing ends before ${left}`;
    const roomLeft = most - bytes.length;
    if (left.every(name => direntHead + name.length <= roomLeft) && left.length > 0)
      return `it has room for ${left}`;
    return undefined;
  };
}

function typeIn(dir: ModelNode, name: string): number {
  return name === '.' || name === '..' ? dir.type : dir.entries!.get(name)!.type;
}

function commitXattr(session: ModelSession, fid: Fid): void {
  const { open, node, attached } = fid;
  if (open?.kind !== 'xattr-write') return;
  const { files } = session.world;
  const { name, flags, size, written } = open;
  if (written.length !== size) refuse('EINVAL');
  const { user } = attached;
  if (size > 0) files.setXattr(node, user, name, written.toString('latin1'), flags);
  else if (flags & 2) files.removeXattr(node, user, name);
  else if (!name.startsWith(acl)) files.setXattr(node, user, name, '', flags);
  else {
    files.checkXattr(node, user, name, 'set');
    node.xattrs.delete(name);
  }
}

function openedFile(session: ModelSession, number: number) {
  const fid = session.get(number);
  const { node, attached, open } = fid;
  return open?.kind === 'file' ? { node, attached, open } : refuse('EBADF');
}

function checkRange({ type, start, length }: { type: number; start: number; length: number }): void {
  if (type > 2 || !Number.isSafeInteger(start + length)) refuse('EINVAL');
}

const reading: ExpectedReplies = {
  getattr(session, { fid }) {
    const { node } = session.object(fid);
    return { attr: node };
  },

  statfs: (session, { fid }) => {
    session.object(fid);
    return {
      statfs: (bytes: Buffer) => (bytes.readUInt32LE(56) === 255 ? undefined : 'its names are not 255 bytes'),
    };
  },

  readlink(session, { fid }) {
    const { node } = session.object(fid);
    if (node.type !== LINK) refuse('EINVAL');
    if (node.target.length > session.msize - 1 - 9) refuse('ENAMETOOLONG');
    node.atime = undefined;
    return { target: node.target };
  },

  read(session, { fid: number, offset, count }) {
    const { node, open } = session.get(number);
    const most = Math.min(count, session.dataBytesMax);
    const at = numberOf(offset);
    if (open?.kind === 'xattr-read') {
      const { value } = open;
      if (Buffer.isBuffer(value)) return { data: value.subarray(Math.min(at, value.length), at + most) };
      // The order of names depends on the file system.
      return {
        data: ({ count: got }: { count: number }) => (got <= most ? undefined : 'more than was asked for'),
      };
    }
    if (open?.kind === 'dir') refuse('EISDIR');
    if (open?.kind !== 'file' || !open.reads) return refuse('EBADF');
    node.atime = undefined;
    return { data: node.read(at, most) };
  },

  readdir(session, { fid: number, offset, count }) {
    const fid = session.get(number);
    if (fid.open?.kind === 'file') refuse('ENOTDIR');
    if (fid.open?.kind !== 'dir') return refuse('EBADF');
    const most = Math.min(count, session.dataBytesMax);
    if (most === 0) refuse('EINVAL');
    fid.node.atime = undefined;
    const listing = checkListing(fid, fid.open.listed, offset, most);
    // The order depends on the file system: any name may be next, and may not fit.
    const longest = Math.max(1, ...[...fid.node.entries!.keys()].map(name => name.length));
    // iterate_dir of fs/readdir.c fails for a removed directory; others return nothing.
    if (fid.node.nlink === 0) return { data: listing, refused: 'ENOENT' };
    return direntHead + longest > most ? { data: listing, refused: 'EINVAL' } : { data: listing };
  },
};

const changing: ExpectedReplies = {
  setattr(session, asked) {
    session.changing(asked.fid);
    const fid = session.object(asked.fid);
    if ((asked.valid & ~0x1ff) !== 0) refuse('EINVAL');
    if ((asked.valid & 0x3f) === 0) return ok;
    checkChange(fid.node, asked);
    change(session, fid, asked);
    return ok;
  },

  lopen(session, { fid: number, flags }) {
    const fid = session.unopened(number);
    const access = flags & 3;
    if (access === 3) refuse('EINVAL');
    const { node, attached } = fid;
    const writes = access !== 0;
    const truncates = (flags & 0o1000) !== 0;
    if (node.isDirectory) {
      if (writes || truncates) refuse('EISDIR');
      session.world.files.open(attached.user, node, { reads: true });
      fid.open = { kind: 'dir', listed: { generation: -1, names: new Set(), cookie: undefined } };
      return { qid: node, iounit: 0 };
    }
    if (flags & 0o200000) refuse('ENOTDIR');
    if (attached.readonly && (writes || truncates)) refuse('EROFS');
    const reads = access !== 1;
    session.world.files.open(attached.user, node, { reads, writes, truncates });
    const appends = access === 1 && (flags & 0o2000) !== 0;
    fid.open = { kind: 'file', reads, writes, appends };
    return { qid: node, iounit: session.iounit };
  },

  write(session, { fid: number, offset, data }) {
    session.changing(number);
    const { node, open, attached } = session.get(number);
    const bytes = Buffer.from(data.bytes!);
    const at = numberOf(offset);
    if (open?.kind === 'xattr-write') {
      if (at !== open.written.length) refuse('EINVAL');
      if (bytes.length > open.size - at) refuse('ENOSPC');
      open.written = Buffer.concat([open.written, bytes]);
      return { count: bytes.length };
    }
    if (open?.kind !== 'file' || !open.writes) return refuse('EBADF');
    if (bytes.length === 0) return { count: 0 };
    if (at > Number.MAX_SAFE_INTEGER - bytes.length) refuse('EFBIG');
    session.world.files.dropPrivileges(attached.user, node);
    node.write(open.appends ? node.size : at, bytes);
    return { count: bytes.length };
  },

  fsync(session, { fid }) {
    const { open } = session.get(fid);
    return open?.kind === 'file' || open?.kind === 'dir' ? ok : refuse('EBADF');
  },

  clunk(session, { fid }) {
    commitXattr(session, session.take(fid));
    return ok;
  },
};

const xattrs: ExpectedReplies = {
  xattrwalk(session, { fid: number, newfid, name }) {
    const { node, attached, since } = session.object(number);
    session.checkFree(newfid);
    const { files } = session.world;
    let value: Buffer | readonly string[];
    if (name === '') value = files.listXattr(node, attached.user).map(one => `${one}\0`);
    else {
      files.checkXattr(node, attached.user, name, 'get');
      value = Buffer.from(node.xattrs.get(name) ?? refuse('ENODATA'), 'latin1');
    }
    const open = { kind: 'xattr-read', value } as const;
    session.fids.set(newfid, { attached, node, open, dir: undefined, name: undefined, since });
    return { size: Buffer.isBuffer(value) ? value.length : value.join('').length };
  },

  xattrcreate(session, { fid: number, name, attr_size, flags }) {
    session.changing(number);
    const fid = session.unopened(number);
    if ((flags & ~3) !== 0) refuse('EINVAL');
    const size = numberOf(attr_size);
    if (size > 65536) refuse('E2BIG');
    fid.open = { kind: 'xattr-write', name, flags, size, written: Buffer.alloc(0) };
    return ok;
  },
};

const locking: ExpectedReplies = {
  lock(session, { fid, type, flags, start, length, proc_id, client_id }) {
    const { node, attached, open } = openedFile(session, fid);
    checkRange({ type, start, length });
    if ((flags & ~3) !== 0) refuse('EINVAL');
    const row = rowOf(session.world, node);
    const owner = session.owner(client_id, proc_id, attached);
    if (type === 2) row.unlock(owner, open, start, length);
    else if (!row.lock(owner, open, type, start, length)) return { status: 1 };
    return { status: 0 };
  },

  getlock(session, { fid, type, start, length, proc_id, client_id }) {
    const { node, attached } = openedFile(session, fid);
    checkRange({ type, start, length });
    const owner = session.owner(client_id, proc_id, attached);
    const row = rowOf(session.world, node);
    const asked = type === 2 ? 1 : type;
    const free = row.conflicts(owner, asked, start, length).every(({ held }) => row.yields(held, owner));
    if (free) return { type: 2, start, length, proc_id, client_id: client_id.slice(0, 255) };
    return {
      all: (got: { type: number; start: number; proc_id: number; client_id: string }) => {
        const cell = Math.min(got.start, lockCells - 1);
        const told = { type: got.type, clientId: got.client_id, procId: got.proc_id, cell };
        const known = session.world.files.modelOptions.lockOwners !== 'unknown';
        return row.tells(owner, asked, start, length, told, known) ? undefined : 'no such lock is in the way';
      },
    };
  },
};

export const dataReplies: ExpectedReplies = { ...reading, ...changing, ...xattrs, ...locking };
