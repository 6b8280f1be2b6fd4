import type { OpenHow } from '#backend/tree.ts';
import { S_IFDIR } from '#base/attr.ts';
import { EINVAL, EISDIR, EMFILE, ENOTDIR, EROFS } from '#base/errno.ts';
import { andThen, type MaybePromise, onError } from '#base/maybe-promise.ts';
import {
  P9_ACCESS_MASK,
  P9_APPEND,
  P9_DIRECTORY,
  P9_DSYNC,
  P9_EXCL,
  P9_NOACCESS,
  P9_RDWR,
  P9_SYNC,
  P9_TRUNC,
  P9_WRONLY,
} from '#protocol/constants.ts';
import { type Attachment, gidOf } from '../attachment.ts';
import { type Fid, refused, type Use } from '../fids.ts';
import type { Request } from '../request.ts';
import type { Handlers } from './handler.ts';

/**
 * What of the open flags reaches the host. Creation flags in Tlopen are left over from the guest's open(2).
 *
 * A fid for writing only that appends really appends: two programs of one guest would otherwise overwrite each other, since
 * the client takes its own idea of the size for the position. A client that caches writes has pages to write back at their
 * own positions, never at the end; it opens for reading and writing, and only when that was refused for writing alone (fs/9p
 * from 6.4 to 6.18: v9fs_file_open). So whoever may read, or was refused to, gives the position of every write.
 */
function howOf(flags: number, wasRefused: boolean): OpenHow {
  const access = flags & P9_ACCESS_MASK;
  if (access === P9_NOACCESS) throw EINVAL;
  return {
    read: access !== P9_WRONLY,
    write: access === P9_WRONLY || access === P9_RDWR,
    append: access === P9_WRONLY && (flags & P9_APPEND) !== 0 && !wasRefused,
    truncate: (flags & P9_TRUNC) !== 0,
    sync: flags & P9_SYNC ? 'sync' : flags & P9_DSYNC ? 'dsync' : 'none',
  };
}

function open({ attachment, node }: Fid, how: OpenHow, flags: number): MaybePromise<Use> {
  const { tree, actor, readonly } = attachment;
  if (node.type === S_IFDIR) {
    if (how.write || how.truncate) throw EISDIR;
    return andThen(tree.openDir(actor, node), dir => ({ kind: 'dir', dir, running: undefined }));
  }
  if ((flags & P9_DIRECTORY) !== 0) throw ENOTDIR;
  if (readonly && (how.write || how.truncate)) throw EROFS;
  return andThen(tree.open(actor, node, how), file => ({ kind: 'file', file, locked: false }));
}

function close({ tree }: Attachment, use: Use): void {
  if (use.kind === 'file') tree.closeFile(use.file);
  else if (use.kind === 'dir') tree.closeDir(use.dir);
}

/** Runs what turns a fid into something else, alone; when it fails the fid is what it was. */
function turning<T>(
  request: Request,
  number: number,
  fid: Fid,
  otherwise: Use,
  turn: () => MaybePromise<T>,
): MaybePromise<T> {
  const { quota } = request.session;
  if (!quota.mayAdd('opens', 1)) throw EMFILE;
  quota.add('opens', 1);
  fid.use = { kind: 'claimed', number, before: otherwise };
  return onError(turn, () => {
    quota.add('opens', -1);
    fid.use = otherwise;
  });
}

function isRefused(use: Use): boolean {
  return use.kind === 'node' && use.refused === true;
}

export const opening: Handlers<'lopen' | 'lcreate'> = {
  lopen(request, { fid: number, flags }) {
    const fid = request.unopened(number);
    const { attachment, node, use: before } = fid;
    const how = howOf(flags, isRefused(before));
    return turning(request, number, fid, how.read && how.write ? refused : before, () =>
      andThen(open(fid, how, flags), use =>
        onError(
          () =>
            andThen(request.qid(attachment.tree, node), qid => {
              fid.use = use;
              // An iounit would make the client ask for less of a directory than a message holds.
              return { qid, iounit: use.kind === 'dir' ? 0 : request.session.iounit };
            }),
          () => close(attachment, use),
        ),
      ),
    );
  },

  lcreate(request, { fid: number, name, flags, mode, gid }) {
    const fid = request.unopened(number);
    const { attachment, node: dir } = fid;
    const { tree, actor } = attachment;
    const how = {
      ...howOf(flags, false),
      exclusive: (flags & P9_EXCL) !== 0,
      mode: mode & 0o7777,
      gid: gidOf(attachment, gid),
    };
    return turning(request, number, fid, fid.use, () => {
      const { attr } = request;
      return andThen(tree.create(actor, dir, name, how, attr), ({ node, file }) => {
        if (fid.dir) tree.release(fid.dir);
        fid.dir = dir;
        fid.name = name;
        fid.node = node;
        fid.use = { kind: 'file', file, locked: false };
        return { qid: request.session.qidOf(node, attr), iounit: request.session.iounit };
      });
    });
  },
};
