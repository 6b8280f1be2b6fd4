import type { Node, OpenDir, OpenFile } from '#backend/tree.ts';
import { EBADF, EMFILE } from '#base/errno.ts';
import type { Bytes, Name } from '#base/name.ts';
import type { Owned } from '#base/owned.ts';
import { NOFID } from '#protocol/constants.ts';
import type { SessionQuota } from '#quota/session-quota.ts';
import type { Attachment } from './attachment.ts';

/** What a fid is good for now. A fid that is open, or being opened, still has its node and serves as a source. */
export type Use = NodeUse | Claim | { readonly kind: 'dropped' } | FileUse | DirUse | XattrRead | XattrWrite;

export interface NodeUse {
  readonly kind: 'node';
  /** The client has tried in vain to open it for reading and writing. */
  readonly refused?: true;
}

/** A request is turning the fid of this number into something else; when it fails, the fid is what it was before. */
export interface Claim {
  readonly kind: 'claimed';
  readonly number: number;
  readonly before: Use;
}

export interface FileUse {
  readonly kind: 'file';
  readonly file: OpenFile;
  /** Whether a lock was ever asked for through this fid. */
  locked: boolean;
}

export interface DirUse {
  readonly kind: 'dir';
  readonly dir: OpenDir;
  /** The running Treaddir, which the next one waits for. */
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
 * What a client's number stands for. There may be a million of them, so it is small: what only an open fid needs is in its
 * `use`. It holds its node, and the directory it was reached from.
 */
export class Fid {
  readonly attachment: Attachment;
  node: Node;
  use: Use;
  /** The entry it was walked to, for Tremove and Trename; undefined for a root and for what `..` led to. */
  dir: Node | undefined;
  name: Name | undefined;
  /** Waiting requests that use it. What it holds is let go when the last is done. */
  busy = 0;
  /** Its number is not its own any more. */
  gone = false;

  /** Takes over the receiver's holds of `node` and `dir`. */
  constructor(attachment: Attachment, node: Node, use: Use, dir: Node | undefined, name: Name | undefined) {
    this.attachment = attachment;
    this.node = node;
    this.use = use;
    this.dir = dir;
    this.name = name;
  }

  /** A fid that is walked from may be open: v9fs uses any open fid of a file as a source (commit 478ba09edc1f). */
  get isObject(): boolean {
    const { kind } = this.use;
    return kind === 'node' || kind === 'file' || kind === 'dir' || kind === 'claimed';
  }

  /** Notes another entry as the one it was reached by. */
  moveTo(dir: Node, name: Name): void {
    const { tree } = this.attachment;
    tree.hold(dir);
    if (this.dir) tree.release(this.dir);
    this.dir = dir;
    this.name = name;
  }

  /** Lets go of everything. */
  drop(): void {
    const { use } = this;
    if (use === dropped) return;
    this.use = dropped;
    const { tree } = this.attachment;
    // The node first: an open file that is the last to hold it needs to keep nothing for it.
    tree.release(this.node);
    if (use.kind === 'file') tree.closeFile(use.file);
    else if (use.kind === 'dir') tree.closeDir(use.dir);
    if (this.dir) tree.release(this.dir);
  }
}

/** The number of a newfid whose request waits: nobody can use it, or take it. */
export class Reservation {
  readonly number: number;
  /** The number is free again: what the request brings is let go. */
  gone = false;
  /** What it was filled with, while the request is not answered yet. */
  fid: Fid | undefined;

  constructor(number: number) {
    this.number = number;
  }
}

/** How many fids are counted at a time, as long as there are so many left: fewer near the bound. */
const countedAtOnce = [1024, 32, 1] as const;

/** The fids of one session. */
export class Fids {
  readonly #byNumber = new Map<number, Fid | Reservation>();
  readonly #quota: SessionQuota;
  /** Fids that are counted, there or not: they are taken and given back by the thousand. */
  #counted = 0;

  constructor(quota: SessionQuota) {
    this.#quota = quota;
  }

  get size(): number {
    return this.#byNumber.size;
  }

  /** Undefined when there is none. */
  find(number: number): Fid | undefined {
    const fid = this.#byNumber.get(number);
    return fid instanceof Fid ? fid : undefined;
  }

  /** EBADF when there is none. */
  get(number: number): Fid {
    const fid = this.find(number);
    if (!fid) throw EBADF;
    return fid;
  }

  /** EBADF when the number cannot be given to a new fid. */
  checkFree(number: number): void {
    if (this.isFree(number)) return;
    throw this.#byNumber.has(number) || number === NOFID ? EBADF : EMFILE;
  }

  /** Whether the number can be given to a new fid. */
  isFree(number: number): boolean {
    if (this.#byNumber.has(number) || number === NOFID) return false;
    return this.#byNumber.size < this.#counted || this.#countMore();
  }

  /** False when the session has all the fids it may have. */
  #countMore(): boolean {
    const more = countedAtOnce.find(count => this.#quota.mayAdd('fids', count));
    if (more === undefined) return false;
    this.#quota.add('fids', more);
    this.#counted += more;
    return true;
  }

  /** Once there are many fewer than are counted. */
  #countLess(): void {
    const spare = this.#counted - this.#byNumber.size - countedAtOnce[0];
    if (spare < countedAtOnce[0]) return;
    this.#quota.add('fids', -spare);
    this.#counted -= spare;
  }

  /** Gives the number to a fid. It was checked in this turn. */
  put(number: number, fid: Fid): void {
    this.#byNumber.set(number, fid);
  }

  /** Takes a free number for a request that will wait; `fill` or `unreserve` says what becomes of it. */
  reserve(number: number): Reservation {
    this.checkFree(number);
    const reservation = new Reservation(number);
    this.#byNumber.set(number, reservation);
    return reservation;
  }

  /** Gives the number to what it was reserved for, or lets go of that when the request was flushed meanwhile. */
  fill(reservation: Reservation, fid: Fid): void {
    if (reservation.gone) {
      this.#drop(fid);
      return;
    }
    reservation.fid = fid;
    this.#byNumber.set(reservation.number, fid);
  }

  /** Frees the number, if it is the request's still; what it was filled with is let go. */
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
   * Gives a number back what it stood for before a request began to turn its fid. What that request makes of the fid, it
   * makes of one that nobody has any more.
   */
  restore(fid: Fid): void {
    const { attachment, node, use, dir, name } = fid;
    if (use.kind !== 'claimed' || this.#byNumber.get(use.number) !== fid) return;
    attachment.tree.hold(node);
    if (dir) attachment.tree.hold(dir);
    this.#byNumber.set(use.number, new Fid(attachment, node, use.before, dir, name));
    fid.gone = true;
  }

  /** Frees the number of a fid; what that holds is released by `discard`. */
  take(number: number, fid: Fid): void {
    this.#byNumber.delete(number);
    this.#countLess();
    fid.gone = true;
  }

  /** Lets go of a fid that was taken, as soon as no request uses it. */
  discard(fid: Fid): void {
    if (fid.busy === 0) this.#drop(fid);
  }

  /** Takes every fid. */
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
