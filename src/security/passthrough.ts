import { type Answer, andThen, inOrder, recover } from '../answer.ts';
import { Attr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../attr.ts';
import { ENODATA, EOPNOTSUPP, EPERM, Errno } from '../errno.ts';
import { type Caller, serverCaller } from '../host/syscalls.ts';
import { writableFile } from './may-write.ts';
import type { SecurityModel, Target } from './model.ts';
import { nobody, noUser } from './nobody.ts';
import { SharedGroups } from './shared-groups.ts';

/** Whether a mode is what is left when set-id bits fall before a write that the caller may make. */
async function dropsSetIdOnly(target: Target, caller: Caller, mode: number): Promise<boolean> {
  const attr = await writableFile(target, caller);
  return attr !== undefined && (attr.mode & 0o7777 & ~mode & ~0o6000) === 0 && (mode & ~attr.mode) === 0;
}

function changeMode(target: Target, caller: Caller, mode: number): Answer<void> {
  return recover<void>(
    () => target.sys.chmod(caller, target.fd, mode),
    async error => {
      if (error !== EPERM || !(await dropsSetIdOnly(target, caller, mode))) throw error;
    },
  );
}

/** What the host's user database knows of a uid: its primary group and all groups it is in. */
export type GroupsOf = (uid: number) => Answer<{ gid: number; groups: readonly number[] } | undefined>;

/** Told of a user whose groups cannot be had, who then cannot attach. */
export type NoGroups = (uid: number, errno: Errno) => void;

/**
 * The security model `passthrough`: requests go down to the file system with the guest user's credentials, so that objects
 * really belong to the guest's uid and gid and the host enforces permissions, as NFS does.
 *
 * A user's supplementary groups are those the host's user database gives that uid, since the protocol carries none; a uid
 * the host does not know is in no group but nogroup. A new object gets the gid that the client's message carries.
 * An attach that names no user acts as nobody. Only uid 0 is root.
 */
export function passthrough(groupsOf: GroupsOf, noGroups: NoGroups = () => undefined): SecurityModel {
  const known = (uid: number) =>
    recover(
      () => groupsOf(uid),
      error => {
        if (error instanceof Errno) noGroups(uid, error);
        throw error;
      },
    );
  const shared = new SharedGroups();
  return {
    name: 'passthrough',
    ownPrefix: '',
    typeXattr: '',

    user(uid): Answer<Caller> {
      if (uid === noUser) return { uid: nobody, gid: nobody, groups: [] };
      return andThen(known(uid), found => ({
        uid,
        gid: found?.gid ?? (uid === 0 ? 0 : nobody),
        groups: shared.of(uid, found?.groups ?? []),
      }));
    },
    runsAs: caller => caller,
    makesAs: (caller, gid) => (gid === caller.gid ? caller : { uid: caller.uid, gid, groups: caller.groups }),

    shape: want => ({ type: want.mode & S_IFMT, mode: want.mode & 0o7777, content: '', aside: false }),

    // The call that made the object ran as its owner, so owner and mode are right already, but for the set-id bits that
    // mkdir(2) ignores. What a default ACL of the parent took away stays away.
    stamp(target, caller, want) {
      const bits = want.mode & 0o6000;
      if ((want.mode & S_IFMT) !== S_IFDIR || bits === 0) return;
      const made = new Attr();
      return andThen(target.sys.stat(caller, target.fd, made), () => {
        if ((made.mode & bits) === bits) return;
        return target.sys.chmod(caller, target.fd, (made.mode & 0o7777) | bits);
      });
    },
    overlays: false,
    view: () => undefined,

    // Owner first: chown(2) takes set-id bits away, and the mode that was asked for is the one that shall be.
    change(target, caller, { uid, gid, mode }) {
      const { sys, fd } = target;
      const owned = uid !== undefined || gid !== undefined;
      return inOrder([
        owned && (() => sys.chown(caller, fd, uid ?? -1, gid ?? -1)),
        mode !== undefined && (() => changeMode(target, caller, mode)),
      ]);
    },
    readlink: (target, caller) => target.sys.readlink(caller, target.fd),
    // The write itself runs as the user, so that the kernel does it.
    writing: () => undefined,

    xattrToHost(name, _caller, use, type) {
      if (type === S_IFLNK && name.startsWith('system.')) throw EOPNOTSUPP;
      // xattr(7): the kernel says EPERM to both, which v9fs would not take for "none" when it only asks.
      if (name.startsWith('user.') && type !== S_IFREG && type !== S_IFDIR)
        throw use === 'get' ? ENODATA : EPERM;
      return name;
    },
    xattrToClient(name, caller) {
      // trusted.* is for those with CAP_SYS_ADMIN: xattr(7).
      return name.startsWith('trusted.') && caller.uid !== 0 && caller !== serverCaller ? undefined : name;
    },
  };
}
