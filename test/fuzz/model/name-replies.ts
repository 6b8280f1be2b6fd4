import { BLOCK, CHAR, DIR, FILE, LINK, type ModelNode, Refused, refuse } from './nodes.ts';
import type { ExpectedReplies, Wanted } from './replies.ts';
import type { Fid, ModelSession } from './session.ts';

const ok: Wanted = {};
const noGid = 0xffff_ffff;

function gidOf(fid: Fid, gid: number): number {
  return gid === noGid ? fid.attached.user.gid : gid;
}

interface Arrived {
  readonly nodes: ModelNode[];
  readonly failure: string | undefined;
  readonly end: Pick<Fid, 'node' | 'dir' | 'name' | 'since'>;
}

/** Walks as many steps as possible. */
function follow(session: ModelSession, from: Fid, steps: readonly string[]): Arrived {
  const nodes: ModelNode[] = [];
  let { node, dir, name } = from;
  for (const step of steps) {
    let next: ModelNode;
    try {
      const { files } = session.world;
      files.entries(node);
      next = step === '..' ? node.parent! : files.child(from.attached.user, node, step);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return { nodes, failure: error.names[0], end: from };
    }
    [dir, name] = step === '..' ? [undefined, undefined] : [node, step];
    node = next;
    nodes.push(next);
  }
  const since = steps.length === 0 || steps.includes('..') ? from.since : session.world.files.moves;
  return { nodes, failure: undefined, end: { node, dir, name, since } };
}

/** walk(5): all qids, those of a partial walk, or the error of the first step. */
function walk(session: ModelSession, number: number, newfid: number, steps: readonly string[]): Wanted {
  const from = session.object(number);
  if (number !== newfid) session.checkFree(newfid);
  else if (steps.length > 0 && from.open) refuse('EBADF');
  const { nodes, failure, end } = follow(session, from, steps);
  if (failure !== undefined && nodes.length === 0) refuse(failure);
  if (failure === undefined) {
    if (number === newfid) Object.assign(from, end);
    else session.fids.set(newfid, { ...end, attached: from.attached, open: undefined });
  }
  return { wqid: nodes };
}

function make(
  session: ModelSession,
  dfid: number,
  name: string,
  type: number,
  mode: number,
  gid: number,
  rdev = 0,
): ModelNode {
  const dir = session.object(dfid);
  return session.world.files.make(dir.attached.user, dir.node, name, type, mode, gidOf(dir, gid), rdev);
}

/** The entry of a fid for Trename and Tremove; throws if there is none. */
function entryOf(session: ModelSession, fid: Fid): { dir: ModelNode; name: string } {
  const { node, dir, name } = fid;
  if (node === session.world.files.root) refuse('EBUSY');
  if (dir === undefined || name === undefined) refuse('EOPNOTSUPP');
  const found = dir!.entries?.get(name!);
  if ((found?.mounted ?? found) !== node) refuse('ENOENT');
  return { dir: dir!, name: name! };
}

export const nameReplies: ExpectedReplies = {
  walk: (session, { fid, newfid, wname }) => walk(session, fid, newfid, wname),

  lcreate(session, { fid: number, name, flags, mode, gid }) {
    session.changing(number);
    const fid = session.unopened(number);
    const access = flags & 3;
    if (access === 3) refuse('EINVAL');
    const { files } = session.world;
    const { user } = fid.attached;
    const dir = fid.node;
    const found = files.existing(user, gidOf(fid, gid), dir, name);
    const [reads, writes] = [access !== 1, access !== 0];
    if (found && flags & 0o200) refuse('EEXIST');
    if (found) files.child(user, dir, name);
    if (found?.isDirectory) refuse('EISDIR');
    if (found) files.open(user, found, { reads, writes, truncates: (flags & 0o1000) !== 0 });
    fid.node = found ?? files.make(user, dir, name, FILE, mode & 0o7777, gidOf(fid, gid));
    fid.dir = dir;
    fid.name = name;
    const appends = access === 1 && (flags & 0o2000) !== 0;
    fid.open = { kind: 'file', reads, writes, appends };
    return { qid: fid.node, iounit: session.iounit };
  },

  symlink(session, { dfid, name, symtgt, gid }) {
    session.changing(dfid);
    session.object(dfid);
    if (symtgt.length === 0) refuse('ENOENT');
    if (symtgt.length > 4095) refuse('ENAMETOOLONG');
    if (symtgt.includes('\0')) refuse('EINVAL');
    const { files } = session.world;
    const made = make(session, dfid, name, LINK, 0o777, gid);
    if (symtgt.length > (files.modelOptions.targetBytesMax ?? 4095)) {
      files.unmake(session.object(dfid).node, name);
      refuse('ENAMETOOLONG');
    }
    made.target = symtgt;
    made.size = symtgt.length;
    return { qid: made };
  },

  mknod(session, { dfid, name, mode, major, minor, gid }) {
    session.changing(dfid);
    session.object(dfid);
    const type = mode & 0o170000 || FILE;
    if (![FILE, 0o010000, 0o140000, CHAR, BLOCK].includes(type)) refuse('EINVAL');
    const isDevice = type === CHAR || type === BLOCK;
    if (isDevice && (major > 0xfff || minor > 0xfffff)) refuse('EINVAL');
    // MKDEV of user space: 12 bits of major above 8 of minor, then the rest of minor.
    const rdev = isDevice ? (minor % 256) + major * 256 + Math.floor(minor / 256) * 2 ** 20 : 0;
    return { qid: make(session, dfid, name, type, mode & 0o7777, gid, rdev) };
  },

  mkdir(session, { dfid, name, mode, gid }) {
    session.changing(dfid);
    return { qid: make(session, dfid, name, DIR, mode & 0o7777, gid) };
  },

  link(session, { dfid, fid, name }) {
    session.changing(dfid);
    const dir = session.object(dfid);
    const of = session.object(fid);
    session.refuseToCross(dir, of);
    session.world.files.link(dir.attached.user, of.node, dir.node, name);
    return ok;
  },

  rename(session, { fid: number, dfid, name }) {
    session.changing(number);
    const fid = session.object(number);
    const to = session.object(dfid);
    session.refuseToCross(fid, to);
    const { dir, name: old } = entryOf(session, fid);
    session.world.files.rename(fid.attached.user, dir, old, to.node, name);
    fid.dir = to.node;
    fid.name = name;
    return ok;
  },

  renameat(session, { olddirfid, oldname, newdirfid, newname }) {
    session.changing(olddirfid);
    const from = session.object(olddirfid);
    const to = session.object(newdirfid);
    session.refuseToCross(from, to);
    session.world.files.rename(from.attached.user, from.node, oldname, to.node, newname);
    return ok;
  },

  unlinkat(session, { dirfid, name, flags }) {
    session.changing(dirfid);
    const dir = session.object(dirfid);
    if ((flags & ~0x200) !== 0) refuse('EINVAL');
    session.world.files.unlink(dir.attached.user, dir.node, name, flags === 0x200);
    return ok;
  },

  remove(session, { fid: number }) {
    // remove(5): the fid is clunked even on failure.
    const fid = session.take(number);
    if (fid.attached.readonly) refuse('EROFS');
    if (fid.open?.kind === 'xattr-read' || fid.open?.kind === 'xattr-write') refuse('EBADF');
    const { dir, name } = entryOf(session, fid);
    session.world.files.unlink(fid.attached.user, dir, name, fid.node.isDirectory);
    return ok;
  },
};
