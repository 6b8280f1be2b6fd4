import type { Errno } from '../../src/base/errno.ts';
import { silent } from '../../src/base/log.ts';
import { asOwned, type OwnedSegments, type Segments } from '../../src/base/owned.ts';
import { decodeReply, encodeRequest, frameTag } from '../../src/protocol/codec.ts';
import { type Draft, type Op, operations, type RMessage } from '../../src/protocol/operations.ts';
import type { ExportLookup } from '../../src/session/attachment.ts';
import { type DetachedExchange, replyHeadBytesMax, type TransportPort } from '../../src/session/exchange.ts';
import { Session } from '../../src/session/session.ts';
import { assert } from './choices.ts';

const writeHeadBytes = 23;
const dataReplyHeadBytes = 11;
/** Fills the bytes after lent memory, which must not change. */
const canary = 0xa5;
const canaryBytes = 16;
/** Overwrites memory that the session must no longer use. */
const voided = 0xee;

/** An exchange that uses all the freedom of the `Exchange` contract and checks the session's duties. */
class StrictExchange implements DetachedExchange {
  /** Surrounded by other bytes. */
  readonly head: Buffer;
  readonly from = 5;
  readonly to: number;
  readonly payload: OwnedSegments;
  readonly at = 3;
  readonly #said: (reply: Buffer | undefined) => void;
  #out = Buffer.alloc(3 + replyHeadBytesMax);
  #room = 0;
  #lent = false;
  #spaces = 0;
  readonly #voided: Buffer[] = [];
  #answered = false;
  #kept = false;

  constructor(frame: Buffer, said: (reply: Buffer | undefined) => void) {
    const isWrite = frame[4] === operations.write.type;
    const head = isWrite ? frame.subarray(0, writeHeadBytes) : frame;
    this.head = Buffer.concat([Buffer.alloc(this.from, canary), head, Buffer.alloc(canaryBytes, canary)]);
    this.to = this.from + head.length;
    const payload = Buffer.from(isWrite ? frame.subarray(writeHeadBytes) : []);
    const half = payload.length >> 1;
    const pieces = [payload.subarray(0, half), payload.subarray(half)];
    // In segments, as from a virtqueue.
    this.payload = pieces.filter(piece => piece.length > 0).map(asOwned);
    this.#said = said;
  }

  get out(): Buffer {
    return this.#out.subarray(0, this.#out.length - (this.#lent ? canaryBytes : 0));
  }

  reserveData(count: number): Segments {
    assert(!this.#answered, () => 'space was asked for too late');
    assert(++this.#spaces <= 2, () => 'space was asked for more than twice');
    this.#void(this.#out);
    this.#lent = true;
    this.#room = count;
    this.#out = Buffer.alloc(
      3 + Math.max(replyHeadBytesMax, dataReplyHeadBytes + count) + canaryBytes,
      canary,
    );
    return [this.#out.subarray(3 + dataReplyHeadBytes, 3 + dataReplyHeadBytes + count)];
  }

  defer(): boolean {
    assert(!this.#answered, () => 'something was deferred too late');
    return false;
  }

  commit(headBytes: number, dataBytes: number): void {
    this.#answer();
    assert(dataBytes <= this.#room, () => `${dataBytes} bytes of data where there is room for ${this.#room}`);
    const untouched = this.#lent && this.#out.subarray(-canaryBytes).every(byte => byte === canary);
    assert(!this.#lent || untouched, () => 'memory behind the space was written');
    const reply = Buffer.from(this.#out.subarray(3, 3 + headBytes + dataBytes));
    assert(reply.readUInt32LE(0) === reply.length, () => 'the size is not that of the reply');
    this.#said(reply);
  }

  drop(): void {
    this.#answer();
    this.#said(undefined);
  }

  detach(): DetachedExchange {
    assert(!this.#kept && !this.#answered, () => 'an exchange was kept twice, or too late');
    this.#kept = true;
    this.#void(this.#out);
    this.#lent = false;
    this.#out = Buffer.alloc(3 + replyHeadBytesMax);
    return this;
  }

  /** Marks memory that the session may no longer write: the transport reuses it. */
  #void(space: Buffer): void {
    space.fill(voided);
    this.#voided.push(space);
  }

  /** End of the callback: memory of an exchange that was not detached is reused. */
  turnOver(): void {
    assert(this.#kept || this.#answered, () => 'an exchange was neither answered nor kept');
    if (this.#kept) return;
    this.head.fill(voided);
    for (const segment of this.payload) segment.fill(voided);
  }

  #answer(): void {
    const untouched = this.#voided.every(space => space.every(byte => byte === voided));
    assert(untouched, () => 'a space that was given up was written to');
    assert(!this.#answered, () => 'an exchange was answered twice');
    this.#answered = true;
  }
}

/** A request that was sent, and its outcome. */
export interface Asking {
  readonly tag: number;
  readonly frame: Buffer;
  state: 'waiting' | 'answered' | 'dropped';
  reply: Buffer | undefined;
}

const microtasksMax = 50;
const waitMsMax = 20_000;

/** A client that calls a session directly, without a transport. */
export class FuzzClient implements TransportPort {
  readonly peer = { label: 'fuzz' };
  readonly session: Session;
  /** In the order of their replies or drops. */
  readonly over: Asking[] = [];
  readonly errors: string[] = [];
  hungUp: string | undefined;

  /** A traced session uses only the generic path. */
  constructor(exports: ExportLookup, traced = false) {
    const error = (text: string) => void this.errors.push(text);
    const log = { ...silent, error, isLevelEnabled: () => traced };
    this.session = new Session({ exports, transport: this, log });
  }

  hangUp(reason: string): void {
    this.hungUp = reason;
  }
  resume(): void {}

  ask(frame: Buffer): Asking {
    const asking: Asking = { tag: frameTag(frame), frame, state: 'waiting', reply: undefined };
    const exchange = new StrictExchange(frame, reply => {
      asking.state = reply ? 'answered' : 'dropped';
      asking.reply = reply;
      this.over.push(asking);
    });
    this.session.receive(exchange);
    exchange.turnOver();
    return asking;
  }

  /** Sends a request and waits for the reply. */
  async request(frame: Buffer): Promise<Buffer> {
    const asking = this.ask(frame);
    for (let i = 0; i < microtasksMax && asking.state === 'waiting'; i++) await Promise.resolve();
    const end = performance.now() + waitMsMax;
    while (asking.state === 'waiting' && performance.now() < end)
      await new Promise(resolve => setImmediate(resolve));
    assert(this.errors.length === 0, () => `a bug was logged: ${this.errors[0]}`);
    assert(asking.reply !== undefined, () => `no reply: the request was ${asking.state} (${this.hungUp})`);
    return asking.reply!;
  }

  async call<O extends Op>(op: O, asked: Draft<O>, tag: number): Promise<RMessage<O> | Errno> {
    return decodeReply(op, await this.request(encodeRequest(op, tag, asked)));
  }

  get fids(): number {
    return this.session.counts().fids;
  }

  /** Closes the session; it must hold nothing afterwards. */
  async close(): Promise<void> {
    await this.session.close();
    const left = Object.entries(this.session.counts()).filter(([, count]) => count !== 0);
    assert(left.length === 0, () => `left after the end: ${JSON.stringify(left)}`);
    assert(this.errors.length === 0, () => `a bug was logged: ${this.errors[0]}`);
  }
}
