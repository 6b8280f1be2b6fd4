import type { Tree } from '#backend/tree.ts';
import type { HostErrorLog } from '#base/host-error-log.ts';
import { noId } from '#base/ids.ts';
import type { Bytes } from '#base/name.ts';
import type { Credentials } from '#host/syscalls.ts';

/** An export: a tree that clients may attach to. */
export interface ExportEntry {
  readonly name: string;
  readonly tree: Tree;
  readonly readonly: boolean;
  readonly hostErrors?: HostErrorLog;
}

export interface ExportLookup {
  /** The export named by an aname; the first one for the empty aname and `/`. Undefined means ENOENT; throws other errors. */
  find(aname: Bytes): ExportEntry | undefined;
}

/** The result of a Tattach: shared by its root fid and every fid walked from it. */
export interface Attachment {
  readonly tree: Tree;
  readonly readonly: boolean;
  readonly creds: Credentials;
  readonly hostErrors: HostErrorLog | undefined;
}

/** The group of a new object: the client's gid, or the attached user's group if the client sent none (0xffffffff). */
export function gidOf({ creds }: Attachment, gid: number): number {
  return gid === noId ? creds.gid : gid;
}
