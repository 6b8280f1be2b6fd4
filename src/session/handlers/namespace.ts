import type { CallContext, NewNode, Node, Tree } from '#backend/tree.ts';
import { encodeDevice, S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK } from '#base/attr.ts';
import { EBUSY, EINVAL, ENAMETOOLONG, ENOENT, EOPNOTSUPP, EXDEV } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Name } from '#base/name.ts';
import { P9_AT_REMOVEDIR } from '#protocol/constants.ts';
import type { Qid } from '#protocol/kinds.ts';
import { symlinkTargetBytesMax } from '#quota/limits.ts';
import { gidOf } from '../attachment.ts';
import type { Fid } from '../fids.ts';
import type { Request } from '../request.ts';
import { done, type Handlers, whenDone } from './handler.ts';

/** The largest device numbers that new_encode_dev holds (include/linux/kdev_t.h). */
const majorMax = 0xfff;
const minorMax = 0xfffff;

const specialTypes: ReadonlySet<number> = new Set([S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK]);

function make(request: Request, dir: Fid, name: Name, what: NewNode): MaybePromise<{ qid: Qid }> {
  const { tree } = dir.attachment;
  const { attr } = request;
  return andThen(tree.make(request.as(dir.attachment), dir.node, name, what, attr), node => {
    const qid = request.session.qidOf(node, attr);
    tree.release(node);
    return { qid };
  });
}

/** Moves an entry; ENOENT if `node` is not the entry any more. */
function moveEntry(
  ctx: CallContext,
  tree: Tree,
  node: Node,
  from: { readonly dir: Node; readonly name: Name },
  to: { readonly dir: Node; readonly name: Name },
): MaybePromise<void> {
  return andThen(tree.isEntry(ctx, from.dir, from.name, node), isThere => {
    if (!isThere) throw ENOENT;
    return tree.rename(ctx, from.dir, from.name, to.dir, to.name);
  });
}

function refuseToCross(a: Fid, b: Fid): void {
  if (a.attachment.tree !== b.attachment.tree) throw EXDEV;
}

export const namespace = {
  symlink(request, { dfid, name, symtgt, gid }) {
    const dir = request.object(dfid);
    if (symtgt.length === 0) throw ENOENT;
    if (symtgt.length > symlinkTargetBytesMax) throw ENAMETOOLONG;
    if (symtgt.includes('\0')) throw EINVAL;
    return make(request, dir, name, { type: 'symlink', target: symtgt, gid: gidOf(dir.attachment, gid) });
  },

  mknod(request, { dfid, name, mode, major, minor, gid }) {
    const dir = request.object(dfid);
    // mknod(2): no type means a regular file.
    const type = mode & S_IFMT || S_IFREG;
    if (!specialTypes.has(type)) throw EINVAL;
    const isDevice = type === S_IFCHR || type === S_IFBLK;
    if (isDevice && (major > majorMax || minor > minorMax)) throw EINVAL;
    const rdev = isDevice ? encodeDevice(major, minor) : 0;
    const fullMode = type | (mode & 0o7777);
    return make(request, dir, name, {
      type: 'special',
      mode: fullMode,
      rdev,
      gid: gidOf(dir.attachment, gid),
    });
  },

  mkdir(request, { dfid, name, mode, gid }) {
    const dir = request.object(dfid);
    const what = { type: 'directory', mode: mode & 0o7777, gid: gidOf(dir.attachment, gid) } as const;
    return make(request, dir, name, what);
  },

  link(request, { dfid, fid: number, name }) {
    const dir = request.object(dfid);
    const fid = request.object(number);
    refuseToCross(dir, fid);
    const { tree } = dir.attachment;
    return whenDone(tree.link(request.as(dir.attachment), fid.node, dir.node, name));
  },

  async rename(request, { fid: number, dfid, name }) {
    const fid = request.object(number);
    const to = request.object(dfid);
    refuseToCross(fid, to);
    const { tree } = fid.attachment;
    const ctx = request.as(fid.attachment);
    const { node, dir, name: oldName } = fid;
    if (node === tree.root) throw EBUSY;
    if (dir === undefined || oldName === undefined) throw EOPNOTSUPP;
    // Hold it: a concurrent Trename may move the fid and release its directory.
    tree.hold(dir);
    try {
      await moveEntry(ctx, tree, node, { dir, name: oldName }, { dir: to.node, name });
      if (fid.node === node) fid.moveTo(to.node, name);
      return done;
    } finally {
      tree.release(dir);
    }
  },

  renameat(request, { olddirfid, oldname, newdirfid, newname }) {
    const from = request.object(olddirfid);
    const to = request.object(newdirfid);
    refuseToCross(from, to);
    const { tree } = from.attachment;
    return whenDone(tree.rename(request.as(from.attachment), from.node, oldname, to.node, newname));
  },

  unlinkat(request, { dirfid, name, flags }) {
    const dir = request.object(dirfid);
    if ((flags & ~P9_AT_REMOVEDIR) !== 0) throw EINVAL;
    const { tree } = dir.attachment;
    const kind = flags === P9_AT_REMOVEDIR ? 'directory' : 'file';
    return whenDone(tree.unlink(request.as(dir.attachment), dir.node, name, kind));
  },
} satisfies Partial<Handlers>;
