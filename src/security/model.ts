import type { Attr } from '#base/attr.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Credentials, Syscalls } from '#host/syscalls.ts';

/** A held object as a model sees it: a descriptor (O_PATH or open) and the calls to use on it. */
export interface Target {
  readonly sys: Syscalls;
  readonly fd: number;
}

/** An object that a client wants to exist: its full mode (type and 07777), owner, and what its type needs. */
export interface GuestForm {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** new_encode_dev; devices only. */
  readonly rdev: number;
  /** Symlinks only. */
  readonly target: Bytes;
}

/** What is really made on the host for a `Want`. */
export interface HostForm {
  /** S_IFMT of the host's object. */
  readonly type: number;
  /** Permission bits it is made with: the least that work. */
  readonly mode: number;
  /** The content of a regular file that stands for a symlink. */
  readonly content: Bytes;
  /**
   * Whether the object is made out of sight, stamped, and only then given its name, so that nobody sees it half made.
   * Not needed where one system call makes it whole.
   */
  readonly staged: boolean;
}

/**
 * What a guest may be and own on the host. A policy that is asked at named points: it opens no path, undoes nothing (the
 * maker does), and never sees a fid. One instance serves one export.
 */
export interface SecurityModel {
  readonly name: string;
  /** Names with this prefix are the model's own bookkeeping: hidden in listings, refused as arguments. */
  readonly reservedPrefix: Bytes;
  /** The xattr that tells the type of what the host calls a regular file, for listings; empty when there is none. */
  readonly typeXattr: Bytes;

  /** The credentials of a client's user. */
  credsOfUser(uid: number): MaybePromise<Credentials>;
  /** As whom the host call runs. */
  credsFor(creds: Credentials): Credentials;
  /** As whom an object is made that shall belong to `gid`. */
  credsForCreate(creds: Credentials, gid: number): Credentials;

  hostForm(want: GuestForm): HostForm;
  /** Gives a new object its owner, mode and type, least rights first. The maker removes the object when this fails. */
  setInitialAttrs(target: Target, creds: Credentials, want: GuestForm): MaybePromise<void>;
  /** Whether `view` shows anything but the host's attributes. */
  readonly overlaysAttrs: boolean;
  /** Overlays what the client sees on the host's attributes. */
  overlayAttrs(target: Target, attr: Attr): MaybePromise<void>;
  /** Changes owner and mode; what is absent stays, save for what a change of owner takes away. */
  change(
    target: Target,
    creds: Credentials,
    change: { readonly uid?: number; readonly gid?: number; readonly mode?: number },
  ): MaybePromise<void>;
  readlink(target: Target, creds: Credentials): MaybePromise<Bytes>;
  /**
   * Data is about to change: set-id bits and file capabilities fall, as the kernel lets them (file_remove_privs). A model that
   * waits here is asked twice for a write.
   */
  beforeWrite(target: Target, creds: Credentials): MaybePromise<void>;

  /** The host's name of a client's xattr. Throws the errno the client gets: EOPNOTSUPP, EPERM, ENODATA. */
  xattrToHost(name: Bytes, creds: Credentials, use: 'get' | 'set', type: number): Bytes;
  /** The client's name of a host's xattr; undefined hides it. */
  xattrToClient(name: Bytes, creds: Credentials): Bytes | undefined;
  /** Where values say more than bytes: what the host keeps for what a client gives to `name`, and the other way round. */
  valueToHost?(name: Bytes, value: Uint8Array): Uint8Array;
  valueToClient?(name: Bytes, value: Uint8Array): Uint8Array;
}

/** Whether a name is the model's own bookkeeping. The first byte tells most names apart, at a tenth of the cost. */
export function isReserved({ reservedPrefix: ownPrefix }: SecurityModel, name: Name | Bytes): boolean {
  return ownPrefix !== '' && name.charCodeAt(0) === ownPrefix.charCodeAt(0) && name.startsWith(ownPrefix);
}
