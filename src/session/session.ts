import { type Answer, andThen } from '../answer.ts';
import { Attr } from '../attr.ts';
import { ECANCELED, EIO, EOPNOTSUPP, EPROTO, Errno } from '../errno.ts';
import {
  defaultLimits,
  ioHeaderBytes,
  type Limits,
  msizeBytesMax,
  unversionedFrameBytesMax,
} from '../limits.ts';
import type { Logger } from '../log.ts';
import { allocOwned, type Owned } from '../owned.ts';
import {
  decodeRequest,
  encodeError,
  encodeReply,
  errnoOf,
  frameTag,
  frameType,
  requestOp,
} from '../protocol/codec.ts';
import { dataReplyHeadBytes, P9_STATS_BASIC } from '../protocol/constants.ts';
import type { Data, Qid } from '../protocol/kinds.ts';
import { type Op, operations, type RMessage } from '../protocol/operations.ts';
import { showAny, showFrame, showReply, showRequest } from '../protocol/trace.ts';
import { type Node, stampOf, type Tree } from '../tree/tree.ts';
import { beginTurn, newQueue, turn } from '../turn.ts';
import { answerByHand, answered } from './by-hand.ts';
import type { Door, Exchange, KeptExchange, Line } from './door.ts';
import type { Export, Exports } from './exports.ts';
import { Fids } from './fids.ts';
import { handlers } from './handlers/table.ts';
import { Holdings } from './holdings.ts';
import { tellOfHost } from './host-trouble.ts';
import { letGoOfAll } from './letting-go.ts';
import { Load } from './load.ts';
import { LockClient } from './locks.ts';
import { refuseToChange } from './read-only.ts';
import { spread } from './segments.ts';
import { Shares } from './shares.ts';
import { Pending, patienceMs, Tags, within } from './tags.ts';
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
  readonly exports: Exports;
  readonly line: Line;
  readonly log: Logger;
  /** The largest msize to agree to. */
  readonly msizeMax?: number;
  readonly limits?: Limits;
  /** Of the server; a session alone has everything. */
  readonly shares?: Shares;
}

/** One connection's conversation: version, fids, tags, locks. */
export class Session implements Door {
  readonly exports: Exports;
  readonly msizeMax: number;
  readonly holdings: Holdings;
  readonly fids: Fids;
  readonly versions = new Versions();
  readonly locks: LockClient;
  /** 0 before a version was agreed on. */
  msize = 0;
  readonly #line: Line;
  readonly #log: Logger;
  readonly #queue = newQueue();
  readonly #tags = new Tags();
  readonly #tracing: boolean;
  #attr = new Attr();
  #someReadonly = false;
  #ended = false;
  /** Tversions so far. */
  #era = 0;
  readonly #load: Load;
  /** Of the request being started. */
  #aside = 0;
  #kept: KeptExchange | undefined;
  #cancel: (() => void) | undefined;

  constructor(parts: SessionParts) {
    const { exports, line, log, msizeMax = msizeBytesMax, limits = defaultLimits } = parts;
    this.#load = new Load(parts.shares ?? new Shares(limits), () => line.resume());
    this.holdings = new Holdings(limits);
    this.fids = new Fids(this.holdings);
    this.locks = new LockClient(this.holdings);
    this.exports = exports;
    this.msizeMax = msizeMax;
    this.#line = line;
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
    return this.#load.takes(type === Tflush, unreadBytes);
  }

  keeps(bytes: number): void {
    this.#load.keep(bytes);
  }

  counts(): Counts {
    return {
      fids: this.fids.size,
      requests: this.#load.running + this.#load.blocked,
      locks: this.locks.count,
      xattrBytes: this.holdings.xattrBytes,
    };
  }

  receive(exchange: Exchange): void {
    const { head, from } = exchange;
    const tag = frameTag(head, from);
    const op = requestOp(frameType(head, from));
    // A Tversion ends all that was, an earlier one with its tag included.
    if (this.#ended || (this.#tags.has(tag) && op !== 'version')) {
      exchange.drop();
      this.#breakOff(`tag ${tag} was used again before its reply`);
      return;
    }
    if (op === undefined) this.#refuse(exchange, tag, this.msize === 0 ? EPROTO : EOPNOTSUPP);
    else this.#start(op, tag, exchange);
  }

  #start<O extends Op>(op: O, tag: number, exchange: Exchange): void {
    beginTurn(this.#queue);
    this.fids.begin();
    this.#kept = undefined;
    this.#cancel = undefined;
    this.#aside = 0;
    let answer: Answer<Reply<O>>;
    try {
      // What is traced goes by the table, which can show it.
      const byHand = this.#tracing || this.msize === 0 ? undefined : answerByHand(this, exchange, tag);
      if (byHand === answered) return;
      answer = (byHand as Answer<Reply<O>> | undefined) ?? this.#byTable(op, tag, exchange);
    } catch (error) {
      this.#answer(op, tag, this.#kept ?? exchange, this.#failureOf(error, exchange));
      return;
    }
    if (answer instanceof Promise) this.#wait(op, tag, answer, exchange);
    else this.#answer(op, tag, this.#kept ?? exchange, answer);
  }

  #byTable<O extends Op>(op: O, tag: number, exchange: Exchange): Answer<Reply<O>> {
    if (this.msize === 0 && op !== 'version') throw EPROTO;
    const request = decodeRequest(op, exchange.head, exchange.from, exchange.to);
    if (this.#tracing) this.#log.trace(`${this.#line.peer.label}: ${showRequest(op, tag, request)}`);
    if (this.#someReadonly) refuseToChange(this.fids, op, request);
    return handlers[op](this, request, exchange);
  }

  #refuse(exchange: Exchange, tag: number, errno: Errno): void {
    if (this.#tracing) {
      this.#log.trace(`${this.#line.peer.label}: ${showFrame(frameOf(exchange))}`);
      this.#log.trace(`${this.#line.peer.label}: Rlerror tag ${tag} ${errno}`);
    }
    exchange.commit(encodeError(tag, errno, exchange.out, exchange.at), 0);
  }

  #wait<O extends Op>(op: O, tag: number, answer: Promise<Reply<O>>, exchange: Exchange): void {
    const blocked = this.#cancel !== undefined;
    const kept = this.#kept ?? exchange.later();
    const { reserved } = this.fids;
    const pending = new Pending(tag, op, kept, this.fids.pin(), reserved, this.#cancel, turn.withdraw);
    this.#tags.add(pending);
    const aside = this.#aside;
    this.#load.begin(blocked, aside);
    const over = (reply: Reply<O>) => {
      this.#load.end(blocked, aside);
      this.fids.unpin(pending.pinned);
      this.#finish(op, pending, reply);
      this.#load.settle();
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
    if (this.#tracing) this.#log.trace(`${this.#line.peer.label}: ${showReply(op, tag, reply)}`);
    let dataBytes = 0;
    let headBytes: number;
    try {
      if (reply instanceof Errno) {
        tellOfHost(reply, this.fids, () => frameOf(exchange));
        headBytes = encodeError(tag, reply, exchange.out, exchange.at);
      } else {
        const data = (reply as { data?: Data }).data;
        if (data) dataBytes = data.count;
        if (data?.bytes) spread(data.bytes.subarray(0, dataBytes), exchange.space(dataBytes));
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
    this.#log.error(`${this.#line.peer.label}: ${showAny(frameOf(exchange))}: ${stack}`);
    queueMicrotask(() => this.#breakOff('an error inside the server'));
    return EIO;
  }

  #breakOff(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#line.hangUp(reason);
  }

  /** The exchange in a form that outlives the turn, for a handler that knows that it will wait. */
  keep(exchange: Exchange): KeptExchange {
    this.#kept ??= exchange.later();
    return this.#kept;
  }

  /** Memory for the request being started to read into, which nobody else has. */
  aside(bytes: number): Owned<Buffer> {
    this.#aside += bytes;
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
  stat(tree: Tree, node: Node): Answer<Attr> {
    const attr = this.#attr;
    const described = tree.stat(node, attr);
    if (described instanceof Promise) {
      this.keepAttr();
      return described.then(() => this.#dress(node, attr));
    }
    return this.#dress(node, attr);
  }

  #dress(node: Node, attr: Attr): Attr {
    attr.qidVersion = this.versionOf(node, attr);
    attr.bytes[0] = P9_STATS_BASIC & 0xff; // What is in `valid` is true, whatever was asked for.
    attr.bytes[1] = attr.bytes[1]! | (P9_STATS_BASIC >> 8);
    const host = attr.blksize || pageBytes;
    const room = this.msize - ioHeaderBytes;
    attr.blksize = room < host ? host : room - (room % host);
    return attr;
  }

  qid(tree: Tree, node: Node): Answer<Qid> {
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

  attached(to: Export, uname: string, uid: number): void {
    this.#someReadonly ||= to.readonly;
    if (!this.#log.isLevelEnabled('debug')) return;
    // The client's bytes, made fit for a log.
    const name = JSON.stringify(uname.slice(0, 64));
    this.#log.debug(`${this.#line.peer.label}: attached to ${to.name} as uid ${uid | 0}, uname ${name}`);
  }

  /**
   * Forgets everything that was, for Tversion: what still runs is not answered any more. Resolves when nothing of it can have
   * an effect any more, to false when another Tversion has come meanwhile. A write that hangs is waited for: it might land in
   * what the next session does. Locks that cannot be given up, and files that cannot be closed, only keep others out.
   */
  reset(): Answer<boolean> {
    const era = ++this.#era;
    this.msize = 0;
    const effective = this.#tags.abandonAll();
    const locked = this.locks.count > 0;
    const letGo = this.#letGo();
    if (effective.length === 0 && !locked) return true;
    const over = [within(patienceMs, letGo), ...effective.map(one => one.over())];
    return Promise.all(over).then(() => era === this.#era);
  }

  finish(blockedToo = false): Promise<void> {
    return this.#load.whenIdle(blockedToo);
  }

  async close(): Promise<void> {
    this.#ended = true;
    this.#tags.abandonAll();
    await this.#letGo();
    await this.#load.whenIdle(true);
    this.holdings.leave();
    this.#load.leave();
  }

  #letGo(): Promise<void> {
    beginTurn(this.#queue);
    return letGoOfAll(this.fids, this.locks, error =>
      this.#log.error(`${this.#line.peer.label}: ${error instanceof Error ? error.stack : error}`),
    );
  }
}

function frameOf({ head, from, to }: Exchange): Buffer {
  return head.subarray(from, to);
}
