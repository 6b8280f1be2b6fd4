import { copyOwned, type OwnedSegments, type Segments } from '../owned.ts';
import { dataReplyHeadBytes, writeHeadBytes } from '../protocol/constants.ts';
import { operations } from '../protocol/operations.ts';
import { type Exchange, type KeptExchange, replyHeadBytesMax } from '../session/door.ts';
import { giveBackChunk, takeChunk } from './chunks.ts';
import type { Outbox } from './outbox.ts';

const Twrite = operations.write.type;
const noSegments: Segments = [];

/** Told how many bytes of payloads and replies more (or less) are held by requests that outlive their turn. */
export type Kept = (bytes: number) => void;

/** The exchange that a connection uses for every request again, as long as they are answered in their turn. */
export class InlineExchange implements Exchange {
  head!: Buffer;
  from = 0;
  to = 0;
  payload: Segments = noSegments;
  readonly #outbox: Outbox;
  readonly #kept: Kept;

  constructor(outbox: Outbox, kept: Kept) {
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

  space(count: number): Segments {
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

  later(): KeptExchange {
    const head = copyOwned(this.head.subarray(this.from, this.to));
    const payload = this.payload.map(copyOwned);
    return new LateExchange(head, payload, this.#outbox, this.#kept);
  }
}

/** An exchange with memory of its own. */
class LateExchange implements KeptExchange {
  readonly head: Buffer;
  readonly from = 0;
  readonly payload: OwnedSegments;
  readonly at = 0;
  readonly #outbox: Outbox;
  readonly #kept: Kept;
  #chunk: Buffer | undefined;
  #bytes: number;
  #answered = false;

  constructor(head: Buffer, payload: OwnedSegments, outbox: Outbox, kept: Kept) {
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
    this.#chunk ??= takeChunk(replyHeadBytesMax);
    return this.#chunk;
  }

  space(count: number): Segments {
    this.#chunk = takeChunk(Math.max(dataReplyHeadBytes + count, replyHeadBytesMax));
    this.#bytes += count;
    this.#kept(count);
    return [this.#chunk.subarray(dataReplyHeadBytes, dataReplyHeadBytes + count)];
  }

  commit(headBytes: number, dataBytes: number): void {
    const chunk = this.#settle();
    if (chunk) this.#outbox.append(chunk, headBytes + dataBytes);
  }

  drop(): void {
    const chunk = this.#settle();
    if (chunk) giveBackChunk(chunk);
  }

  later(): KeptExchange {
    return this;
  }

  #settle(): Buffer | undefined {
    if (this.#answered) return undefined;
    this.#answered = true;
    this.#kept(-this.#bytes);
    const chunk = this.#chunk;
    this.#chunk = undefined;
    return chunk;
  }
}
