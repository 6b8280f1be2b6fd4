import type { Bytes } from '../name.ts';
import type { Actor, Tree } from '../tree/tree.ts';
import type { HostTrouble } from './host-trouble.ts';

/** A tree that clients may attach to. */
export interface Export {
  /** For logs. */
  readonly name: string;
  readonly tree: Tree;
  readonly readonly: boolean;
  /** Who says what is wrong with the host. */
  readonly trouble?: HostTrouble;
}

export interface Exports {
  /** The export that an aname asks for; the first for the empty aname and `/`. Throws an Errno where that says more than "none". */
  find(aname: Bytes): Export | undefined;
}

/** What an attach made: shared by its root fid and every fid walked from there. */
export interface Attachment {
  readonly tree: Tree;
  readonly readonly: boolean;
  readonly actor: Actor;
  readonly trouble: HostTrouble | undefined;
}

/** The group that a new object shall have; a client that names none means its user's. */
export function gidOf({ actor }: Attachment, gid: number): number {
  return gid === noGid ? actor.caller.gid : gid;
}

const noGid = 0xffff_ffff;
