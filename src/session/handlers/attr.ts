import type { Change, Node } from '#backend/tree.ts';
import { S_IFDIR, S_IFREG } from '#base/attr.ts';
import { EINVAL, EISDIR, ENAMETOOLONG } from '#base/errno.ts';
import { noId } from '#base/ids.ts';
import { STATFS_BSIZE, STATFS_BYTES, STATFS_NAMELEN, STATFS_TYPE } from '#base/layout.ts';
import { andThen } from '#base/maybe-promise.ts';
import { allocOwned } from '#base/owned.ts';
import type { Time } from '#host/syscalls.ts';
import {
  P9_ATTR_ATIME,
  P9_ATTR_ATIME_SET,
  P9_ATTR_CTIME,
  P9_ATTR_GID,
  P9_ATTR_MODE,
  P9_ATTR_MTIME,
  P9_ATTR_MTIME_SET,
  P9_ATTR_SIZE,
  P9_ATTR_UID,
  V9FS_MAGIC,
} from '#protocol/constants.ts';
import { offsetOf } from '#protocol/kinds.ts';
import type { TMessage } from '#protocol/operations.ts';
import { done, type Handlers, whenDone } from './handler.ts';

const knownBits =
  P9_ATTR_MODE |
  P9_ATTR_UID |
  P9_ATTR_GID |
  P9_ATTR_SIZE |
  P9_ATTR_ATIME |
  P9_ATTR_MTIME |
  P9_ATTR_CTIME |
  P9_ATTR_ATIME_SET |
  P9_ATTR_MTIME_SET;
const settableBits = P9_ATTR_MODE | P9_ATTR_UID | P9_ATTR_GID | P9_ATTR_SIZE | P9_ATTR_ATIME | P9_ATTR_MTIME;

/**
 * The time of a set ATIME or MTIME bit: the server's clock unless the *_SET bit is set too. EINVAL for bad nanoseconds. A file system
 * keeps the nearest time it can (fs/inode.c: timestamp_truncate).
 */
function timeOf(valid: number, set: number, sec: number, nsec: number): Time {
  if ((valid & set) === 0) return 'now';
  if (nsec < 0 || nsec >= 1e9) throw EINVAL;
  return { sec, nsec };
}

function ownerOf(id: number): number {
  if (id === noId) throw EINVAL;
  return id;
}

function sizeOf(node: Node, message: TMessage<'setattr'>): number {
  const size = offsetOf(message.size);
  if (node.type === S_IFDIR) throw EISDIR;
  if (node.type !== S_IFREG) throw EINVAL;
  return size;
}

function changeOf(node: Node, message: TMessage<'setattr'>): Change {
  const { valid } = message;
  const { atime_sec, atime_nsec, mtime_sec, mtime_nsec } = message;
  return {
    ...(valid & P9_ATTR_UID && { uid: ownerOf(message.uid) }),
    ...(valid & P9_ATTR_GID && { gid: ownerOf(message.gid) }),
    ...(valid & P9_ATTR_MODE && { mode: message.mode & 0o7777 }),
    ...(valid & P9_ATTR_SIZE && { size: sizeOf(node, message) }),
    ...(valid & P9_ATTR_ATIME && { atime: timeOf(valid, P9_ATTR_ATIME_SET, atime_sec, atime_nsec) }),
    ...(valid & P9_ATTR_MTIME && { mtime: timeOf(valid, P9_ATTR_MTIME_SET, mtime_sec, mtime_nsec) }),
  };
}

export const attributes = {
  getattr(request, { fid: number }) {
    const { attachment, node } = request.object(number);
    return andThen(request.stat(attachment, node), attr => ({ attr: attr.bytes }));
  },

  setattr(request, message) {
    const { attachment, node, use } = request.object(message.fid);
    const { valid } = message;
    if ((valid & ~knownBits) !== 0) throw EINVAL;
    // CTIME is ignored: Linux has no call that sets a ctime.
    if ((valid & settableBits) === 0) return done;
    const file = use.kind === 'file' ? use.file : undefined;
    return whenDone(attachment.tree.change(request.as(attachment), node, changeOf(node, message), file));
  },

  async statfs(request, { fid: number }) {
    const { attachment, node } = request.object(number);
    const statfs = allocOwned(STATFS_BYTES);
    await attachment.tree.statfs(request.as(attachment), node, statfs);
    statfs.writeUInt32LE(V9FS_MAGIC, STATFS_TYPE);
    if (statfs.readUInt32LE(STATFS_BSIZE) === 0) statfs.writeUInt32LE(4096, STATFS_BSIZE);
    statfs.writeUInt32LE(255, STATFS_NAMELEN);
    return { statfs };
  },

  readlink(request, { fid: number }) {
    const { attachment, node } = request.object(number);
    return andThen(attachment.tree.readlink(request.as(attachment), node), target => {
      // The longest target (PATH_MAX − 1) does not fit the smallest msize. 9: header and the string's length.
      if (target.length > request.session.replyBytesMax - 9) throw ENAMETOOLONG;
      return { target };
    });
  },
} satisfies Partial<Handlers>;
