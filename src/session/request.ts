import type { CallContext, Node, SessionContext } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { EBADF } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import { allocOwned, type Owned, type OwnedSegments } from '#base/owned.ts';
import type { Credentials, Submitter } from '#host/syscalls.ts';
import type { Qid } from '#protocol/kinds.ts';
import type { Op } from '#protocol/operations.ts';
import type { Attachment } from './attachment.ts';
import type { DetachedExchange, Exchange } from './exchange.ts';
import type { Fid, Reservation } from './fids.ts';
import type { SessionState } from './state.ts';

/** Rflush for a request with an effect is sent at most this many ms after the request was detached. */
export const flushWaitMs = 250;

/**
 * Messages without an effect besides their reply. When one is flushed, Rflush is sent at once and the reply discarded. Any
 * other may have changed something, so its reply precedes Rflush (flush(5)) if it ends within `flushWaitMs`.
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

/** What a tree gets of a request. Reused with it. */
class RequestContext implements CallContext {
  readonly session: SessionContext;
  readonly queue: number;
  creds!: Credentials;
  readonly #request: Request;

  constructor(request: Request, session: SessionContext) {
    this.session = session;
    this.queue = session.queue;
    this.#request = request;
  }

  submitted(withdraw: () => boolean): void {
    this.#request.submitted(withdraw);
  }

  defer(act: () => void): boolean {
    return this.#request.exchange.defer(act);
  }
}

/**
 * One request, from arrival until its reply is committed or dropped. A session reuses the object unless the request waits: then
 * it is detached and keeps the object, and the session allocates another.
 */
export class Request {
  readonly session: SessionState;
  op: Op = 'version';
  tag = 0;
  exchange!: Exchange;
  reservation: Reservation | undefined;
  dataBytes = 0;
  /** Only for a blocking Tlock: cancels it, so that the handler fails with ECANCELED unless the lock was granted. */
  cancel: (() => void) | undefined;
  /** Removes the request's first call from the pool's queue; false if a thread has begun it. */
  withdraw: (() => boolean) | undefined;
  /** The request was flushed or its session reset: the reply is dropped. */
  unwanted = false;
  readonly #context: RequestContext;
  #waits = false;
  /** Scratch attributes, for one call at a time. */
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
    this.#context = new RequestContext(this, session.context);
  }

  begin(op: Op, tag: number, exchange: Exchange): void {
    this.op = op;
    this.tag = tag;
    this.exchange = exchange;
    this.reservation = undefined;
    this.dataBytes = 0;
    this.cancel = undefined;
    this.withdraw = undefined;
    this.#fidCount = 0;
    this.#detached = undefined;
  }

  /** Looks a fid up; undefined if there is none. A detached request keeps it valid until `release`. */
  findFid(number: number): Fid | undefined {
    const fid = this.session.fids.find(number);
    // Stale elements stay beyond the count: setting an array's length costs more than a whole request.
    if (fid) this.#fids[this.#fidCount++] = fid;
    return fid;
  }

  /** As `findFid`; throws EBADF if there is none. */
  fid(number: number): Fid {
    const fid = this.findFid(number);
    if (!fid) throw EBADF;
    return fid;
  }

  /** As `fid`, but EBADF for an xattr fid. */
  object(number: number): Fid {
    const fid = this.fid(number);
    if (!fid.isObject) throw EBADF;
    return fid;
  }

  /** As `fid`, but EBADF for an xattr fid and one that is open or claimed. */
  unopened(number: number): Fid {
    const fid = this.fid(number);
    if (fid.use.kind !== 'node') throw EBADF;
    return fid;
  }

  /** Frees a fid's number and returns the fid, for `Fids.discard`. Throws EBADF if there is none. */
  take(number: number): Fid {
    const fid = this.fid(number);
    this.session.fids.take(number, fid);
    return fid;
  }

  /** Reserves the number of the request's new fid. Throws EBADF or EMFILE as `Fids.checkFree`. */
  reserve(number: number): Reservation {
    this.reservation = this.session.fids.reserve(number);
    return this.reservation;
  }

  /** The first fid looked up; host errors are logged for its export. */
  get firstFid(): Fid | undefined {
    return this.#fidCount > 0 ? this.#fids[0] : undefined;
  }

  allocData(bytes: number): Owned<Buffer> {
    this.dataBytes += bytes;
    return allocOwned(bytes);
  }

  /** Detaches the exchange; returns the payload, valid until the reply is committed. */
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

  /** The context of the request's calls of the attachment's tree. */
  as({ creds }: Attachment): CallContext {
    this.#context.creds = creds;
    return this.#context;
  }

  /** For calls without an attachment. */
  get submitter(): Submitter {
    return this.#context;
  }

  /** Only the first call can be withdrawn, if it is made within `Session.receive`: the request has had no effect before. */
  submitted(withdraw: () => boolean): void {
    if (!this.#waits) this.withdraw ??= withdraw;
  }

  /** Attributes of an object as the client sees them, in `this.attr`. */
  stat(attachment: Attachment, node: Node): MaybePromise<Attr> {
    const { attr, session } = this;
    const described = attachment.tree.stat(this.as(attachment), node, attr);
    if (described instanceof Promise) return described.then(() => session.finishAttr(node, attr));
    return session.finishAttr(node, attr);
  }

  qid(attachment: Attachment, node: Node): MaybePromise<Qid> {
    return andThen(this.stat(attachment, node), attr => this.session.qidOf(node, attr));
  }

  /** A blocking Tlock uses no thread and may wait without limit. */
  get blocks(): boolean {
    return this.cancel !== undefined;
  }

  /** Makes the request outlive `Session.receive`; keeps its fids until `release`. */
  detach(): void {
    this.#waits = true;
    this.#detachExchange();
    this.#fids.length = this.#fidCount;
    for (const fid of this.#fids) fid.busy++;
    this.#began = performance.now();
  }

  /** Ends the use of fids after `detach`; discards those that are gone and unused. */
  release(): void {
    const { fids } = this.session;
    for (const fid of this.#fids) if (--fid.busy === 0 && fid.gone) fids.discard(fid);
  }

  /** Whether the reply can be discarded on flush. A walk in place has an effect: it has claimed its fid. */
  get isWithoutEffect(): boolean {
    return withoutEffect.has(this.op) && !this.#fids.some(fid => fid.use.kind === 'claimed');
  }

  get isFlushed(): boolean {
    return this.#flushes !== undefined;
  }

  /**
   * Resolves in call order when the request ends. Calls `onTimeout` if that takes longer than `flushWaitMs` from `detach`.
   */
  whenEnded(onTimeout?: () => void): Promise<void> {
    const left = this.#began + flushWaitMs - performance.now();
    if (onTimeout) this.#flushTimer ??= setTimeout(onTimeout, Math.max(0, left));
    return new Promise(resolve => {
      this.#flushes ??= [];
      this.#flushes.push(resolve);
    });
  }

  /** Called before the exchange is committed: `drop` then does nothing. */
  answered(): void {
    this.#answered = true;
  }

  /** Drops the exchange, unless it was committed or dropped before. */
  drop(): void {
    if (this.#answered) return;
    this.#answered = true;
    this.exchange.drop();
  }

  /** Undoes the request's claims: frees its newfid and restores the state of its fids. */
  abandon(): void {
    const { fids } = this.session;
    if (this.reservation) fids.unreserve(this.reservation);
    for (const fid of this.#fids) fids.restore(fid);
  }

  end(): void {
    clearTimeout(this.#flushTimer);
    const flushes = this.#flushes ?? [];
    this.#flushes = undefined;
    for (const resolve of flushes) resolve();
  }
}
