import { copyOwned, type OwnedSegments, type Segments } from '#base/owned.ts';
import { dataReplyHeadBytes, writeHeadBytes } from '#protocol/constants.ts';
import { operations } from '#protocol/operations.ts';
import { type DetachedExchange, type Exchange, replyHeadBytesMax } from '#session/exchange.ts';
import { returnBuffer, takeBuffer } from './buffer-pool.ts';
import type { SendQueue } from './send-queue.ts';

const Twrite = operations.write.type;
const noSegments: Segments = [];

/** Counts bytes of payloads and replies that detached requests hold; negative when they are freed. */
type Account = (bytes: number) => void;

/** Exchange that a connection reuses for every request which is answered within the event-loop callback that received it. */
export class InlineExchange implements Exchange {
  head!: Buffer;
  from = 0;
  to = 0;
  payload: Segments = noSegments;
  readonly #queue: SendQueue;
  readonly #account: Account;

  constructor(queue: SendQueue, account: Account) {
    this.#queue = queue;
    this.#account = account;
  }

  /** Starts the next request: `bytes` from `from` to `to`, valid until the current event-loop callback returns. */
  begin(bytes: Buffer, from: number, to: number): this {
    const split = bytes[from + 4] === Twrite && to - from > writeHeadBytes;
    this.head = bytes;
    this.from = from;
    this.to = split ? from + writeHeadBytes : to;
    this.payload = split ? [bytes.subarray(from + writeHeadBytes, to)] : noSegments;
    this.#queue.reserve(replyHeadBytesMax);
    return this;
  }

  get out(): Buffer {
    return this.#queue.bytes;
  }

  get at(): number {
    return this.#queue.at;
  }

  reserveData(count: number): Segments {
    this.#queue.reserve(Math.max(dataReplyHeadBytes + count, replyHeadBytesMax));
    const from = this.#queue.at + dataReplyHeadBytes;
    return [this.#queue.bytes.subarray(from, from + count)];
  }

  commit(headBytes: number, dataBytes: number): void {
    this.#queue.add(headBytes + dataBytes);
    // Needed when the session answers outside the callback that received the request.
    this.#queue.flushSoon();
  }

  defer(act: () => void): boolean {
    return this.#queue.defer(act);
  }

  drop(): void {}

  detach(): DetachedExchange {
    const head = copyOwned(this.head.subarray(this.from, this.to));
    const payload = this.payload.map(copyOwned);
    return new CopiedExchange(head, payload, this.#queue, this.#account);
  }
}

/** Detached exchange: owns a copy of the request and its own reply buffer. */
class CopiedExchange implements DetachedExchange {
  readonly head: Buffer;
  readonly from = 0;
  readonly payload: OwnedSegments;
  readonly at = 0;
  readonly #queue: SendQueue;
  readonly #account: Account;
  #buffer: Buffer | undefined;
  #bytes: number;
  #finished = false;

  constructor(head: Buffer, payload: OwnedSegments, queue: SendQueue, account: Account) {
    this.head = head;
    this.payload = payload;
    this.#queue = queue;
    this.#account = account;
    this.#bytes = head.length + (payload[0]?.length ?? 0);
    account(this.#bytes);
  }

  get to(): number {
    return this.head.length;
  }

  get out(): Buffer {
    this.#buffer ??= takeBuffer(replyHeadBytesMax);
    return this.#buffer;
  }

  reserveData(count: number): Segments {
    this.#buffer = takeBuffer(Math.max(dataReplyHeadBytes + count, replyHeadBytesMax));
    this.#bytes += count;
    this.#account(count);
    return [this.#buffer.subarray(dataReplyHeadBytes, dataReplyHeadBytes + count)];
  }

  /** Its reply may be sent later than those of the batch. */
  defer(): boolean {
    return false;
  }

  commit(headBytes: number, dataBytes: number): void {
    const buffer = this.#finish();
    if (buffer) this.#queue.append(buffer, headBytes + dataBytes);
  }

  drop(): void {
    const buffer = this.#finish();
    if (buffer) returnBuffer(buffer);
  }

  detach(): DetachedExchange {
    return this;
  }

  #finish(): Buffer | undefined {
    if (this.#finished) return undefined;
    this.#finished = true;
    this.#account(-this.#bytes);
    const buffer = this.#buffer;
    this.#buffer = undefined;
    return buffer;
  }
}
