import type { Node, Tree } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { EBADF } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import { allocOwned, type Owned, type OwnedSegments } from '#base/owned.ts';
import type { Qid } from '#protocol/kinds.ts';
import type { Op } from '#protocol/operations.ts';
import type { DetachedExchange, Exchange } from './exchange.ts';
import type { Fid, Reservation } from './fids.ts';
import type { SessionState } from './state.ts';

/** A Tflush of a request with an effect is answered no later than this after that request began, in ms. */
export const flushWaitMs = 250;

/**
 * Requests without an effect besides their reply. When one is flushed, its reply is discarded and not waited for. Every other
 * request may have changed something by then, so its reply is sent before Rflush (flush(5)), unless it hangs.
 */
const withoutEffect: ReadonlySet<Op> = new Set([
  'attach',
  'fsync',
  'getattr',
  'getlock',
  'read',
  'readdir',
  'readlink',
  'statfs',
  'walk',
  'xattrwalk',
]);

/**
 * One request, from its arrival until it is answered or dropped. A session uses one object for all requests that are answered before
 * `Session.receive` returns. A request that waits is detached: it keeps the object, and the session takes a new one.
 */
export class Request {
  readonly session: SessionState;
  op: Op = 'version';
  tag = 0;
  exchange!: Exchange;
  /** The number that the request reserves for a new fid. */
  reservation: Reservation | undefined;
  /** Bytes of memory that `allocData` gave it. */
  dataBytes = 0;
  /** Cancels what has not happened yet; the handler then fails with ECANCELED. Set for a lock that may block. */
  cancel: (() => void) | undefined;
  /** Takes back its first call on the pool; false when a thread has begun it. */
  withdraw: (() => boolean) | undefined;
  /** Nobody wants the reply any more. */
  unwanted = false;
  /** Its own record of attributes, for one call at a time. */
  readonly attr = new Attr();
  readonly #fids: Fid[] = [];
  #fidCount = 0;
  #detached: DetachedExchange | undefined;
  #answered = false;
  #began = 0;
  #flushes: (() => void)[] | undefined;
  #flushTimer: NodeJS.Timeout | undefined;

  constructor(session: SessionState) {
    this.session = session;
  }

  /** Makes this the request that has just arrived. */
  begin(op: Op, tag: number, exchange: Exchange): void {
    this.op = op;
    this.tag = tag;
    this.exchange = exchange;
    this.reservation = undefined;
    this.dataBytes = 0;
    this.cancel = undefined;
    this.#fidCount = 0;
    this.#detached = undefined;
  }

  /** Looks a fid up; the request holds it until it is answered. Undefined when there is none. */
  findFid(number: number): Fid | undefined {
    const fid = this.session.fids.find(number);
    // Elements behind the count are overwritten: setting an array's length costs more than answering a request.
    if (fid) this.#fids[this.#fidCount++] = fid;
    return fid;
  }

  /** As `findFid`. EBADF when there is none. */
  fid(number: number): Fid {
    const fid = this.findFid(number);
    if (!fid) throw EBADF;
    return fid;
  }

  /** A fid on an object of a tree, open or not. EBADF when it is for an xattr. */
  object(number: number): Fid {
    const fid = this.fid(number);
    if (!fid.isObject) throw EBADF;
    return fid;
  }

  /** A fid that can be opened. EBADF when it is open or for an xattr. */
  unopened(number: number): Fid {
    const fid = this.fid(number);
    if (fid.use.kind !== 'node') throw EBADF;
    return fid;
  }

  /** Frees a fid's number; what the fid holds is released by `Fids.discard`. EBADF when there is none. */
  take(number: number): Fid {
    const fid = this.fid(number);
    this.session.fids.take(number, fid);
    return fid;
  }

  /** Reserves a free number for the fid that the request makes. EBADF or EMFILE when it cannot be had. */
  reserve(number: number): Reservation {
    this.reservation = this.session.fids.reserve(number);
    return this.reservation;
  }

  /** The first fid that the request looked up: the one whose file system it asks. */
  get firstFid(): Fid | undefined {
    return this.#fidCount > 0 ? this.#fids[0] : undefined;
  }

  /** Memory for the request's data. */
  allocData(bytes: number): Owned<Buffer> {
    this.dataBytes += bytes;
    return allocOwned(bytes);
  }

  /** The payload of Twrite in memory that is valid until the request is answered. */
  detachPayload(): OwnedSegments {
    return this.#detachExchange().payload;
  }

  #detachExchange(): DetachedExchange {
    if (!this.#detached) {
      this.#detached = this.exchange.detach();
      this.exchange = this.#detached;
    }
    return this.#detached;
  }

  /** Attributes of an object as the client sees them, in the request's record. */
  stat(tree: Tree, node: Node): MaybePromise<Attr> {
    const { attr, session } = this;
    const described = tree.stat(node, attr);
    if (described instanceof Promise) return described.then(() => session.finishAttr(node, attr));
    return session.finishAttr(node, attr);
  }

  qid(tree: Tree, node: Node): MaybePromise<Qid> {
    return andThen(this.stat(tree, node), attr => this.session.qidOf(node, attr));
  }

  /** Whether it is a lock that blocks: it uses no thread and may wait for ever. */
  get blocks(): boolean {
    return this.cancel !== undefined;
  }

  /** The request waits: it keeps its exchange and fids until `release`. */
  detach(withdraw: (() => boolean) | undefined): void {
    this.#detachExchange();
    this.#fids.length = this.#fidCount;
    for (const fid of this.#fids) fid.busy++;
    this.withdraw = withdraw;
    this.#began = performance.now();
  }

  /** The request does not wait any more. */
  release(): void {
    const { fids } = this.session;
    for (const fid of this.#fids) if (--fid.busy === 0 && fid.gone) fids.discard(fid);
  }

  /** Whether its reply can be discarded. A walk that moves its own fid has an effect: it has claimed the fid. */
  get isWithoutEffect(): boolean {
    return withoutEffect.has(this.op) && !this.#fids.some(fid => fid.use.kind === 'claimed');
  }

  get isFlushed(): boolean {
    return this.#flushes !== undefined;
  }

  /**
   * Resolves when the request is over; several are resolved in their order. `giveUp` is called when it is not over
   * `flushWaitMs` after it began.
   */
  over(giveUp?: () => void): Promise<void> {
    const left = this.#began + flushWaitMs - performance.now();
    if (giveUp) this.#flushTimer ??= setTimeout(giveUp, Math.max(0, left));
    return new Promise(resolve => {
      this.#flushes ??= [];
      this.#flushes.push(resolve);
    });
  }

  /** The exchange is about to be committed. */
  answered(): void {
    this.#answered = true;
  }

  /** Ends the exchange without a reply. */
  drop(): void {
    if (this.#answered) return;
    this.#answered = true;
    this.exchange.drop();
  }

  /** Undoes what it has claimed, as though it had never been sent: its number and newfid are free, its fids what they were. */
  abandon(): void {
    const { fids } = this.session;
    if (this.reservation) fids.unreserve(this.reservation);
    for (const fid of this.#fids) fids.restore(fid);
  }

  /** Lets the Tflushes that wait for it be answered. */
  end(): void {
    clearTimeout(this.#flushTimer);
    const flushes = this.#flushes ?? [];
    this.#flushes = undefined;
    for (const resolve of flushes) resolve();
  }
}
