import { type Node, stampOf, type Tree } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { ECANCELED, EIO, EOPNOTSUPP, EPROTO, Errno } from '#base/errno.ts';
import type { Logger } from '#base/log.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import { allocOwned, type Owned } from '#base/owned.ts';
import { beginTurn, newQueue, turn } from '#base/turn.ts';
import {
  decodeRequest,
  encodeError,
  encodeReply,
  errnoOf,
  frameTag,
  frameType,
  requestOp,
} from '#protocol/codec.ts';
import { dataReplyHeadBytes, P9_STATS_BASIC } from '#protocol/constants.ts';
import type { Data, Qid } from '#protocol/kinds.ts';
import { type Op, operations, type RMessage } from '#protocol/operations.ts';
import { showAny, showFrame, showReply, showRequest } from '#protocol/trace.ts';
import { InFlight } from '#quota/in-flight.ts';
import {
  defaultLimits,
  ioHeaderBytes,
  type Limits,
  msizeBytesMax,
  unversionedFrameBytesMax,
} from '#quota/limits.ts';
import { ServerShare } from '#quota/server-share.ts';
import { SessionQuota } from '#quota/session-quota.ts';
import type { ExportEntry, ExportLookup } from './attachment.ts';
import type { DetachedExchange, Exchange, SessionPort, TransportPort } from './exchange.ts';
import { answered, answerFast } from './fast-path.ts';
import { Fids } from './fids.ts';
import { handlers } from './handlers/table.ts';
import { reportHostError } from './host-errors.ts';
import { LockClient } from './locks/lock-client.ts';
import { refuseToChange } from './read-only.ts';
import { spread } from './segments.ts';
import { flushWaitMs, Pending, Tags, waitAtMost } from './tags.ts';
import { teardown } from './teardown.ts';
import { Versions } from './versions.ts';

type Reply<O extends Op> = RMessage<O> | Errno;

/** The unit of the client's page cache; its requests shall be multiples of it. */
const pageBytes = 4096;
const Tflush = operations.flush.type;

/** What a session holds; for leak checks. After `close` all are 0. */
export interface Counts {
  readonly fids: number;
  readonly requests: number;
  readonly locks: number;
  readonly xattrBytes: number;
}

export interface SessionParts {
  readonly exports: ExportLookup;
  readonly transport: TransportPort;
  readonly log: Logger;
  /** The largest msize to agree to. */
  readonly msizeMax?: number;
  readonly limits?: Limits;
  /** Of the server; a session alone has everything. */
  readonly share?: ServerShare;
}

/** One connection's conversation: version, fids, tags, locks. */
export class Session implements SessionPort {
  readonly exports: ExportLookup;
  readonly msizeMax: number;
  readonly quota: SessionQuota;
  readonly fids: Fids;
  readonly versions = new Versions();
  readonly locks: LockClient;
  /** 0 before a version was agreed on. */
  msize = 0;
  readonly #transport: TransportPort;
  readonly #log: Logger;
  readonly #queue = newQueue();
  readonly #tags = new Tags();
  readonly #tracing: boolean;
  #attr = new Attr();
  #someReadonly = false;
  #ended = false;
  /** Tversions so far. */
  #generation = 0;
  readonly #inFlight: InFlight;
  /** Of the request being started. */
  #dataBytes = 0;
  #detached: DetachedExchange | undefined;
  #cancel: (() => void) | undefined;

  constructor(parts: SessionParts) {
    const { exports, transport: line, log, msizeMax = msizeBytesMax, limits = defaultLimits } = parts;
    this.#inFlight = new InFlight(parts.share ?? new ServerShare(limits), () => line.resume());
    this.quota = new SessionQuota(limits);
    this.fids = new Fids(this.quota);
    this.locks = new LockClient(this.quota);
    this.exports = exports;
    this.msizeMax = msizeMax;
    this.#transport = line;
    this.#log = log;
    this.#tracing = log.isLevelEnabled('trace');
  }

  get frameBytesMax(): number {
    return this.msize === 0 ? unversionedFrameBytesMax : this.msize;
  }

  /** fs/9p before 6.1 refuses a reply as large as msize. */
  get replyBytesMax(): number {
    return this.msize - 1;
  }

  get dataBytesMax(): number {
    return this.replyBytesMax - dataReplyHeadBytes;
  }

  /** Whole pages, so that the client's pieces are; 0 lets the client choose. */
  get iounit(): number {
    const bytes = this.msize - ioHeaderBytes;
    return bytes - (bytes % pageBytes);
  }

  takes(type: number, unreadBytes: number): boolean {
    return this.#inFlight.takes(type === Tflush, unreadBytes);
  }

  account(bytes: number): void {
    this.#inFlight.keep(bytes);
  }

  counts(): Counts {
    return {
      fids: this.fids.size,
      requests: this.#inFlight.running + this.#inFlight.blocked,
      locks: this.locks.count,
      xattrBytes: this.quota.xattrBytes,
    };
  }

  receive(exchange: Exchange): void {
    const { head, from } = exchange;
    const tag = frameTag(head, from);
    const op = requestOp(frameType(head, from));
    // A Tversion ends all that was, an earlier one with its tag included.
    if (this.#ended || (this.#tags.has(tag) && op !== 'version')) {
      exchange.drop();
      this.#disconnect(`tag ${tag} was used again before its reply`);
      return;
    }
    if (op === undefined) this.#refuse(exchange, tag, this.msize === 0 ? EPROTO : EOPNOTSUPP);
    else this.#start(op, tag, exchange);
  }

  #start<O extends Op>(op: O, tag: number, exchange: Exchange): void {
    beginTurn(this.#queue);
    this.fids.beginRequest();
    this.#detached = undefined;
    this.#cancel = undefined;
    this.#dataBytes = 0;
    let answer: MaybePromise<Reply<O>>;
    try {
      // What is traced goes by the table, which can show it.
      const byHand = this.#tracing || this.msize === 0 ? undefined : answerFast(this, exchange, tag);
      if (byHand === answered) return;
      answer = (byHand as MaybePromise<Reply<O>> | undefined) ?? this.#answerGeneric(op, tag, exchange);
    } catch (error) {
      this.#answer(op, tag, this.#detached ?? exchange, this.#failureOf(error, exchange));
      return;
    }
    if (answer instanceof Promise) this.#wait(op, tag, answer, exchange);
    else this.#answer(op, tag, this.#detached ?? exchange, answer);
  }

  #answerGeneric<O extends Op>(op: O, tag: number, exchange: Exchange): MaybePromise<Reply<O>> {
    if (this.msize === 0 && op !== 'version') throw EPROTO;
    const request = decodeRequest(op, exchange.head, exchange.from, exchange.to);
    if (this.#tracing) this.#log.trace(`${this.#transport.peer.label}: ${showRequest(op, tag, request)}`);
    if (this.#someReadonly) refuseToChange(this.fids, op, request);
    return handlers[op](this, request, exchange);
  }

  #refuse(exchange: Exchange, tag: number, errno: Errno): void {
    if (this.#tracing) {
      this.#log.trace(`${this.#transport.peer.label}: ${showFrame(frameOf(exchange))}`);
      this.#log.trace(`${this.#transport.peer.label}: Rlerror tag ${tag} ${errno}`);
    }
    exchange.commit(encodeError(tag, errno, exchange.out, exchange.at), 0);
  }

  #wait<O extends Op>(op: O, tag: number, answer: Promise<Reply<O>>, exchange: Exchange): void {
    const blocked = this.#cancel !== undefined;
    const kept = this.#detached ?? exchange.detach();
    const { reserved } = this.fids;
    const pending = new Pending(tag, op, kept, this.fids.pin(), reserved, this.#cancel, turn.withdraw);
    this.#tags.add(pending);
    const allocData = this.#dataBytes;
    this.#inFlight.begin(blocked, allocData);
    const over = (reply: Reply<O>) => {
      this.#inFlight.end(blocked, allocData);
      this.fids.unpin(pending.pinned);
      this.#finish(op, pending, reply);
      this.#inFlight.settle();
    };
    answer.then(over, error => over(this.#failureOf(error, pending.exchange)));
  }

  #finish<O extends Op>(op: O, pending: Pending, reply: Reply<O>): void {
    if (pending.unwanted || (pending.cancel && pending.isFlushed && reply === ECANCELED)) {
      this.#tags.free(pending);
      pending.drop();
    } else {
      this.#tags.free(pending);
      pending.answered = true;
      this.#answer(op, pending.tag, pending.exchange, reply);
    }
    pending.end();
  }

  #answer<O extends Op>(op: O, tag: number, exchange: Exchange, reply: Reply<O>): void {
    if (this.#tracing) this.#log.trace(`${this.#transport.peer.label}: ${showReply(op, tag, reply)}`);
    let dataBytes = 0;
    let headBytes: number;
    try {
      if (reply instanceof Errno) {
        reportHostError(reply, this.fids, () => frameOf(exchange));
        headBytes = encodeError(tag, reply, exchange.out, exchange.at);
      } else {
        const data = (reply as { data?: Data }).data;
        if (data) dataBytes = data.count;
        if (data?.bytes) spread(data.bytes.subarray(0, dataBytes), exchange.reserveData(dataBytes));
        const message = data?.bytes ? ({ data: { count: dataBytes } } as unknown as RMessage<O>) : reply;
        headBytes = encodeReply(op, tag, message, exchange.out, exchange.at);
      }
    } catch (error) {
      dataBytes = 0;
      headBytes = encodeError(tag, this.#failureOf(error, exchange), exchange.out, exchange.at);
    }
    exchange.commit(headBytes, dataBytes);
  }

  /** The error a client gets. What is no Errno is a bug of ours: this connection ends, the others live. */
  #failureOf(error: unknown, exchange: Exchange): Errno {
    const errno = errnoOf(error);
    if (errno) return errno;
    const stack = error instanceof Error ? error.stack : String(error);
    this.#log.error(`${this.#transport.peer.label}: ${showAny(frameOf(exchange))}: ${stack}`);
    queueMicrotask(() => this.#disconnect('an error inside the server'));
    return EIO;
  }

  #disconnect(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#transport.hangUp(reason);
  }

  /** The exchange in a form that outlives the turn, for a handler that knows that it will wait. */
  detach(exchange: Exchange): DetachedExchange {
    this.#detached ??= exchange.detach();
    return this.#detached;
  }

  /** Memory for the request being started to read into, which nobody else has. */
  aside(bytes: number): Owned<Buffer> {
    this.#dataBytes += bytes;
    return allocOwned(bytes);
  }

  /** How the request being started is called off. It counts as blocked, and not as running. */
  onFlush(cancel: () => void): void {
    this.#cancel = cancel;
  }

  /** What Tflush does; resolves when Rflush may be sent, or is undefined when that is now. */
  flush(oldtag: number): Promise<Record<string, never>> | undefined {
    const pending = this.#tags.get(oldtag);
    if (!pending) return undefined;
    if (pending.withdraw?.() || pending.isWithoutEffect) {
      this.#abandon(pending);
      return undefined;
    }
    const over = pending.over(() => this.#abandon(pending));
    pending.cancel?.();
    return over.then(() => ({}));
  }

  /** As though it had never been sent: its number and newfid are free, its fid is what it was, nothing is answered. */
  #abandon(pending: Pending): void {
    if (pending.newfid) this.fids.unreserve(pending.newfid);
    for (const fid of pending.pinned) this.fids.restore(fid);
    this.#tags.abandon(pending);
    pending.end();
  }

  /** A record for one request's attributes: answered in the same turn, it is used again; otherwise see `keepAttr`. */
  lendAttr(): Attr {
    return this.#attr;
  }

  /** The record that was lent outlives its turn. */
  keepAttr(): void {
    this.#attr = new Attr();
  }

  /** Attributes as this client sees them. Without `attr` they are valid within this turn only. */
  stat(tree: Tree, node: Node): MaybePromise<Attr> {
    const attr = this.#attr;
    const described = tree.stat(node, attr);
    if (described instanceof Promise) {
      this.keepAttr();
      return described.then(() => this.#finishAttr(node, attr));
    }
    return this.#finishAttr(node, attr);
  }

  #finishAttr(node: Node, attr: Attr): Attr {
    attr.qidVersion = this.versionOf(node, attr);
    attr.bytes[0] = P9_STATS_BASIC & 0xff; // What is in `valid` is true, whatever was asked for.
    attr.bytes[1] = attr.bytes[1]! | (P9_STATS_BASIC >> 8);
    const host = attr.blksize || pageBytes;
    const room = this.msize - ioHeaderBytes;
    attr.blksize = room < host ? host : room - (room % host);
    return attr;
  }

  qid(tree: Tree, node: Node): MaybePromise<Qid> {
    return andThen(this.stat(tree, node), attr => this.qidOf(node, attr));
  }

  versionOf(node: Node, attr: Attr): number {
    return this.versions.versionOf(node, stampOf(attr), attr.asked);
  }

  qidOf(node: Node, attr: Attr): Qid {
    return {
      type: attr.qidType,
      version: this.versionOf(node, attr),
      pathLow: node.pathLow,
      pathHigh: node.pathHigh,
    };
  }

  attached(to: ExportEntry, uname: string, uid: number): void {
    this.#someReadonly ||= to.readonly;
    if (!this.#log.isLevelEnabled('debug')) return;
    // The client's bytes, made fit for a log.
    const name = JSON.stringify(uname.slice(0, 64));
    this.#log.debug(`${this.#transport.peer.label}: attached to ${to.name} as uid ${uid | 0}, uname ${name}`);
  }

  /**
   * Forgets everything that was, for Tversion: what still runs is not answered any more. Resolves when nothing of it can have
   * an effect any more, to false when another Tversion has come meanwhile. A write that hangs is waited for: it might land in
   * what the next session does. Locks that cannot be given up, and files that cannot be closed, only keep others out.
   */
  reset(): MaybePromise<boolean> {
    const era = ++this.#generation;
    this.msize = 0;
    const effective = this.#tags.abandonAll();
    const locked = this.locks.count > 0;
    const letGo = this.#teardown();
    if (effective.length === 0 && !locked) return true;
    const over = [waitAtMost(flushWaitMs, letGo), ...effective.map(one => one.over())];
    return Promise.all(over).then(() => era === this.#generation);
  }

  finish(blockedToo = false): Promise<void> {
    return this.#inFlight.whenIdle(blockedToo);
  }

  async close(): Promise<void> {
    this.#ended = true;
    this.#tags.abandonAll();
    await this.#teardown();
    await this.#inFlight.whenIdle(true);
    this.quota.leave();
    this.#inFlight.leave();
  }

  #teardown(): Promise<void> {
    beginTurn(this.#queue);
    return teardown(this.fids, this.locks, error =>
      this.#log.error(`${this.#transport.peer.label}: ${error instanceof Error ? error.stack : error}`),
    );
  }
}

function frameOf({ head, from, to }: Exchange): Buffer {
  return head.subarray(from, to);
}
