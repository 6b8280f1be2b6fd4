import { type Answer, andThen } from '../answer.ts';
import { Attr, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID } from '../attr.ts';
import { EACCES, EINVAL, ENODATA, EOPNOTSUPP, EPERM } from '../errno.ts';
import { type Caller, serverCaller } from '../host/syscalls.ts';
import { symlinkTargetBytesMax } from '../limits.ts';
import type { Bytes } from '../name.ts';
import type { SecurityModel, Shape, Target, Want } from './model.ts';
import { type Complain, modeXattr, readField, recordPrefix, writeField } from './record-xattr.ts';

export interface MappedOptions {
  /** Permission bits of regular files on the host, whatever the guest's mode. */
  readonly fmode: number;
  /** Permission bits of directories on the host. */
  readonly dmode: number;
}

const capability = 'security.capability';
/** Asks whether an xattr is there without reading it. */
const nothing = new Uint8Array(0);
const acls = new Set(['system.posix_acl_access', 'system.posix_acl_default']);

/** S_IXGRP: with it S_ISGID means set-gid, without it mandatory locking, which a write leaves alone. */
const groupExec = 0o010;

/**
 * The security model `mapped`: every object is the server's own, and what the guest sees of owner, mode, type and device
 * number lies in extended attributes, bit-compatible with QEMU's `mapped-xattr`. The guest's users are wholly apart from
 * the host's. Permissions among them are the guest kernel's business.
 *
 * An object that the server did not make is seen with the host's owner and mode.
 */
export function mapped({ fmode, dmode }: MappedOptions, complain: Complain): SecurityModel {
  const current = (target: Target): Answer<Attr> => {
    const attr = new Attr();
    return andThen(target.sys.stat(serverCaller, target.fd, attr), () =>
      andThen(view(target, attr), () => attr),
    );
  };

  const view = (target: Target, attr: Attr): Answer<void> =>
    andThen(readField(target, 'uid', complain), uid =>
      andThen(readField(target, 'gid', complain), gid =>
        andThen(readField(target, 'mode', complain), mode => {
          if (uid !== undefined) attr.uid = uid;
          if (gid !== undefined) attr.gid = gid;
          if (mode === undefined) return;
          attr.mode = seenMode(attr.mode, mode);
          const type = attr.type;
          if (type !== S_IFCHR && type !== S_IFBLK) return;
          return andThen(readField(target, 'rdev', complain), rdev => {
            if (rdev !== undefined) attr.rdev = rdev;
          });
        }),
      ),
    );

  /** Before a write: capabilities fall for everybody, set-id bits for all but root (CAP_FSETID). */
  const dropPrivileges = (target: Target, setIds: boolean): Answer<void> =>
    andThen(current(target), attr => {
      if (attr.type !== S_IFREG) return;
      const kept = setIds ? withoutSetId(attr.mode) : attr.mode;
      const fallen = kept === attr.mode ? undefined : writeField(target, 'mode', kept);
      return andThen<void, void>(fallen, () => dropCapability(target));
    });

  const dropCapability = (target: Target): Answer<void> => {
    const name = recordPrefix + capability;
    return andThen(target.sys.getxattr(serverCaller, target.fd, name, nothing), found =>
      found < 0 ? undefined : target.sys.removexattr(serverCaller, target.fd, name),
    );
  };

  return {
    name: 'mapped',
    ownPrefix: '.ninepd-new-',
    typeXattr: modeXattr,

    user: uid => ({ uid, gid: uid, groups: [] }),
    runsAs: () => serverCaller,
    makesAs: () => serverCaller,

    shape(want): Shape {
      const directory = (want.mode & S_IFMT) === S_IFDIR;
      return {
        type: directory ? S_IFDIR : S_IFREG,
        mode: directory ? dmode : fmode,
        content: want.target,
        aside: true,
      };
    },

    async stamp(target, _caller, want: Want) {
      const type = want.mode & S_IFMT;
      await writeField(target, 'uid', want.uid);
      await writeField(target, 'gid', want.gid);
      if (type !== S_IFREG && type !== S_IFDIR && type !== S_IFLNK)
        await writeField(target, 'rdev', want.rdev);
      await writeField(target, 'mode', want.mode);
    },

    view,

    async change(target, _caller, { uid, gid, mode }) {
      const attr = await current(target);
      const owned = uid !== undefined || gid !== undefined;
      if (owned && attr.type !== S_IFDIR) await dropCapability(target);
      // chown(2): set-id bits fall for everybody, root included, unless the same message says what the mode shall be.
      const fallen = owned && attr.type !== S_IFDIR ? withoutSetId(attr.mode) : attr.mode;
      const next = mode === undefined ? fallen : attr.type | mode;
      const lessFirst = (next & 0o7777 & attr.mode) | attr.type;
      if (lessFirst !== attr.mode) await writeField(target, 'mode', lessFirst);
      if (uid !== undefined) await writeField(target, 'uid', uid);
      if (gid !== undefined) await writeField(target, 'gid', gid);
      if (next !== lessFirst || (mode !== undefined && lessFirst === attr.mode))
        await writeField(target, 'mode', next);
    },

    async readlink(target) {
      const attr = new Attr();
      await target.sys.stat(serverCaller, target.fd, attr);
      // A native symlink of the host is shown as it is; user xattrs cannot be on one, so it is always the host's own.
      if (attr.type === S_IFLNK) return target.sys.readlink(serverCaller, target.fd);
      await view(target, attr);
      if (attr.type !== S_IFLNK) throw EINVAL;
      return readContent(target);
    },

    writing: (target, caller) =>
      andThen(target.sys.getxattr(serverCaller, target.fd, recordPrefix + capability, nothing), found =>
        andThen(
          caller.uid === 0 ? 0 : andThen(readField(target, 'mode', complain), mode => mode ?? S_ISUID),
          mode => {
            if (found < 0 && withoutSetId(mode) === mode) return;
            return dropPrivileges(target, caller.uid !== 0);
          },
        ),
      ),

    xattrToHost(name, caller, use, type): Bytes {
      if (name.startsWith(recordPrefix)) throw use === 'get' ? ENODATA : EACCES;
      if (name.startsWith('user.')) {
        // xattr(7): user attributes exist on regular files and directories only.
        if (type !== S_IFREG && type !== S_IFDIR) throw use === 'get' ? ENODATA : EPERM;
        return name;
      }
      if (acls.has(name)) {
        if (type === S_IFLNK) throw EOPNOTSUPP;
        return recordPrefix + name;
      }
      if (name.startsWith('security.')) return recordPrefix + name;
      if (name.startsWith('trusted.')) {
        if (!isRoot(caller)) throw use === 'get' ? ENODATA : EPERM;
        return recordPrefix + name;
      }
      throw EOPNOTSUPP;
    },

    xattrToClient(name, caller) {
      if (!name.startsWith(recordPrefix)) return name.startsWith('user.') ? name : undefined;
      const inner = name.slice(recordPrefix.length);
      if (acls.has(inner) || inner.startsWith('security.')) return inner;
      return inner.startsWith('trusted.') && isRoot(caller) ? inner : undefined;
    },
  };
}

function isRoot(caller: Caller): boolean {
  return caller.uid === 0 || caller === serverCaller;
}

/**
 * The mode a client sees: the stored one, unless its type cannot be. A directory is a directory on both sides, and only
 * a regular file of the host can stand for something else.
 */
function seenMode(host: number, stored: number): number {
  const hostType = host & S_IFMT;
  const type = stored & S_IFMT;
  const fits = hostType === S_IFREG ? type !== S_IFDIR && knownTypes.has(type) : type === hostType;
  return (fits ? type : hostType) | (stored & 0o7777);
}

const knownTypes = new Set([0o010000, S_IFCHR, S_IFDIR, S_IFBLK, S_IFREG, S_IFLNK, 0o140000]);

/** What is left of a mode when its set-id bits fall: should_remove_suid of fs/inode.c. */
function withoutSetId(mode: number): number {
  const gone = (mode & S_ISUID) | (mode & groupExec ? mode & S_ISGID : 0);
  return mode & ~gone;
}

/** The target of an emulated symlink: the whole content of the file, without NUL or newline. */
async function readContent(target: Target): Promise<Bytes> {
  const fd = await target.sys.reopen(serverCaller, target.fd, 0);
  try {
    const bytes = Buffer.allocUnsafe(symlinkTargetBytesMax);
    const length = await target.sys.read(serverCaller, fd, [bytes], 0);
    return bytes.toString('latin1', 0, length);
  } finally {
    await target.sys.close(fd);
  }
}
