import { Attr, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID } from '#base/attr.ts';
import { EACCES, EINVAL, ENODATA, EOPNOTSUPP, EPERM } from '#base/errno.ts';
import { andFinally, andThen, type MaybePromise, series } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { allocOwned } from '#base/owned.ts';
import { type Credentials, credsWithoutGroups, serverCreds } from '#host/syscalls.ts';
import { symlinkTargetBytesMax } from '#quota/limits.ts';
import { aclXattrs } from './acl-ids.ts';
import { modeXattr, readField, recordPrefix, type Warn, writeField } from './mapped-record.ts';
import type { GuestForm, HostForm, SecurityModel, Target } from './model.ts';
import { type OverrideStat, overrideXattr, readOverrideStat } from './override-stat.ts';
import type { Owner } from './owner.ts';

export interface MappedOptions {
  /** Permission bits of regular files on the host, whatever the guest's mode. */
  readonly fmode: number;
  /** Permission bits of directories on the host. */
  readonly dmode: number;
  /** The owner of objects without a record. Default: the host's. */
  readonly owner?: Owner | undefined;
  /** Permission bits of regular files without a record. Default: the host's. */
  readonly fileMode?: number | undefined;
  /** Permission bits of directories without a record. Default: the host's. */
  readonly dirMode?: number | undefined;
  /** Where a record or a part of it is missing, Podman's xattr is read: security/override-stat.ts. */
  readonly overrideStat?: boolean | undefined;
}

const hostCapability = `${recordPrefix}security.capability`;
/** Zero-length buffer: getxattr(2) then returns the size of the value. */
const noBytes = allocOwned(0);

/** S_IXGRP: with it S_ISGID means set-gid; without it mandatory locking, which a write does not clear. */
const groupExec = 0o010;

/**
 * The security model `mapped`: the server owns every object on the host. Owner, mode, type and device number as the guest sees
 * them are kept in extended attributes, bit-compatible with QEMU's `mapped-xattr`. The guest's users have no relation to the
 * host's; the guest's kernel checks their permissions.
 *
 * An object without a record is shown with the host's owner and mode, or with those of the options.
 */
export function mapped(options: MappedOptions, warn: Warn): SecurityModel {
  return new Mapped(options, warn);
}

export class Mapped implements SecurityModel {
  readonly name: string = 'mapped';
  readonly reservedPrefix = '.ninepd-new-';
  readonly typeXattr: Bytes = modeXattr;
  readonly overlaysAttrs = true;
  readonly typesMissing: boolean;
  readonly #options: MappedOptions;
  readonly #warn: Warn;

  constructor(options: MappedOptions, warn: Warn) {
    this.#options = options;
    this.#warn = warn;
    this.typesMissing = options.overrideStat === true;
  }

  credsOfUser(uid: number): Credentials {
    // NONUNAME as an owner would be read back as "unset", which shows the host's owner.
    return credsWithoutGroups(uid);
  }

  credsFor(): Credentials {
    return serverCreds;
  }

  credsForCreate(): Credentials {
    return serverCreds;
  }

  hostForm(want: GuestForm): HostForm {
    const { fmode, dmode } = this.#options;
    const directory = (want.mode & S_IFMT) === S_IFDIR;
    return {
      type: directory ? S_IFDIR : S_IFREG,
      mode: directory ? dmode : fmode,
      content: want.target,
      staged: true,
    };
  }

  setInitialAttrs(target: Target, _creds: Credentials, want: GuestForm): MaybePromise<void> {
    const type = want.mode & S_IFMT;
    const special = type !== S_IFREG && type !== S_IFDIR && type !== S_IFLNK;
    // Any order is safe, since the object has no name yet. A 256-byte inode of ext4 has room for two of these xattrs: the mode,
    // which a listing reads for every entry, should be one of them.
    return series([
      () => writeField(target, 'mode', want.mode),
      () => writeField(target, 'uid', want.uid),
      () => writeField(target, 'gid', want.gid),
      special && (() => writeField(target, 'rdev', want.rdev)),
    ]);
  }

  overlayAttrs(target: Target, attr: Attr): MaybePromise<void> {
    this.assume(attr);
    return andThen(readField(target, 'uid', this.#warn), uid =>
      andThen(readField(target, 'gid', this.#warn), gid =>
        andThen(readField(target, 'mode', this.#warn), mode => {
          const whole = uid !== undefined && gid !== undefined && mode !== undefined;
          if (whole || !this.#options.overrideStat) return this.#overlay(target, attr, { uid, gid, mode });
          return andThen(readOverrideStat(target, this.#warn), other => {
            if (mode === undefined && other.rdev !== undefined) attr.rdev = other.rdev;
            return this.#overlay(target, attr, {
              uid: uid ?? other.uid,
              gid: gid ?? other.gid,
              mode: mode ?? (other.mode && withType(other.mode, attr.mode)),
            });
          });
        }),
      ),
    );
  }

  /** What is shown of an object where there is no record. */
  protected assume(attr: Attr): void {
    const { owner, fileMode, dirMode } = this.#options;
    if (owner) {
      attr.uid = owner.uid;
      attr.gid = owner.gid;
    }
    const { type } = attr;
    const bits = type === S_IFREG ? fileMode : type === S_IFDIR ? dirMode : undefined;
    if (bits !== undefined) attr.mode = type | bits;
  }

  #overlay(target: Target, attr: Attr, { uid, gid, mode }: OverrideStat): MaybePromise<void> {
    if (uid !== undefined) attr.uid = uid;
    if (gid !== undefined) attr.gid = gid;
    if (mode === undefined) return;
    attr.mode = guestMode(attr.mode, mode);
    const { type } = attr;
    if (type !== S_IFCHR && type !== S_IFBLK) return;
    return andThen(readField(target, 'rdev', this.#warn), rdev => {
      if (rdev !== undefined) attr.rdev = rdev;
    });
  }

  #current(target: Target): MaybePromise<Attr> {
    const attr = new Attr();
    return andThen(target.sys.stat(serverCreds, target.fd, attr), () =>
      andThen(this.overlayAttrs(target, attr), () => attr),
    );
  }

  change(
    target: Target,
    _creds: Credentials,
    { uid, gid, mode }: { uid?: number; gid?: number; mode?: number },
  ): MaybePromise<void> {
    return andThen(this.#current(target), attr => {
      const owned = uid !== undefined || gid !== undefined;
      const stripsSetId = owned && attr.type !== S_IFDIR;
      // chown(2) clears set-id bits, for root too, unless the same message sets the mode.
      const stripped = stripsSetId ? withoutSetId(attr.mode) : attr.mode;
      const isLink = attr.type === S_IFLNK;
      const next = mode === undefined || isLink ? stripped : attr.type | mode;
      // Reduce the mode first: the new owner never has a permission that either the old or the new mode lacks.
      const less = (next & 0o7777 & attr.mode) | attr.type;
      return series([
        stripsSetId && (() => dropCapability(target)),
        less !== attr.mode && (() => writeField(target, 'mode', less)),
        uid !== undefined && (() => writeField(target, 'uid', uid)),
        gid !== undefined && (() => writeField(target, 'gid', gid)),
        mode !== undefined && isLink && refuseMode,
        (next !== less || (mode !== undefined && less === attr.mode)) &&
          (() => writeField(target, 'mode', next)),
      ]);
    });
  }

  readlink(target: Target): MaybePromise<Bytes> {
    const attr = new Attr();
    return andThen(target.sys.stat(serverCreds, target.fd, attr), () => {
      // A symlink of the host is shown unchanged. It cannot have a record, since symlinks have no user xattrs.
      if (attr.type === S_IFLNK) return target.sys.readlink(serverCreds, target.fd);
      return andThen(this.overlayAttrs(target, attr), () => {
        if (attr.type !== S_IFLNK) throw EINVAL;
        return readContent(target);
      });
    });
  }

  beforeWrite(target: Target, creds: Credentials): MaybePromise<void> {
    const setIds = creds.uid !== 0;
    return andThen(target.sys.getxattr(serverCreds, target.fd, hostCapability, noBytes), length =>
      andThen(setIds ? this.#storedMode(target) : 0, mode => {
        if (length < 0 && withoutSetId(mode) === mode) return;
        return this.#dropPrivileges(target, setIds);
      }),
    );
  }

  /** The mode of the record. Without one, S_ISUID: the host's mode counts, and may have set-id bits. */
  #storedMode(target: Target): MaybePromise<number> {
    return andThen(readField(target, 'mode', this.#warn), mode => mode ?? S_ISUID);
  }

  /** Before a write: clears file capabilities, and set-id bits unless the writer is root (CAP_FSETID). */
  #dropPrivileges(target: Target, setIds: boolean): MaybePromise<void> {
    return andThen(this.#current(target), attr => {
      if (attr.type !== S_IFREG) return;
      const kept = setIds ? withoutSetId(attr.mode) : attr.mode;
      const written = kept === attr.mode ? undefined : writeField(target, 'mode', kept);
      return andThen<void, void>(written, () => dropCapability(target));
    });
  }

  /** A guest that could write it would choose owner and mode. */
  #isOverride(name: Bytes): boolean {
    return this.#options.overrideStat === true && name === overrideXattr;
  }

  xattrToHost(name: Bytes, creds: Credentials, use: 'get' | 'set', type: number): Bytes {
    if (name.startsWith(recordPrefix) || this.#isOverride(name)) throw use === 'get' ? ENODATA : EACCES;
    if (name.startsWith('user.')) {
      // xattr(7): only regular files and directories have user xattrs.
      if (type !== S_IFREG && type !== S_IFDIR) throw use === 'get' ? ENODATA : EPERM;
      return name;
    }
    if (aclXattrs.has(name)) {
      if (type === S_IFLNK) throw EOPNOTSUPP;
      return recordPrefix + name;
    }
    if (name.startsWith('security.')) return recordPrefix + name;
    if (name.startsWith('trusted.')) {
      if (!isRoot(creds)) throw use === 'get' ? ENODATA : EPERM;
      return recordPrefix + name;
    }
    throw EOPNOTSUPP;
  }

  xattrToClient(name: Bytes, creds: Credentials): Bytes | undefined {
    if (this.#isOverride(name)) return undefined;
    if (!name.startsWith(recordPrefix)) return name.startsWith('user.') ? name : undefined;
    const inner = name.slice(recordPrefix.length);
    if (aclXattrs.has(inner) || inner.startsWith('security.')) return inner;
    return inner.startsWith('trusted.') && isRoot(creds) ? inner : undefined;
  }
}

/** chmod(2): a symlink has no mode of its own. */
export function refuseMode(): never {
  throw EOPNOTSUPP;
}

function dropCapability(target: Target): MaybePromise<void> {
  return andThen(target.sys.getxattr(serverCreds, target.fd, hostCapability, noBytes), length =>
    length < 0 ? undefined : target.sys.removexattr(serverCreds, target.fd, hostCapability),
  );
}

function isRoot(creds: Credentials): boolean {
  return creds.uid === 0 || creds === serverCreds;
}

/**
 * The mode that a client sees: the stored one, with the host's type if the stored type is impossible. A directory is one on both
 * sides, and only a regular file of the host can represent another type.
 */
export function guestMode(host: number, stored: number): number {
  const hostType = host & S_IFMT;
  const type = stored & S_IFMT;
  const fits = hostType === S_IFREG ? type !== S_IFDIR && knownTypes.has(type) : type === hostType;
  return (fits ? type : hostType) | (stored & 0o7777);
}

/** A mode with the type of `host` where it has none. */
function withType(mode: number, host: number): number {
  return mode & S_IFMT ? mode : mode | (host & S_IFMT);
}

const knownTypes = new Set([0o010000, S_IFCHR, S_IFDIR, S_IFBLK, S_IFREG, S_IFLNK, 0o140000]);

/** The mode after set-id bits are cleared: should_remove_suid of fs/inode.c. */
export function withoutSetId(mode: number): number {
  const cleared = (mode & S_ISUID) | (mode & groupExec ? mode & S_ISGID : 0);
  return mode & ~cleared;
}

/** The target of an emulated symlink: the file's content, which ends without NUL or newline. */
function readContent({ sys, fd: pathFd }: Target): MaybePromise<Bytes> {
  return andThen(sys.reopen(serverCreds, pathFd, 0), fd =>
    andFinally(
      () => {
        const bytes = allocOwned(symlinkTargetBytesMax);
        return andThen(sys.read(serverCreds, fd, [bytes], 0), length => bytes.toString('latin1', 0, length));
      },
      () => sys.close(fd),
    ),
  );
}
