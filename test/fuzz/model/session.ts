import type { Op, TMessage } from '../../../src/protocol/operations.ts';
import { type Owner, Row } from './locks.ts';
import { type Files, type ModelNode, refuse, type User } from './nodes.ts';

/** State of an open fid. */
export type Open =
  | { readonly kind: 'file'; readonly reads: boolean; readonly writes: boolean; readonly appends: boolean }
  | { readonly kind: 'dir'; readonly listed: Listed }
  | { readonly kind: 'xattr-read'; readonly value: Buffer | readonly string[] }
  | {
      readonly kind: 'xattr-write';
      readonly name: string;
      readonly flags: number;
      readonly size: number;
      written: Buffer;
    };

/** Progress of a listing without changes meanwhile. */
export interface Listed {
  generation: number;
  names: Set<string>;
  cookie: { readonly low: number; readonly high: number } | undefined;
}

export interface Fid {
  readonly attached: Attached;
  node: ModelNode;
  open: Open | undefined;
  /** The entry by which it was reached; undefined for a root and after `..`. */
  dir: ModelNode | undefined;
  name: string | undefined;
  /** `Files.moves` when it was set to its node. */
  since: number;
}

export interface Attached {
  readonly readonly: boolean;
  readonly user: User;
}

/** State shared by all sessions. */
export interface World {
  readonly files: Files;
  readonly locks: Map<ModelNode, Row>;
  /** The exports by aname: whether they are read-only. */
  readonly exports: ReadonlyMap<string, boolean>;
}

export function rowOf(world: World, node: ModelNode): Row {
  const known = world.locks.get(node);
  if (known) return known;
  const row = new Row();
  world.locks.set(node, row);
  return row;
}

/** Checks a reply; returns a description of the error. */
export type Right<O extends Op> = (reply: never, request: TMessage<O>) => string | undefined;

export const NOFID = 0xffff_ffff;
const nobody = 65534;

/** Model of one session. */
export class ModelSession {
  readonly world: World;
  readonly fids = new Map<number, Fid>();
  /** 0 before Tversion. */
  msize = 0;

  constructor(world: World) {
    this.world = world;
  }

  user(uid: number): User {
    const id = uid === 0xffff_ffff ? nobody : uid;
    return { uid: id, ...(this.world.files.modelOptions.groupsOf?.(id) ?? { gid: id, groups: [] }) };
  }

  /** Drops all fids and locks. */
  reset(): void {
    this.msize = 0;
    this.fids.clear();
    for (const row of this.world.locks.values()) row.drop(held => held.owner.session === this);
  }

  get(number: number): Fid {
    return this.fids.get(number) ?? refuse('EBADF');
  }

  /** A fid of an object, open or not; EBADF otherwise. */
  object(number: number): Fid {
    const fid = this.get(number);
    if (fid.open?.kind === 'xattr-read' || fid.open?.kind === 'xattr-write') refuse('EBADF');
    return fid;
  }

  unopened(number: number): Fid {
    const fid = this.get(number);
    return fid.open ? refuse('EBADF') : fid;
  }

  checkFree(number: number): void {
    if (this.fids.has(number) || number === NOFID) refuse('EBADF');
  }

  /** A fid for a change; EROFS on a read-only export. */
  changing(number: number): void {
    if (this.get(number).attached.readonly) refuse('EROFS');
  }

  take(number: number): Fid {
    const fid = this.get(number);
    this.fids.delete(number);
    if (fid.open?.kind === 'file') {
      const { open } = fid;
      this.world.locks.get(fid.node)?.drop(held => held.through === open);
    }
    return fid;
  }

  owner(clientId: string, procId: number, { readonly }: Attached): Owner {
    const exported = this.#apart && readonly;
    return { session: this, clientId: clientId.slice(0, 255), procId, exported };
  }

  /** Whether the server may have lost the object: another server has removed or changed its name. */
  mayBeLost({ attached, node, dir, open, since }: Fid): boolean {
    const { modelOptions, moves } = this.world.files;
    if (!modelOptions.removedElsewhere || !(attached.readonly || modelOptions.sessions === 'apart'))
      return false;
    if (open?.kind === 'file' || open?.kind === 'dir') return false;
    const renamed = modelOptions.renamedElsewhere !== undefined && moves > since;
    return node.nlink === 0 || dir?.nlink === 0 || renamed;
  }

  get #apart(): boolean {
    return this.world.files.modelOptions.exports === 'apart';
  }

  refuseToCross(a: Fid, b: Fid): void {
    if (this.#apart && a.attached.readonly !== b.attached.readonly) refuse('EXDEV');
  }

  /** Maximum bytes of data in a reply. */
  get dataBytesMax(): number {
    return this.msize - 1 - 11;
  }

  get iounit(): number {
    return Math.floor((this.msize - 24) / 4096) * 4096;
  }
}
