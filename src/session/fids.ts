import type { Node, OpenDir, OpenFile } from '#backend/tree.ts';
import { EBADF, EMFILE } from '#base/errno.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Owned } from '#base/owned.ts';
import { NOFID } from '#protocol/constants.ts';
import type { SessionQuota } from '#quota/session-quota.ts';
import type { Attachment } from './attachment.ts';

/** State of a fid. An open fid, or one being opened, keeps its node and can still be walked from. */
export type Use = NodeUse | Claim | { readonly kind: 'dropped' } | FileUse | DirUse | XattrRead | XattrWrite;

interface NodeUse {
  readonly kind: 'node';
  /** An lopen for reading and writing failed on this fid; see handlers/open.ts. */
  readonly refused?: true;
}

/** A running request changes the fid's state; on failure the fid returns to `before`. */
interface Claim {
  readonly kind: 'claimed';
  readonly number: number;
  readonly before: Use;
}

export interface FileUse {
  readonly kind: 'file';
  readonly file: OpenFile;
  /** A Tlock was received for this fid. */
  locked: boolean;
}

export interface DirUse {
  readonly kind: 'dir';
  readonly dir: OpenDir;
  /** Settles when the last Treaddir of the fid ends; the next one waits for it. */
  running: Promise<unknown> | undefined;
}

export interface XattrRead {
  readonly kind: 'xattr-read';
  readonly value: Uint8Array;
}

export interface XattrWrite {
  readonly kind: 'xattr-write';
  readonly name: Bytes;
  readonly flags: number;
  readonly value: Owned;
  written: number;
}

export const plain: Use = { kind: 'node' };
export const refused: Use = { kind: 'node', refused: true };
const dropped: Use = { kind: 'dropped' };

/**
 * A fid. Small, since a session may have millions: the state of an open fid is in `use`. Holds its node and the directory of
 * the last walk.
 */
export class Fid {
  readonly attachment: Attachment;
  node: Node;
  use: Use;
  /** Directory and name of the last walk, for Tremove and Trename; undefined for a root and after `..`. */
  dir: Node | undefined;
  name: Name | undefined;
  /** Number of detached requests that use it. A gone fid is dropped when this reaches 0. */
  busy = 0;
  /** The number no longer refers to this fid. */
  gone = false;

  /** Takes over the caller's references to `node` and `dir`. */
  constructor(attachment: Attachment, node: Node, use: Use, dir: Node | undefined, name: Name | undefined) {
    this.attachment = attachment;
    this.node = node;
    this.use = use;
    this.dir = dir;
    this.name = name;
  }

  /** Whether the fid stands for an object, open or not. v9fs walks from open fids too (Linux commit 478ba09edc1f). */
  get isObject(): boolean {
    const { kind } = this.use;
    return kind === 'node' || kind === 'file' || kind === 'dir' || kind === 'claimed';
  }

  moveTo(dir: Node, name: Name): void {
    const { tree } = this.attachment;
    tree.hold(dir);
    if (this.dir) tree.release(this.dir);
    this.dir = dir;
    this.name = name;
  }

  drop(): void {
    const { use } = this;
    if (use === dropped) return;
    this.use = dropped;
    const { tree } = this.attachment;
    // Node first: the close of the open file, as the last reference, then has nothing to keep for the node.
    tree.release(this.node);
    if (use.kind === 'file') tree.closeFile(use.file);
    else if (use.kind === 'dir') tree.closeDir(use.dir);
    if (this.dir) tree.release(this.dir);
  }
}

/** The number of a newfid whose request waits. Other requests get EBADF for it. */
export class Reservation {
  readonly number: number;
  /** The request was flushed or its session reset: the new fid is dropped. */
  gone = false;
  fid: Fid | undefined;

  constructor(number: number) {
    this.number = number;
  }
}

/** Batch sizes in which fids are taken from the quota: the largest that still fits. */
const batchSizes = [1024, 32, 1] as const;

export class Fids {
  readonly #byNumber = new Map<number, Fid | Reservation>();
  readonly #quota: SessionQuota;
  /** Fids taken from the quota, in batches; at least the size of the map. */
  #counted = 0;

  constructor(quota: SessionQuota) {
    this.#quota = quota;
  }

  get size(): number {
    return this.#byNumber.size;
  }

  find(number: number): Fid | undefined {
    const fid = this.#byNumber.get(number);
    return fid instanceof Fid ? fid : undefined;
  }

  /** Throws EBADF if there is none. */
  get(number: number): Fid {
    const fid = this.find(number);
    if (!fid) throw EBADF;
    return fid;
  }

  /** Throws EBADF if the number is in use or NOFID, EMFILE if the session has all its fids. */
  checkFree(number: number): void {
    if (this.isFree(number)) return;
    throw this.#byNumber.has(number) || number === NOFID ? EBADF : EMFILE;
  }

  isFree(number: number): boolean {
    if (this.#byNumber.has(number) || number === NOFID) return false;
    return this.#byNumber.size < this.#counted || this.#countMore();
  }

  /** Takes a batch from the quota; false at the limit. */
  #countMore(): boolean {
    const more = batchSizes.find(count => this.#quota.mayAdd('fids', count));
    if (more === undefined) return false;
    this.#quota.add('fids', more);
    this.#counted += more;
    return true;
  }

  /** Returns spare fids to the quota, except one batch, when two batches or more are unused. */
  #countLess(): void {
    const spare = this.#counted - this.#byNumber.size - batchSizes[0];
    if (spare < batchSizes[0]) return;
    this.#quota.add('fids', -spare);
    this.#counted -= spare;
  }

  /** Adds a fid. The caller has checked `isFree` in the same event-loop callback. */
  put(number: number, fid: Fid): void {
    this.#byNumber.set(number, fid);
  }

  /** Reserves a free number until `fill` or `unreserve`. Throws as `checkFree`. */
  reserve(number: number): Reservation {
    this.checkFree(number);
    const reservation = new Reservation(number);
    this.#byNumber.set(number, reservation);
    return reservation;
  }

  /** Replaces the reservation by the fid; drops the fid if the request was flushed meanwhile. */
  fill(reservation: Reservation, fid: Fid): void {
    if (reservation.gone) {
      this.#drop(fid);
      return;
    }
    reservation.fid = fid;
    this.#byNumber.set(reservation.number, fid);
  }

  /** Frees the number if it still belongs to the request; discards its fid. */
  unreserve(reservation: Reservation): void {
    const { number, fid } = reservation;
    reservation.gone = true;
    if (this.#byNumber.get(number) !== (fid ?? reservation)) return;
    this.#byNumber.delete(number);
    if (!fid) return;
    fid.gone = true;
    this.discard(fid);
  }

  /**
   * Undoes a claim after Tflush: the number gets a new fid in the state before the claim. The running request keeps the old one,
   * which is dropped when the request ends.
   */
  restore(fid: Fid): void {
    const { attachment, node, use, dir, name } = fid;
    if (use.kind !== 'claimed' || this.#byNumber.get(use.number) !== fid) return;
    attachment.tree.hold(node);
    if (dir) attachment.tree.hold(dir);
    this.#byNumber.set(use.number, new Fid(attachment, node, use.before, dir, name));
    fid.gone = true;
  }

  /** Frees the number of a fid; `discard` releases the fid. */
  take(number: number, fid: Fid): void {
    this.#byNumber.delete(number);
    this.#countLess();
    fid.gone = true;
  }

  /** Drops a taken fid, unless a detached request uses it, which then calls this when it ends. */
  discard(fid: Fid): void {
    if (fid.busy === 0) this.#drop(fid);
  }

  /** Frees all numbers, reserved ones too, and returns the fids. */
  takeAll(): Fid[] {
    const fids: Fid[] = [];
    for (const one of this.#byNumber.values()) {
      one.gone = true;
      if (one instanceof Fid) fids.push(one);
    }
    this.#byNumber.clear();
    this.#quota.add('fids', -this.#counted);
    this.#counted = 0;
    return fids;
  }

  #drop(fid: Fid): void {
    const { use } = fid;
    if (use.kind === 'file' || use.kind === 'dir') this.#quota.add('opens', -1);
    else if (use.kind === 'xattr-read' || use.kind === 'xattr-write')
      this.#quota.add('xattrBytes', -use.value.length);
    fid.drop();
  }
}
