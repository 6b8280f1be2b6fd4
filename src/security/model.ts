import type { Attr } from '#base/attr.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Credentials, Submitter, Syscalls } from '#host/syscalls.ts';
import type { Owner } from './owner.ts';

/** Attributes that a model stores for an object; absent ones are the host's. */
export interface StoredAttrs {
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  /** The whole st_mode, type included. */
  readonly mode?: number | undefined;
  /** new_encode_dev; devices only. */
  readonly rdev?: number | undefined;
}

/** The record file of one object, whatever its name is by now. */
export interface ObjectRecord {
  /** Without a record: an empty object. */
  read(): MaybePromise<StoredAttrs>;
  /** Replaces the record; no other server process changes it meanwhile. */
  update(change: (old: StoredAttrs) => StoredAttrs): MaybePromise<void>;
}

/** How a model names its record files, which the tree keeps beside the objects. */
export interface RecordFileNames {
  /** The directory, in each directory, with a file for each entry that has a record. */
  readonly directory: Name;
  /** The file of the export's root, in the root. */
  readonly root: Name;
  /** Logs what is wrong with a record file, which is then ignored. `text` is one of a few. */
  readonly warn: (text: string) => void;
}

/** An object: a descriptor (O_PATH or open), and the system calls to use on it. */
export interface Target {
  readonly sys: Syscalls;
  readonly fd: number;
  /** For models with record files. */
  readonly record?: ObjectRecord | undefined;
}

/** An object that a client creates: full mode (type and 07777), owner, and what its type needs. */
export interface GuestForm {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** new_encode_dev; devices only. */
  readonly rdev: number;
  /** Symlinks only. */
  readonly target: Bytes;
}

/** What is created on the host for a `GuestForm`. */
export interface HostForm {
  /** S_IFMT of the host's object. */
  readonly type: number;
  /** Permission bits at creation: as few as possible. */
  readonly mode: number;
  /** The content of a regular file that represents a symlink. */
  readonly content: Bytes;
  /**
   * Whether the object is created under a hidden name or none, gets its attributes, and is then linked or renamed to its name, so
   * that nobody sees it incomplete. Not needed where one system call creates it completely.
   */
  readonly staged: boolean;
}

/**
 * Policy for credentials, owners, modes, types and xattrs of an export's objects. It opens no path, rolls nothing back (its
 * caller does), and knows no fids. One instance serves one export.
 */
export interface SecurityModel {
  readonly name: string;
  /** Names with this prefix are the model's temporary files: hidden in listings, refused as arguments. Empty: none. */
  readonly reservedPrefix: Bytes;
  /** The xattr with the guest's type of a regular file of the host, for listings. Empty: none. */
  readonly typeXattr: Bytes;
  /** For models that store attributes in files. Their names are hidden and refused too, in any ASCII case. */
  readonly recordFiles?: RecordFileNames | undefined;

  /** Regular files of the host without that xattr may be something else: their type in listings is unknown. */
  readonly typesMissing?: boolean;

  /** The credentials of a client's user. */
  credsOfUser(uid: number, submitter: Submitter): MaybePromise<Credentials>;
  /** Credentials of the host call. */
  credsFor(creds: Credentials): Credentials;
  /** Credentials of the host call that creates an object of group `gid` in `dir`. EPERM if the caller may not have that group. */
  credsForCreate(creds: Credentials, gid: number, dir: Target): MaybePromise<Credentials>;
  /**
   * Credentials of the host call that sets an ACL, which clears S_ISGID unless the caller is in the object's group
   * (posix_acl_update_mode). Absent: those of `credsFor`.
   */
  credsForAcl?(target: Target, creds: Credentials): MaybePromise<Credentials>;

  hostForm(want: GuestForm): HostForm;
  /** Sets owner, mode and type of a new object. On an error the caller removes the object. */
  setInitialAttrs(target: Target, creds: Credentials, want: GuestForm): MaybePromise<void>;
  /** The owner that a client sees of every object, whatever its attributes. */
  shownOwner?(creds: Credentials): Owner;
  /** Whether `overlayAttrs` changes anything. */
  readonly overlaysAttrs: boolean;
  /** Replaces the host's attributes in `attr` by those that the client sees. */
  overlayAttrs(target: Target, attr: Attr): MaybePromise<void>;
  /** Changes owner and mode. Absent ones stay, except for the set-id bits, which a change of owner clears. */
  change(
    target: Target,
    creds: Credentials,
    change: { readonly uid?: number; readonly gid?: number; readonly mode?: number },
  ): MaybePromise<void>;
  readlink(target: Target, creds: Credentials): MaybePromise<Bytes>;
  /**
   * Called before data changes: clears set-id bits and file capabilities as the kernel does (file_remove_privs). If it returns a
   * promise, it is called twice for a write.
   */
  beforeWrite(target: Target, creds: Credentials): MaybePromise<void>;

  /** The host's name of a client's xattr. Throws the errno the client gets: EOPNOTSUPP, EPERM, ENODATA. */
  xattrToHost(name: Bytes, creds: Credentials, use: 'get' | 'set', type: number): Bytes;
  /** The client's name of a host's xattr; undefined hides it. */
  xattrToClient(name: Bytes, creds: Credentials): Bytes | undefined;
  /** A host call refused to set or remove xattr `name` with EPERM. */
  xattrRefused?(name: Bytes, creds: Credentials): void;
  /** Convert the value of xattr `name` between client and host, where it contains ids. */
  valueToHost?(name: Bytes, value: Uint8Array): Uint8Array;
  valueToClient?(name: Bytes, value: Uint8Array): Uint8Array;
}

/** Whether a name is the model's own. Comparing the first byte decides most names at a tenth of the cost. */
export function isReserved(
  { reservedPrefix: prefix, recordFiles }: SecurityModel,
  name: Name | Bytes,
): boolean {
  if (prefix === '' || name.charCodeAt(0) !== prefix.charCodeAt(0)) return false;
  if (name.startsWith(prefix)) return true;
  if (!recordFiles) return false;
  const lower = name.toLowerCase();
  return lower === recordFiles.directory || lower === recordFiles.root;
}
