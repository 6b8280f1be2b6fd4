import { ECANCELED, EIO, EOPNOTSUPP, EPROTO, Errno } from '#base/errno.ts';
import type { Logger } from '#base/log.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import { spread } from '#base/owned.ts';
import {
  decodeRequest,
  encodeError,
  encodeReply,
  errnoOf,
  frameTag,
  frameType,
  requestOp,
} from '#protocol/codec.ts';
import type { Data } from '#protocol/kinds.ts';
import { type Op, operations, type RMessage } from '#protocol/operations.ts';
import { showAny, showFrame, showReply, showRequest } from '#protocol/trace.ts';
import { InFlight } from '#quota/in-flight.ts';
import { defaultLimits, type Limits, msizeBytesMax, unversionedFrameBytesMax } from '#quota/limits.ts';
import { ServerShare } from '#quota/server-share.ts';
import type { ExportEntry, ExportLookup } from './attachment.ts';
import type { Exchange, SessionPort, TransportPort } from './exchange.ts';
import { answered, answerFast } from './fast-path.ts';
import { handlers } from './handlers/table.ts';
import { refuseToChange } from './read-only.ts';
import { flushWaitMs, Request } from './request.ts';
import { SessionState } from './state.ts';
import { Tags, waitAtMost } from './tags.ts';
import { teardown } from './teardown.ts';

type Reply<O extends Op> = RMessage<O> | Errno;
type AnyReply = RMessage<Op> | Errno;

const Tflush = operations.flush.type;

/** Resources that a session holds, for leak checks. All are 0 after `close`. */
interface Counts {
  readonly fids: number;
  readonly requests: number;
  readonly locks: number;
  readonly xattrBytes: number;
}

interface SessionParts {
  readonly exports: ExportLookup;
  readonly transport: TransportPort;
  readonly log: Logger;
  /** The largest msize that Rversion offers. */
  readonly msizeMax?: number;
  readonly limits?: Limits;
  /** Divides the server's capacity among its sessions. Default: this session is the only one. */
  readonly share?: ServerShare;
}

/** The 9P session of one connection: version, fids, tags and locks. */
export class Session extends SessionState implements SessionPort {
  readonly #transport: TransportPort;
  readonly #log: Logger;
  readonly #tags = new Tags();
  readonly #tracing: boolean;
  readonly #inFlight: InFlight;
  /** Reused for every request until one is detached. */
  #request = new Request(this);
  #someReadonly = false;
  #ended = false;
  #hasAttached = false;
  /** Number of Tversions received. */
  #generation = 0;

  constructor(parts: SessionParts) {
    const { exports, transport, log, msizeMax = msizeBytesMax, limits = defaultLimits } = parts;
    super(exports, msizeMax, limits);
    this.#inFlight = new InFlight(parts.share ?? new ServerShare(limits), () => transport.resume());
    this.#transport = transport;
    this.#log = log;
    this.#tracing = log.isLevelEnabled('trace');
  }

  /** Before the first attach, too, only small messages are legal: a peer without an export takes no memory for large ones. */
  get frameBytesMax(): number {
    return this.#hasAttached ? this.msize : unversionedFrameBytesMax;
  }

  /** Whether an attach has succeeded since the last Tversion. */
  get hasAttached(): boolean {
    return this.#hasAttached;
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
    // A Tversion aborts all requests, including an earlier Tversion with the same tag.
    if (this.#ended || (this.#tags.has(tag) && op !== 'version')) {
      exchange.drop();
      this.#disconnect(`tag ${tag} was used again before its reply`);
      return;
    }
    if (op === undefined) this.#refuse(exchange, tag, this.msize === 0 ? EPROTO : EOPNOTSUPP);
    else this.#start(op, tag, exchange);
  }

  #start(op: Op, tag: number, exchange: Exchange): void {
    const request = this.#request;
    request.begin(op, tag, exchange);
    let reply: MaybePromise<AnyReply>;
    try {
      // Only the generic path logs traces.
      const fast = this.#tracing || this.msize === 0 ? undefined : answerFast(request);
      if (fast === answered) return;
      reply = fast ?? this.#answerGeneric(op, request);
    } catch (error) {
      this.#answer(request, this.#failureOf(error, request));
      return;
    }
    if (reply instanceof Promise) this.#wait(request, reply);
    else this.#answer(request, reply);
  }

  #answerGeneric<O extends Op>(op: O, request: Request): MaybePromise<Reply<O>> {
    if (this.msize === 0 && op !== 'version') throw EPROTO;
    const { head, from, to } = request.exchange;
    const message = decodeRequest(op, head, from, to);
    if (this.#tracing)
      this.#log.trace(`${this.#transport.peer.label}: ${showRequest(op, request.tag, message)}`);
    if (this.#someReadonly) refuseToChange(this.fids, op, message);
    return handlers[op](request, message);
  }

  #refuse(exchange: Exchange, tag: number, errno: Errno): void {
    if (this.#tracing) {
      this.#log.trace(`${this.#transport.peer.label}: ${showFrame(frameOf(exchange))}`);
      this.#log.trace(`${this.#transport.peer.label}: Rlerror tag ${tag} ${errno}`);
    }
    exchange.commit(encodeError(tag, errno, exchange.out, exchange.at), 0);
  }

  #wait(request: Request, reply: Promise<AnyReply>): void {
    this.#request = new Request(this);
    request.detach();
    this.#tags.add(request);
    const { blocks, dataBytes } = request;
    this.#inFlight.begin(blocks, dataBytes);
    const finish = (reply: AnyReply) => {
      this.#inFlight.end(blocks, dataBytes);
      request.release();
      this.#finish(request, reply);
      this.#inFlight.settle();
    };
    reply.then(finish, error => finish(this.#failureOf(error, request)));
  }

  #finish(request: Request, reply: AnyReply): void {
    this.#tags.free(request);
    if (request.unwanted || (request.blocks && request.isFlushed && reply === ECANCELED)) request.drop();
    else {
      request.answered();
      this.#answer(request, reply);
    }
    request.end();
  }

  #answer(request: Request, reply: AnyReply): void {
    const { op, tag, exchange } = request;
    if (this.#tracing) this.#log.trace(`${this.#transport.peer.label}: ${showReply(op, tag, reply)}`);
    let dataBytes = 0;
    let headBytes: number;
    try {
      if (reply instanceof Errno) {
        this.#reportHostError(reply, request);
        headBytes = encodeError(tag, reply, exchange.out, exchange.at);
      } else {
        const { data } = reply as { data?: Data };
        if (data) dataBytes = data.count;
        if (data?.bytes) spread(data.bytes.subarray(0, dataBytes), exchange.reserveData(dataBytes));
        const message = data?.bytes ? ({ data: { count: dataBytes } } as unknown as RMessage<Op>) : reply;
        headBytes = encodeReply(op, tag, message, exchange.out, exchange.at);
      }
    } catch (error) {
      dataBytes = 0;
      headBytes = encodeError(tag, this.#failureOf(error, request), exchange.out, exchange.at);
    }
    exchange.commit(headBytes, dataBytes);
  }

  /** Logs a host error against the export of the request's first fid. */
  #reportHostError(errno: Errno, { firstFid, exchange }: Request): void {
    // Not host errors: EROFS of a read-only export, and ENOSPC for more xattr bytes than Txattrcreate announced.
    if (!firstFid || firstFid.attachment.readonly || firstFid.use.kind === 'xattr-write') return;
    firstFid.attachment.hostErrors?.report(errno, () => showAny(frameOf(exchange)));
  }

  /** The Errno for the client. Errors other than Errno and Malformed are bugs: logged, EIO, and this connection is closed. */
  #failureOf(error: unknown, { exchange }: Request): Errno {
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

  flush(oldtag: number): Promise<Record<string, never>> | undefined {
    const request = this.#tags.get(oldtag);
    if (!request) return undefined;
    if (request.withdraw?.() || request.isWithoutEffect) {
      this.#abandon(request);
      return undefined;
    }
    const ended = request.whenEnded(() => this.#abandon(request));
    request.cancel?.();
    return ended.then(() => ({}));
  }

  #abandon(request: Request): void {
    request.abandon();
    this.#tags.abandon(request);
    request.end();
  }

  attached(to: ExportEntry, uname: string, uid: number): void {
    this.#someReadonly ||= to.readonly;
    this.#hasAttached = true;
    if (!this.#log.isLevelEnabled('debug')) return;
    // Escaped: the bytes are the client's.
    const name = JSON.stringify(uname.slice(0, 64));
    this.#log.debug(`${this.#transport.peer.label}: attached to ${to.name} as uid ${uid | 0}, uname ${name}`);
  }

  reset(): MaybePromise<boolean> {
    const generation = ++this.#generation;
    this.msize = 0;
    this.#hasAttached = false;
    const effective = this.#tags.abandonAll();
    const locked = this.locks.count > 0;
    const released = this.#teardown();
    if (effective.length === 0 && !locked) return true;
    const ended = [waitAtMost(flushWaitMs, released), ...effective.map(one => one.whenEnded())];
    return Promise.all(ended).then(() => generation === this.#generation);
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
    return teardown(this.fids, this.locks, error =>
      this.#log.error(`${this.#transport.peer.label}: ${error instanceof Error ? error.stack : error}`),
    );
  }
}

function frameOf({ head, from, to }: Exchange): Buffer {
  return head.subarray(from, to);
}
