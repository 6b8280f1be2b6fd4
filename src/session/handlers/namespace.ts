import type { NewNode } from '#backend/tree.ts';
import { Attr, encodeDevice, S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK } from '#base/attr.ts';
import { EBUSY, EINVAL, ENAMETOOLONG, ENOENT, EOPNOTSUPP, EXDEV } from '#base/errno.ts';
import { andFinally, andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Name } from '#base/name.ts';
import { P9_AT_REMOVEDIR } from '#protocol/constants.ts';
import type { Qid } from '#protocol/kinds.ts';
import { symlinkTargetBytesMax } from '#quota/limits.ts';
import { gidOf } from '../attachment.ts';
import type { Fid } from '../fids.ts';
import type { Session } from '../session.ts';
import { done, type Handlers } from './handler.ts';

/** The largest numbers that new_encode_dev holds: include/linux/kdev_t.h. */
const majorMax = 0xfff;
const minorMax = 0xfffff;

const specialTypes: ReadonlySet<number> = new Set([S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK]);

function make(session: Session, dir: Fid, name: Name, what: NewNode): MaybePromise<{ qid: Qid }> {
  const { tree, actor } = dir.attachment;
  const attr = new Attr();
  return andThen(tree.make(actor, dir.node, name, what, attr), node => {
    const qid = session.qidOf(node, attr);
    tree.release(node);
    return { qid };
  });
}

function refuseToCross(a: Fid, b: Fid): void {
  if (a.attachment.tree !== b.attachment.tree) throw EXDEV;
}

export const namespace: Handlers<
  'symlink' | 'mknod' | 'mkdir' | 'link' | 'rename' | 'renameat' | 'unlinkat'
> = {
  symlink(session, { dfid, name, symtgt, gid }) {
    const dir = session.fids.object(dfid);
    if (symtgt.length === 0) throw ENOENT;
    if (symtgt.length > symlinkTargetBytesMax) throw ENAMETOOLONG;
    if (symtgt.includes('\0')) throw EINVAL;
    return make(session, dir, name, { type: 'symlink', target: symtgt, gid: gidOf(dir.attachment, gid) });
  },

  mknod(session, { dfid, name, mode, major, minor, gid }) {
    const dir = session.fids.object(dfid);
    // mknod(2): no type means a regular file.
    const type = mode & S_IFMT || S_IFREG;
    if (!specialTypes.has(type)) throw EINVAL;
    const isDevice = type === S_IFCHR || type === S_IFBLK;
    if (isDevice && (major > majorMax || minor > minorMax)) throw EINVAL;
    const rdev = isDevice ? encodeDevice(major, minor) : 0;
    const whole = type | (mode & 0o7777);
    return make(session, dir, name, { type: 'special', mode: whole, rdev, gid: gidOf(dir.attachment, gid) });
  },

  mkdir(session, { dfid, name, mode, gid }) {
    const dir = session.fids.object(dfid);
    const what = { type: 'directory', mode: mode & 0o7777, gid: gidOf(dir.attachment, gid) } as const;
    return make(session, dir, name, what);
  },

  link(session, { dfid, fid: number, name }) {
    const dir = session.fids.object(dfid);
    const fid = session.fids.object(number);
    refuseToCross(dir, fid);
    const { tree, actor } = dir.attachment;
    return andThen(tree.link(actor, fid.node, dir.node, name), () => done);
  },

  rename(session, { fid: number, dfid, name }) {
    const fid = session.fids.object(number);
    const to = session.fids.object(dfid);
    refuseToCross(fid, to);
    const { tree, actor } = fid.attachment;
    const { node, dir, name: oldName } = fid;
    if (node === tree.root) throw EBUSY;
    if (dir === undefined || oldName === undefined) throw EOPNOTSUPP;
    // Held by the request: another one may move the fid on meanwhile.
    tree.hold(dir);
    return andFinally<typeof done>(
      () =>
        andThen(tree.isEntry(dir, oldName, node), isThere => {
          if (!isThere) throw ENOENT;
          return andThen(tree.rename(actor, dir, oldName, to.node, name), () => {
            if (fid.node === node) fid.moveTo(to.node, name);
            return done;
          });
        }),
      () => tree.release(dir),
    );
  },

  renameat(session, { olddirfid, oldname, newdirfid, newname }) {
    const from = session.fids.object(olddirfid);
    const to = session.fids.object(newdirfid);
    refuseToCross(from, to);
    const { tree, actor } = from.attachment;
    return andThen(tree.rename(actor, from.node, oldname, to.node, newname), () => done);
  },

  unlinkat(session, { dirfid, name, flags }) {
    const dir = session.fids.object(dirfid);
    if ((flags & ~P9_AT_REMOVEDIR) !== 0) throw EINVAL;
    const { tree, actor } = dir.attachment;
    const kind = flags === P9_AT_REMOVEDIR ? 'directory' : 'file';
    return andThen(tree.unlink(actor, dir.node, name, kind), () => done);
  },
};
