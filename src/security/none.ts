import { Attr, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID } from '#base/attr.ts';
import { ENODATA, EOPNOTSUPP, EPERM } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { type Credentials, credsWithoutGroups, serverCreds } from '#host/syscalls.ts';
import { aclXattrs } from './acl-ids.ts';
import type { GuestForm, HostForm, SecurityModel, Target } from './model.ts';
import type { Owner } from './owner.ts';

export interface NoneOptions {
  /** The owner that guests see of every object. `caller`: each user sees itself. */
  readonly owner: Owner | 'caller';
  /** What chown to another owner does: nothing, or EPERM. */
  readonly chown: 'ignore' | 'refuse';
  /**
   * The server has CAP_FSETID, with which a write does not clear set-id bits (file_remove_privs of fs/inode.c): then the model
   * clears them.
   */
  readonly clearsSetIds: boolean;
}

/**
 * The security model `none`: host calls run as the user of the server, who owns every new object on the host. Types, permission
 * bits, times and links are the host's. A change of owner has no effect by default (QEMU's `none` tries it as QEMU's user).
 *
 * A set-id bit of a file would lend the server's user to everybody on the host: it is dropped without an error, as Linux drops
 * S_ISGID in chmod(2). S_ISGID of a directory stays. Devices are refused with EPERM, as mknod(2) refuses them to a user.
 */
export function none(options: NoneOptions): SecurityModel {
  return new None(options);
}

class None implements SecurityModel {
  readonly name = 'none';
  readonly reservedPrefix = '';
  readonly typeXattr = '';
  readonly overlaysAttrs = false;
  readonly #owner: Owner | undefined;
  readonly #chown: NoneOptions['chown'];
  readonly #clearsSetIds: boolean;

  constructor({ owner, chown, clearsSetIds }: NoneOptions) {
    this.#owner = owner === 'caller' ? undefined : owner;
    this.#chown = chown;
    this.#clearsSetIds = clearsSetIds;
  }

  credsOfUser(uid: number): Credentials {
    return credsWithoutGroups(uid);
  }

  credsFor(): Credentials {
    return serverCreds;
  }

  credsForCreate(): Credentials {
    return serverCreds;
  }

  hostForm(want: GuestForm): HostForm {
    const type = want.mode & S_IFMT;
    if (type === S_IFCHR || type === S_IFBLK) throw EPERM;
    return { type, mode: allowedMode(type, want.mode), content: '', staged: false };
  }

  setInitialAttrs(target: Target, _creds: Credentials, want: GuestForm): MaybePromise<void> {
    // mkdir(2) ignores S_ISGID.
    if ((want.mode & S_IFMT) !== S_IFDIR || (want.mode & S_ISGID) === 0) return;
    const made = new Attr();
    return andThen(target.sys.stat(serverCreds, target.fd, made), () => {
      if (made.mode & S_ISGID) return;
      return target.sys.chmod(serverCreds, target.fd, (made.mode & 0o7777) | S_ISGID);
    });
  }

  overlayAttrs(): void {}

  shownOwner(creds: Credentials): Owner {
    return this.#owner ?? creds;
  }

  change(
    { sys, fd }: Target,
    creds: Credentials,
    { uid, gid, mode }: { readonly uid?: number; readonly gid?: number; readonly mode?: number },
  ): MaybePromise<void> {
    const shown = this.shownOwner(creds);
    const refused =
      this.#chown === 'refuse' && ((uid ?? shown.uid) !== shown.uid || (gid ?? shown.gid) !== shown.gid);
    if (refused) throw EPERM;
    if (mode === undefined) return;
    if ((mode & (S_ISUID | S_ISGID)) === 0) return sys.chmod(serverCreds, fd, mode);
    const attr = new Attr();
    return andThen(sys.stat(serverCreds, fd, attr), () =>
      sys.chmod(serverCreds, fd, allowedMode(attr.type, mode)),
    );
  }

  readlink({ sys, fd }: Target): MaybePromise<Bytes> {
    return sys.readlink(serverCreds, fd);
  }

  beforeWrite({ sys, fd }: Target): MaybePromise<void> {
    if (!this.#clearsSetIds) return;
    const attr = new Attr();
    return andThen(sys.stat(serverCreds, fd, attr), () => {
      const mode = attr.mode & 0o7777;
      const kept = allowedMode(attr.type, mode);
      return kept === mode ? undefined : sys.chmod(serverCreds, fd, kept);
    });
  }

  xattrToHost(name: Bytes, _creds: Credentials, use: 'get' | 'set', type: number): Bytes {
    if (name.startsWith('user.')) {
      // xattr(7): only regular files and directories have user xattrs.
      if (type !== S_IFREG && type !== S_IFDIR) throw use === 'get' ? ENODATA : EPERM;
      return name;
    }
    if (aclXattrs.has(name) && type !== S_IFLNK) return name;
    throw EOPNOTSUPP;
  }

  xattrToClient(name: Bytes): Bytes | undefined {
    return name.startsWith('user.') || aclXattrs.has(name) ? name : undefined;
  }
}

/** Permission bits that an object of this type may have: no set-id bits except S_ISGID of a directory. */
function allowedMode(type: number, mode: number): number {
  return mode & (type === S_IFDIR ? 0o3777 : 0o1777);
}
