import { asOwned, type OwnedSegments, type Segments } from '../../src/base/owned.ts';
import { dataReplyHeadBytes, writeHeadBytes } from '../../src/protocol/constants.ts';
import { operations } from '../../src/protocol/operations.ts';
import { type DetachedExchange, replyHeadBytesMax } from '../../src/session/exchange.ts';
import { assert } from '../fuzz/choices.ts';

/** Fills the bytes after lent memory, which must not change. */
const canary = 0xa5;
const canaryBytes = 16;
/** Overwrites memory that the session must no longer use. */
const voided = 0xee;

/** An exchange that uses all the freedom of the `Exchange` contract and checks the session's duties. */
export class StrictExchange implements DetachedExchange {
  /** Surrounded by other bytes. */
  readonly head: Buffer;
  readonly from = 5;
  readonly to: number;
  readonly payload: OwnedSegments;
  readonly at = 3;
  readonly #onReply: (reply: Buffer | undefined) => void;
  readonly #defer: (act: () => void) => boolean;
  #out = Buffer.alloc(3 + replyHeadBytesMax);
  #room = 0;
  #lent = false;
  #reservations = 0;
  readonly #voided: Buffer[] = [];
  #answered = false;
  #detached = false;

  /** `onReply` gets the reply, undefined if it is dropped. `defer` as `Exchange.defer`. */
  constructor(
    frame: Buffer,
    onReply: (reply: Buffer | undefined) => void,
    defer: (act: () => void) => boolean = () => false,
  ) {
    const isWrite = frame[4] === operations.write.type;
    const head = isWrite ? frame.subarray(0, writeHeadBytes) : frame;
    this.head = Buffer.concat([Buffer.alloc(this.from, canary), head, Buffer.alloc(canaryBytes, canary)]);
    this.to = this.from + head.length;
    const payload = Buffer.from(isWrite ? frame.subarray(writeHeadBytes) : []);
    const half = payload.length >> 1;
    const pieces = [payload.subarray(0, half), payload.subarray(half)];
    // In segments, as from a virtqueue.
    this.payload = pieces.filter(piece => piece.length > 0).map(asOwned);
    this.#onReply = onReply;
    this.#defer = defer;
  }

  get out(): Buffer {
    return this.#out.subarray(0, this.#out.length - (this.#lent ? canaryBytes : 0));
  }

  reserveData(count: number): Segments {
    assert(!this.#answered, () => 'data space was reserved after the reply');
    assert(++this.#reservations <= 2, () => 'data space was reserved more than twice');
    this.#void(this.#out);
    this.#lent = true;
    this.#room = count;
    this.#out = Buffer.alloc(
      3 + Math.max(replyHeadBytesMax, dataReplyHeadBytes + count) + canaryBytes,
      canary,
    );
    return [this.#out.subarray(3 + dataReplyHeadBytes, 3 + dataReplyHeadBytes + count)];
  }

  defer(act: () => void): boolean {
    assert(!this.#answered, () => 'work was deferred after the reply');
    return this.#defer(act);
  }

  commit(headBytes: number, dataBytes: number): void {
    this.#answer();
    assert(dataBytes <= this.#room, () => `${dataBytes} bytes of data in a space of ${this.#room}`);
    const untouched = this.#lent && this.#out.subarray(-canaryBytes).every(byte => byte === canary);
    assert(!this.#lent || untouched, () => 'memory behind the data space was written');
    const reply = Buffer.from(this.#out.subarray(3, 3 + headBytes + dataBytes));
    assert(reply.readUInt32LE(0) === reply.length, () => 'size[4] is not the length of the reply');
    this.#onReply(reply);
  }

  drop(): void {
    this.#answer();
    this.#onReply(undefined);
  }

  detach(): DetachedExchange {
    assert(!this.#detached && !this.#answered, () => 'an exchange was detached twice, or after the reply');
    this.#detached = true;
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
  endCallback(): void {
    assert(this.#detached || this.#answered, () => 'an exchange was neither answered nor detached');
    if (this.#detached) return;
    this.head.fill(voided);
    for (const segment of this.payload) segment.fill(voided);
  }

  #answer(): void {
    const untouched = this.#voided.every(space => space.every(byte => byte === voided));
    assert(untouched, () => 'memory that the session no longer owned was written');
    assert(!this.#answered, () => 'an exchange was answered twice');
    this.#answered = true;
  }
}
