import { Attr, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '#base/attr.ts';
import { EOPNOTSUPP, Errno } from '#base/errno.ts';
import { andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import { type Bytes, nameOf } from '#base/name.ts';
import { type Credentials, serverCreds } from '#host/syscalls.ts';
import { guestMode, Mapped, type MappedOptions, refuseMode, withoutSetId } from './mapped.ts';
import type { Warn } from './mapped-record.ts';
import type {
  GuestForm,
  ObjectRecord,
  RecordFileNames,
  SecurityModel,
  StoredAttrs,
  Target,
} from './model.ts';

/**
 * The security model `mapped-file`: as `mapped`, with owner, mode, type and device number in files of hidden
 * directories, bit-compatible with QEMU's `mapped-file` (security/record-text.ts). For file systems without user xattrs.
 *
 * Guests get no extended attributes and no ACLs, since these would be the host's: an ACL would let users of the host in.
 */
export function mappedFile(options: MappedOptions, warn: Warn): SecurityModel {
  return new MappedFile(options, warn);
}

class MappedFile extends Mapped {
  override readonly name = 'mapped-file';
  override readonly typeXattr = '';
  override readonly typesMissing = true;
  readonly recordFiles: RecordFileNames;

  constructor(options: MappedOptions, warn: Warn) {
    super(options, warn);
    this.recordFiles = { directory: nameOf('.virtfs_metadata'), root: nameOf('.virtfs_metadata_root'), warn };
  }

  override setInitialAttrs(target: Target, _creds: Credentials, want: GuestForm): MaybePromise<void> {
    const { uid, gid, mode, rdev } = want;
    const type = mode & S_IFMT;
    const special = type !== S_IFREG && type !== S_IFDIR && type !== S_IFLNK;
    return recordOf(target).update(() => ({ uid, gid, mode, rdev: special ? rdev : undefined }));
  }

  override overlayAttrs(target: Target, attr: Attr): MaybePromise<void> {
    this.assume(attr);
    return andThen(recordOf(target).read(), stored => {
      if (stored.uid !== undefined) attr.uid = stored.uid;
      if (stored.gid !== undefined) attr.gid = stored.gid;
      if (stored.mode === undefined) return;
      attr.mode = guestMode(attr.mode, stored.mode);
      const type = attr.type;
      if ((type === S_IFCHR || type === S_IFBLK) && stored.rdev !== undefined) attr.rdev = stored.rdev;
    });
  }

  override change(
    target: Target,
    _creds: Credentials,
    { uid, gid, mode }: { uid?: number; gid?: number; mode?: number },
  ): MaybePromise<void> {
    const owned = uid !== undefined || gid !== undefined;
    return this.#update(target, (old, seen) => {
      const type = seen & S_IFMT;
      if (mode !== undefined && type === S_IFLNK) refuseMode();
      // chown(2) clears set-id bits, for root too, unless the same message sets the mode.
      const kept = owned && type !== S_IFDIR ? withoutSetId(seen) : seen;
      return {
        ...old,
        uid: uid ?? old.uid,
        gid: gid ?? old.gid,
        mode: mode !== undefined ? type | mode : kept === seen ? old.mode : kept,
      };
    });
  }

  override beforeWrite(target: Target, creds: Credentials): MaybePromise<void> {
    if (creds.uid === 0) return;
    return andThen(recordOf(target).read(), ({ mode }) => {
      // Without a record the host's mode counts, and may have set-id bits.
      if (mode !== undefined && withoutSetId(mode) === mode) return;
      const attr = new Attr();
      return andThen(target.sys.stat(serverCreds, target.fd, attr), () => {
        const seen = mode === undefined ? attr.mode : guestMode(attr.mode, mode);
        if ((seen & S_IFMT) !== S_IFREG || withoutSetId(seen) === seen) return;
        return this.#update(target, (old, now) => ({ ...old, mode: withoutSetId(now) }));
      });
    });
  }

  /** `change` gets the record and the mode that the client sees. */
  #update(target: Target, change: (old: StoredAttrs, seen: number) => StoredAttrs): MaybePromise<void> {
    const { sys, fd } = target;
    const host = new Attr();
    return andThen(sys.stat(serverCreds, fd, host), () => {
      this.assume(host);
      const updated = recordOf(target).update(old =>
        change(old, old.mode === undefined ? host.mode : guestMode(host.mode, old.mode)),
      );
      // The record is another file. chown(2) of no id sets the object's ctime, which qid.version is made of.
      return andThen(updated, () =>
        recover<void>(
          () => sys.chown(serverCreds, fd, -1, -1),
          error => {
            if (!(error instanceof Errno)) throw error;
          },
        ),
      );
    });
  }

  override xattrToHost(): Bytes {
    throw EOPNOTSUPP;
  }

  override xattrToClient(): undefined {
    return undefined;
  }
}

function recordOf({ record }: Target): ObjectRecord {
  if (!record) throw new Error('mapped-file needs a tree that keeps record files.');
  return record;
}
