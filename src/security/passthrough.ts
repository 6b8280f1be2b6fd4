import { Attr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '#base/attr.ts';
import { ENODATA, EOPNOTSUPP, EPERM, Errno } from '#base/errno.ts';
import { nobody, noId } from '#base/ids.ts';
import { andThen, type MaybePromise, recover, series } from '#base/maybe-promise.ts';
import { type Credentials, type Submitter, serverCreds } from '#host/syscalls.ts';
import type { SecurityModel, Target } from './model.ts';
import { SharedGroups } from './shared-groups.ts';
import { writableFile } from './write-access.ts';

/** Whether `mode` only clears set-id bits, on a file that the caller may write. */
async function dropsSetIdOnly(target: Target, creds: Credentials, mode: number): Promise<boolean> {
  const attr = await writableFile(target, creds);
  return attr !== undefined && (attr.mode & 0o7777 & ~mode & ~0o6000) === 0 && (mode & ~attr.mode) === 0;
}

function changeMode(target: Target, creds: Credentials, mode: number): MaybePromise<void> {
  return recover<void>(
    () => target.sys.chmod(creds, target.fd, mode),
    async error => {
      if (error !== EPERM || !(await dropsSetIdOnly(target, creds, mode))) throw error;
    },
  );
}

/** Looks up a uid's primary group and groups in the host's user database; undefined for an unknown uid. */
export type GroupsOf = (
  uid: number,
  submitter: Submitter,
) => MaybePromise<{ gid: number; groups: readonly number[] } | undefined>;

/** Told of a user whose groups cannot be had, who then cannot attach. */
type NoGroups = (uid: number, errno: Errno) => void;

/**
 * The security model `passthrough`: host calls run with the guest user's credentials, so objects belong to the guest's uid and
 * gid on the host, whose kernel checks permissions, as with NFS.
 *
 * A user's supplementary groups come from the host's user database, since the protocol carries none; a uid that the host does
 * not know is only in nogroup. A new object gets the gid of the client's message. An attach that names no user acts as nobody.
 * Only uid 0 is root.
 */
export function passthrough(groupsOf: GroupsOf, noGroups: NoGroups = () => undefined): SecurityModel {
  const known = (uid: number, submitter: Submitter) =>
    recover(
      () => groupsOf(uid, submitter),
      error => {
        if (error instanceof Errno) noGroups(uid, error);
        throw error;
      },
    );
  const shared = new SharedGroups();
  return {
    name: 'passthrough',
    reservedPrefix: '',
    typeXattr: '',

    credsOfUser(uid, submitter): MaybePromise<Credentials> {
      if (uid === noId) return { uid: nobody, gid: nobody, groups: [] };
      return andThen(known(uid, submitter), found => ({
        uid,
        gid: found?.gid ?? (uid === 0 ? 0 : nobody),
        groups: shared.of(uid, found?.groups ?? []),
      }));
    },
    credsFor: creds => creds,
    credsForCreate: (creds, gid) =>
      gid === creds.gid ? creds : { uid: creds.uid, gid, groups: creds.groups },

    hostForm: want => ({ type: want.mode & S_IFMT, mode: want.mode & 0o7777, content: '', staged: false }),

    // The call that created the object ran as its owner, so owner and mode are right, except for the set-id bits, which mkdir(2)
    // ignores. Permissions that the parent's default ACL masks stay masked.
    setInitialAttrs(target, creds, want) {
      const bits = want.mode & 0o6000;
      if ((want.mode & S_IFMT) !== S_IFDIR || bits === 0) return;
      const made = new Attr();
      return andThen(target.sys.stat(creds, target.fd, made), () => {
        if ((made.mode & bits) === bits) return;
        return target.sys.chmod(creds, target.fd, (made.mode & 0o7777) | bits);
      });
    },
    overlaysAttrs: false,
    overlayAttrs: () => undefined,

    // Owner first: chown(2) clears set-id bits, and the requested mode must be the final one.
    change(target, creds, { uid, gid, mode }) {
      const { sys, fd } = target;
      const owned = uid !== undefined || gid !== undefined;
      return series([
        owned && (() => sys.chown(creds, fd, uid ?? -1, gid ?? -1)),
        mode !== undefined && (() => changeMode(target, creds, mode)),
      ]);
    },
    readlink: (target, creds) => target.sys.readlink(creds, target.fd),
    // The write runs as the user, so the kernel clears them.
    beforeWrite: () => undefined,

    xattrToHost(name, _creds, use, type) {
      if (type === S_IFLNK && name.startsWith('system.')) throw EOPNOTSUPP;
      // xattr(7): the kernel returns EPERM for both. v9fs needs ENODATA for a get, since it does not take EPERM for "none".
      if (name.startsWith('user.') && type !== S_IFREG && type !== S_IFDIR)
        throw use === 'get' ? ENODATA : EPERM;
      return name;
    },
    xattrToClient(name, creds) {
      // trusted.* needs CAP_SYS_ADMIN: xattr(7).
      return name.startsWith('trusted.') && creds.uid !== 0 && creds !== serverCreds ? undefined : name;
    },
  };
}
