import type { Actor, Tree } from '#backend/tree.ts';
import type { HostErrorLog } from '#base/host-error-log.ts';
import type { Bytes } from '#base/name.ts';

/** A tree that clients may attach to. */
export interface ExportEntry {
  /** For logs. */
  readonly name: string;
  readonly tree: Tree;
  readonly readonly: boolean;
  /** Who says what is wrong with the host. */
  readonly hostErrors?: HostErrorLog;
}

export interface ExportLookup {
  /** The export that an aname asks for; the first for the empty aname and `/`. Throws an Errno where that says more than "none". */
  find(aname: Bytes): ExportEntry | undefined;
}

/** What an attach made: shared by its root fid and every fid walked from there. */
export interface Attachment {
  readonly tree: Tree;
  readonly readonly: boolean;
  readonly actor: Actor;
  readonly hostErrors: HostErrorLog | undefined;
}

/** The group that a new object shall have; a client that names none means its user's. */
export function gidOf({ actor }: Attachment, gid: number): number {
  return gid === noGid ? actor.creds.gid : gid;
}

const noGid = 0xffff_ffff;
