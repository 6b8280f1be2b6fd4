import { Attr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '#base/attr.ts';
import { ENODATA, EOPNOTSUPP, EPERM, Errno } from '#base/errno.ts';
import type { HostErrorLog } from '#base/host-error-log.ts';
import { nobody, noId } from '#base/ids.ts';
import { andThen, type MaybePromise, recover, series } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { effectiveCapabilities } from '#host/process.ts';
import { type Credentials, type OwnerRanges, type Submitter, serverCreds } from '#host/syscalls.ts';
import { rangesHave } from './id-map.ts';
import type { SecurityModel, Target } from './model.ts';
import { SharedGroups } from './shared-groups.ts';
import { writableFile } from './write-access.ts';

const S_ISGID = 0o2000;

/** Whether `mode` only clears set-id bits, on a file that the caller may write. */
async function dropsSetIdOnly(target: Target, creds: Credentials, mode: number): Promise<boolean> {
  const attr = await writableFile(target, creds);
  return attr !== undefined && (attr.mode & 0o7777 & ~mode & ~0o6000) === 0 && (mode & ~attr.mode) === 0;
}

/**
 * The caller as a member of the object's group, where the guest's kernel judges over the object. Without CAP_FSETID the host
 * clears S_ISGID at chmod(2), and when an ACL is set, unless the caller is in the group (setattr_prepare of fs/attr.c); the
 * guest's kernel has done so already for a user who is not.
 */
function inGroupOf({ sys, fd }: Target, creds: Credentials): MaybePromise<Credentials> {
  const { fileCaps, gid } = creds;
  if (fileCaps === undefined) return creds;
  const attr = new Attr();
  return andThen(sys.stat(serverCreds, fd, attr), () => {
    if (attr.gid === gid || !rangesHave(fileCaps, attr.uid, attr.gid)) return creds;
    return { ...creds, gid: attr.gid };
  });
}

/**
 * Whether the kernel gives what is created in the directory the group `gid`, whoever creates it (inode_init_owner of
 * fs/inode.c).
 */
export function givesGroup({ sys, fd }: Target, gid: number): MaybePromise<boolean> {
  const dir = new Attr();
  return andThen(sys.stat(serverCreds, fd, dir), () => (dir.mode & S_ISGID) !== 0 && dir.gid === gid);
}

function changeMode(target: Target, creds: Credentials, mode: number): MaybePromise<void> {
  const caller = (mode & S_ISGID) === 0 ? creds : inGroupOf(target, creds);
  return recover<void>(
    () => andThen(caller, as => target.sys.chmod(as, target.fd, mode)),
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

function xattrToHost(name: Bytes, _creds: Credentials, use: 'get' | 'set', type: number): Bytes {
  if (type === S_IFLNK && name.startsWith('system.')) throw EOPNOTSUPP;
  // xattr(7): the kernel returns EPERM for both. v9fs needs ENODATA for a get, since it does not take EPERM for "none".
  if (name.startsWith('user.') && type !== S_IFREG && type !== S_IFDIR) throw use === 'get' ? ENODATA : EPERM;
  return name;
}

/** The namespace of an xattr that only CAP_SYS_ADMIN may set: xattr(7), cap_inode_setxattr of security/commoncap.c. */
function sysAdminXattr(name: Bytes): 'trusted' | 'security' | undefined {
  if (name.startsWith('trusted.')) return 'trusted';
  return name.startsWith('security.') && name !== 'security.capability' ? 'security' : undefined;
}

/** Who decides what the guest's users may do: see docs/access.md. */
export type Check = 'guest' | 'host';

export interface PassthroughOptions {
  readonly check: Check;
  /** The objects over which the guest's kernel judges with `check: 'guest'`. Default: all. */
  readonly over?: 'all' | OwnerRanges;
  readonly log?: Pick<HostErrorLog, 'noGroups' | 'notInGroup' | 'needsSysAdmin'>;
}

/**
 * The security model `passthrough`: host calls run with the guest user's credentials, so objects belong to the guest's uid and
 * gid on the host. An attach that names no user acts as nobody. Only uid 0 is root.
 *
 * `check: 'guest'`: the guest's kernel has checked permissions, by groups that the protocol does not carry, so the host does not
 * judge again: calls have the capabilities of file access. A new object gets the gid of the client's message.
 *
 * `check: 'host'`: the host's kernel checks, as with NFS. Supplementary groups come from the host's user database; a uid that the
 * host does not know is only in nogroup. A user creates only with a gid of its own, or in a set-gid directory with that of the
 * directory (CVE-2022-0358).
 */
export function passthrough(
  groupsOf: GroupsOf,
  { check, over = 'all', log }: PassthroughOptions = { check: 'guest' },
): SecurityModel {
  const known = (uid: number, submitter: Submitter) =>
    recover(
      () => groupsOf(uid, submitter),
      error => {
        if (error instanceof Errno) log?.noGroups(uid, error);
        throw error;
      },
    );
  const shared = new SharedGroups();
  const capable = check === 'guest' ? { fileCaps: over } : {};
  return {
    name: 'passthrough',
    reservedPrefix: '',
    typeXattr: '',

    credsOfUser(uid, submitter): MaybePromise<Credentials> {
      if (uid === noId) return { uid: nobody, gid: nobody, groups: [] };
      // No group makes a difference beside the capabilities.
      if (capable.fileCaps === 'all') return { uid, gid: uid === 0 ? 0 : nobody, groups: [], ...capable };
      return andThen(known(uid, submitter), found => ({
        uid,
        gid: found?.gid ?? (uid === 0 ? 0 : nobody),
        groups: shared.of(uid, found?.groups ?? []),
        ...capable,
      }));
    },
    credsFor: creds => creds,

    credsForCreate(creds, gid, dir) {
      if (gid === creds.gid) return creds;
      if (check === 'guest' || creds.uid === 0 || creds.groups.includes(gid)) return { ...creds, gid };
      return andThen(givesGroup(dir, gid), given => {
        if (given) return creds;
        log?.notInGroup(creds.uid, gid);
        throw EPERM;
      });
    },
    credsForAcl: inGroupOf,

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

    xattrToHost,
    xattrToClient(name, creds) {
      // trusted.* needs CAP_SYS_ADMIN: xattr(7).
      return name.startsWith('trusted.') && creds.uid !== 0 && creds !== serverCreds ? undefined : name;
    },
    xattrRefused(name, creds) {
      const kind = sysAdminXattr(name);
      if (kind === undefined || creds.uid !== 0 || effectiveCapabilities().has('CAP_SYS_ADMIN')) return;
      log?.needsSysAdmin(kind);
    },
  };
}
