import { Attr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '#base/attr.ts';
import { ENODATA, EOPNOTSUPP, EPERM } from '#base/errno.ts';
import { andThen, type MaybePromise, recover, series } from '#base/maybe-promise.ts';
import { type Credentials, serverCreds } from '#host/syscalls.ts';
import type { SecurityModel, Target } from './model.ts';
import { nobody, noUser } from './nobody.ts';
import { writableFile } from './write-access.ts';

/** Whether a mode is what is left when set-id bits fall before a write that the caller may make. */
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

/** What the host's user database knows of a uid: its primary group and all groups it is in. */
export type GroupsOf = (uid: number) => MaybePromise<{ gid: number; groups: readonly number[] } | undefined>;

/**
 * The security model `passthrough`: requests go down to the file system with the guest user's credentials, so that objects
 * really belong to the guest's uid and gid and the host enforces permissions, as NFS does.
 *
 * A user's supplementary groups are those the host's user database gives that uid, since the protocol carries none; a uid
 * the host does not know is in no group but nogroup. A new object gets the gid that the client's message carries.
 * An attach that names no user acts as nobody. Only uid 0 is root.
 */
export function passthrough(groupsOf: GroupsOf): SecurityModel {
  return {
    name: 'passthrough',
    reservedPrefix: '',
    typeXattr: '',

    credsOfUser(uid): MaybePromise<Credentials> {
      if (uid === noUser) return { uid: nobody, gid: nobody, groups: [] };
      return andThen(groupsOf(uid), known => ({
        uid,
        gid: known?.gid ?? (uid === 0 ? 0 : nobody),
        groups: known?.groups ?? [],
      }));
    },
    credsFor: creds => creds,
    credsForCreate: (creds, gid) =>
      gid === creds.gid ? creds : { uid: creds.uid, gid, groups: creds.groups },

    hostForm: want => ({ type: want.mode & S_IFMT, mode: want.mode & 0o7777, content: '', staged: false }),

    // The call that made the object ran as its owner, so owner and mode are right already, but for the set-id bits that
    // mkdir(2) ignores. What a default ACL of the parent took away stays away.
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

    // Owner first: chown(2) takes set-id bits away, and the mode that was asked for is the one that shall be.
    change(target, creds, { uid, gid, mode }) {
      const { sys, fd } = target;
      const owned = uid !== undefined || gid !== undefined;
      return series([
        owned && (() => sys.chown(creds, fd, uid ?? -1, gid ?? -1)),
        mode !== undefined && (() => changeMode(target, creds, mode)),
      ]);
    },
    readlink: (target, creds) => target.sys.readlink(creds, target.fd),
    // The write itself runs as the user, so that the kernel does it.
    beforeWrite: () => undefined,

    xattrToHost(name, _caller, use, type) {
      if (type === S_IFLNK && name.startsWith('system.')) throw EOPNOTSUPP;
      // xattr(7): the kernel says EPERM to both, which v9fs would not take for "none" when it only asks.
      if (name.startsWith('user.') && type !== S_IFREG && type !== S_IFDIR)
        throw use === 'get' ? ENODATA : EPERM;
      return name;
    },
    xattrToClient(name, creds) {
      // trusted.* is for those with CAP_SYS_ADMIN: xattr(7).
      return name.startsWith('trusted.') && creds.uid !== 0 && creds !== serverCreds ? undefined : name;
    },
  };
}
