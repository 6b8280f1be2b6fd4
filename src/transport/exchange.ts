import { copyOwned, type OwnedSegments, type Segments } from '#base/owned.ts';
import { dataReplyHeadBytes, writeHeadBytes } from '#protocol/constants.ts';
import { operations } from '#protocol/operations.ts';
import { type DetachedExchange, type Exchange, replyHeadBytesMax } from '#session/exchange.ts';
import { returnBuffer, takeBuffer } from './buffer-pool.ts';
import type { SendQueue } from './send-queue.ts';

const Twrite = operations.write.type;
const noSegments: Segments = [];

/** Told how many bytes of payloads and replies more (or less) are held by requests that outlive their turn. */
export type Account = (bytes: number) => void;

/** The exchange that a connection uses for every request again, as long as they are answered in their turn. */
export class InlineExchange implements Exchange {
  head!: Buffer;
  from = 0;
  to = 0;
  payload: Segments = noSegments;
  readonly #outbox: SendQueue;
  readonly #kept: Account;

  constructor(outbox: SendQueue, kept: Account) {
    this.#outbox = outbox;
    this.#kept = kept;
  }

  /** Begins the next request, which lies in `bytes` from `from` to `to` and is valid for this turn. */
  begin(bytes: Buffer, from: number, to: number): this {
    const split = bytes[from + 4] === Twrite && to - from > writeHeadBytes;
    this.head = bytes;
    this.from = from;
    this.to = split ? from + writeHeadBytes : to;
    this.payload = split ? [bytes.subarray(from + writeHeadBytes, to)] : noSegments;
    this.#outbox.reserve(replyHeadBytesMax);
    return this;
  }

  get out(): Buffer {
    return this.#outbox.bytes;
  }

  get at(): number {
    return this.#outbox.at;
  }

  reserveData(count: number): Segments {
    this.#outbox.reserve(Math.max(dataReplyHeadBytes + count, replyHeadBytesMax));
    const from = this.#outbox.at + dataReplyHeadBytes;
    return [this.#outbox.bytes.subarray(from, from + count)];
  }

  commit(headBytes: number, dataBytes: number): void {
    this.#outbox.add(headBytes + dataBytes);
    // Also outside the turn that received it: a session may finish what it began.
    this.#outbox.flushSoon();
  }

  drop(): void {}

  detach(): DetachedExchange {
    const head = copyOwned(this.head.subarray(this.from, this.to));
    const payload = this.payload.map(copyOwned);
    return new CopiedExchange(head, payload, this.#outbox, this.#kept);
  }
}

/** An exchange with memory of its own. */
class CopiedExchange implements DetachedExchange {
  readonly head: Buffer;
  readonly from = 0;
  readonly payload: OwnedSegments;
  readonly at = 0;
  readonly #outbox: SendQueue;
  readonly #kept: Account;
  #buffer: Buffer | undefined;
  #bytes: number;
  #answered = false;

  constructor(head: Buffer, payload: OwnedSegments, outbox: SendQueue, kept: Account) {
    this.head = head;
    this.payload = payload;
    this.#outbox = outbox;
    this.#kept = kept;
    this.#bytes = head.length + (payload[0]?.length ?? 0);
    kept(this.#bytes);
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
    this.#kept(count);
    return [this.#buffer.subarray(dataReplyHeadBytes, dataReplyHeadBytes + count)];
  }

  commit(headBytes: number, dataBytes: number): void {
    const buffer = this.#settle();
    if (buffer) this.#outbox.append(buffer, headBytes + dataBytes);
  }

  drop(): void {
    const buffer = this.#settle();
    if (buffer) returnBuffer(buffer);
  }

  detach(): DetachedExchange {
    return this;
  }

  #settle(): Buffer | undefined {
    if (this.#answered) return undefined;
    this.#answered = true;
    this.#kept(-this.#bytes);
    const buffer = this.#buffer;
    this.#buffer = undefined;
    return buffer;
  }
}
