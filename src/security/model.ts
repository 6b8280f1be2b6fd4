import type { Answer } from '../answer.ts';
import type { Attr } from '../attr.ts';
import type { Caller, Syscalls } from '../host/syscalls.ts';
import type { Bytes, Name } from '../name.ts';

/** A held object as a model sees it: a descriptor (O_PATH or open) and the calls to use on it. */
export interface Target {
  readonly sys: Syscalls;
  readonly fd: number;
}

/** An object that a client wants to exist: its full mode (type and 07777), owner, and what its type needs. */
export interface Want {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** new_encode_dev; devices only. */
  readonly rdev: number;
  /** Symlinks only. */
  readonly target: Bytes;
}

/** What is really made on the host for a `Want`. */
export interface Shape {
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
  readonly aside: boolean;
}

/**
 * What a guest may be and own on the host. A policy that is asked at named points: it opens no path, undoes nothing (the
 * maker does), and never sees a fid. One instance serves one export.
 */
export interface SecurityModel {
  readonly name: string;
  /** Names with this prefix are the model's own bookkeeping: hidden in listings, refused as arguments. */
  readonly ownPrefix: Bytes;
  /** The xattr that tells the type of what the host calls a regular file, for listings; empty when there is none. */
  readonly typeXattr: Bytes;

  /** The credentials of a client's user. */
  user(uid: number): Answer<Caller>;
  /** As whom the host call runs. */
  runsAs(caller: Caller): Caller;
  /** As whom an object is made that shall belong to `gid`. */
  makesAs(caller: Caller, gid: number): Caller;

  shape(want: Want): Shape;
  /** Gives a new object its owner, mode and type, least rights first. The maker removes the object when this fails. */
  stamp(target: Target, caller: Caller, want: Want): Answer<void>;
  /** Whether `view` shows anything but the host's attributes. */
  readonly overlays: boolean;
  /** Overlays what the client sees on the host's attributes. */
  view(target: Target, attr: Attr): Answer<void>;
  /** Changes owner and mode; what is absent stays, save for what a change of owner takes away. */
  change(
    target: Target,
    caller: Caller,
    change: { readonly uid?: number; readonly gid?: number; readonly mode?: number },
  ): Answer<void>;
  readlink(target: Target, caller: Caller): Answer<Bytes>;
  /**
   * Data is about to change: set-id bits and file capabilities fall, as the kernel lets them (file_remove_privs). A model that
   * waits here is asked twice for a write.
   */
  writing(target: Target, caller: Caller): Answer<void>;

  /** The host's name of a client's xattr. Throws the errno the client gets: EOPNOTSUPP, EPERM, ENODATA. */
  xattrToHost(name: Bytes, caller: Caller, use: 'get' | 'set', type: number): Bytes;
  /** The client's name of a host's xattr; undefined hides it. */
  xattrToClient(name: Bytes, caller: Caller): Bytes | undefined;
  /** Where values say more than bytes: what the host keeps for what a client gives to `name`, and the other way round. */
  valueToHost?(name: Bytes, value: Uint8Array): Uint8Array;
  valueToClient?(name: Bytes, value: Uint8Array): Uint8Array;
}

/** Whether a name is the model's own bookkeeping. The first byte tells most names apart, at a tenth of the cost. */
export function isOwn({ ownPrefix }: SecurityModel, name: Name | Bytes): boolean {
  return ownPrefix !== '' && name.charCodeAt(0) === ownPrefix.charCodeAt(0) && name.startsWith(ownPrefix);
}
