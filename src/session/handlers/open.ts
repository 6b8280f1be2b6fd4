import type { CallContext, OpenHow } from '#backend/tree.ts';
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
import type { RMessage } from '#protocol/operations.ts';
import { type Attachment, gidOf } from '../attachment.ts';
import { type Fid, refused, type Use } from '../fids.ts';
import type { Request } from '../request.ts';
import type { Handlers } from './handler.ts';

/**
 * The host's open mode for P9 open flags. Creation flags in Tlopen are ignored: they are remnants of the guest's open(2).
 *
 * Only a write-only fid gets O_APPEND. It needs it: the client computes offsets from its cached file size, so two programs of
 * one guest would overwrite each other. A client that caches writes must write pages back at their offsets; it opens for
 * reading and writing, and for writing only after that failed (fs/9p 6.4 to 6.18: v9fs_file_open). So a fid that can read,
 * or for which that failed (`wasRefused`), writes at the offsets it sends.
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

function open(ctx: CallContext, { attachment, node }: Fid, how: OpenHow, flags: number): MaybePromise<Use> {
  const { tree, readonly } = attachment;
  if (node.type === S_IFDIR) {
    if (how.write || how.truncate) throw EISDIR;
    return andThen(tree.openDir(ctx, node), dir => ({ kind: 'dir', dir, running: undefined }));
  }
  if ((flags & P9_DIRECTORY) !== 0) throw ENOTDIR;
  if (readonly && (how.write || how.truncate)) throw EROFS;
  return andThen(tree.open(ctx, node, how), file => ({ kind: 'file', file, locked: false }));
}

function close({ tree }: Attachment, use: Use): void {
  if (use.kind === 'file') tree.closeFile(use.file);
  else if (use.kind === 'dir') tree.closeDir(use.dir);
}

/**
 * Claims the fid for a request that opens it and then sets its new state. Returns what undoes the claim on failure: the state
 * becomes `onFailure`. EMFILE at the limit of open files.
 */
function claim(request: Request, number: number, fid: Fid, onFailure: Use): () => void {
  const { quota } = request.session;
  if (!quota.mayAdd('opens', 1)) throw EMFILE;
  quota.add('opens', 1);
  fid.use = { kind: 'claimed', number, before: onFailure };
  return () => {
    quota.add('opens', -1);
    fid.use = onFailure;
  };
}

function opened(request: Request, fid: Fid, use: Use): MaybePromise<RMessage<'lopen'>> {
  const { attachment, node } = fid;
  return onError(
    () =>
      andThen(request.qid(attachment, node), qid => {
        fid.use = use;
        // 0 for a directory: with an iounit the client would request less than a message holds.
        return { qid, iounit: use.kind === 'dir' ? 0 : request.session.iounit };
      }),
    () => close(attachment, use),
  );
}

function isRefused(use: Use): boolean {
  return use.kind === 'node' && use.refused === true;
}

export const opening = {
  lopen(request, { fid: number, flags }) {
    const fid = request.unopened(number);
    const { use: before } = fid;
    const how = howOf(flags, isRefused(before));
    const undo = claim(request, number, fid, how.read && how.write ? refused : before);
    return onError(
      () => andThen(open(request.as(fid.attachment), fid, how, flags), use => opened(request, fid, use)),
      undo,
    );
  },

  lcreate(request, { fid: number, name, flags, mode, gid }) {
    const fid = request.unopened(number);
    const { attachment, node: dir } = fid;
    const { tree } = attachment;
    const how = {
      ...howOf(flags, false),
      exclusive: (flags & P9_EXCL) !== 0,
      mode: mode & 0o7777,
      gid: gidOf(attachment, gid),
    };
    const { attr } = request;
    const undo = claim(request, number, fid, fid.use);
    const created = onError(() => tree.create(request.as(attachment), dir, name, how, attr), undo);
    return andThen(created, ({ node, file }) => {
      if (fid.dir) tree.release(fid.dir);
      fid.dir = dir;
      fid.name = name;
      fid.node = node;
      fid.use = { kind: 'file', file, locked: false };
      return { qid: request.session.qidOf(node, attr), iounit: request.session.iounit };
    });
  },
} satisfies Partial<Handlers>;
