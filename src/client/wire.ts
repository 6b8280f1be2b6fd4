import { connect, type Socket } from 'node:net';
import { EINTR, EPROTO, Errno } from '#base/errno.ts';
import { decodeReply, encodeRequest, frameTag } from '#protocol/codec.ts';
import { NOTAG } from '#protocol/constants.ts';
import { FrameBuffer, FramingError } from '#protocol/frame-buffer.ts';
import type { Draft, Op, RMessage, TMessage } from '#protocol/operations.ts';
import { msizeBytesMax } from '#quota/limits.ts';

interface Waiting {
  readonly op: Op;
  resolve(reply: never): void;
  reject(error: unknown): void;
}

export type Address = { readonly port: number; readonly host?: string } | { readonly path: string };

/** The connection is closed, so the request gets no reply. */
export class Disconnected extends Error {
  override readonly name = 'Disconnected';
}

/**
 * A 9P2000.L connection: sends requests at once, as many as there are tags, and matches replies by tag. See also `Client`.
 */
export class Wire {
  readonly socket: Socket;
  /** The negotiated msize; set by `Client.version`. */
  msize = 8192;
  /** For tests: called first with every reply frame, a view valid during the call. True consumes it. */
  tap: ((frame: Buffer) => boolean) | undefined;
  readonly closed: Promise<void>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #frames = new FrameBuffer();
  #nextTag = 0;
  #ended = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', chunk => this.#arrived(chunk as Buffer));
    socket.on('error', () => {});
    this.closed = new Promise(resolve => {
      socket.on('close', () => {
        this.#ended = true;
        for (const waiting of this.#waiting.values())
          waiting.reject(new Disconnected('the connection was closed'));
        this.#waiting.clear();
        resolve();
      });
    });
  }

  static connect(address: Address): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const socket = connect(address as { port: number });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Wire(socket));
      });
    });
  }

  #arrived(chunk: Buffer): void {
    try {
      this.#frames.push(
        chunk,
        () => msizeBytesMax,
        frame => this.#receive(frame),
      );
    } catch (error) {
      if (!(error instanceof FramingError)) throw error;
      this.socket.destroy(error);
    }
  }

  #receive(frame: Buffer): void {
    if (this.tap?.(frame)) return;
    const waiting = this.#waiting.get(frameTag(frame));
    if (!waiting) {
      this.socket.destroy(
        new Error(`the server sent a reply to tag ${frameTag(frame)}, which is not in use`),
      );
      return;
    }
    this.#waiting.delete(frameTag(frame));
    try {
      // A copy: the frame's memory is reused, and the reply may contain views of it.
      const reply = decodeReply(waiting.op, Buffer.from(frame));
      if (reply instanceof Errno) waiting.reject(reply);
      else waiting.resolve(reply as never);
    } catch (error) {
      waiting.reject(error);
    }
  }

  /** An unused tag, for a request that will be flushed or is sent with `send`. RangeError if all are in use. */
  freeTag(): number {
    if (this.#waiting.size >= NOTAG) throw new RangeError('all tags are in use');
    while (this.#waiting.has(this.#nextTag)) this.#nextTag = (this.#nextTag + 1) % NOTAG;
    const tag = this.#nextTag;
    this.#nextTag = (this.#nextTag + 1) % NOTAG;
    return tag;
  }

  /** Sends a request; rejects with the `Errno` of Rlerror, or with `Disconnected`. */
  request<O extends Op>(op: O, request: Draft<O> | TMessage<O>, tag = this.freeTag()): Promise<RMessage<O>> {
    if (this.#ended) return Promise.reject(new Disconnected('the connection is closed'));
    if (this.#waiting.has(tag)) return Promise.reject(EPROTO);
    return new Promise((resolve, reject) => {
      // Before the tag is taken: it throws if a value does not fit its field.
      const frame = encodeRequest(op, tag, request);
      this.#waiting.set(tag, { op, resolve, reject });
      this.socket.write(frame);
    });
  }

  /** Sends Tflush. A request without a reply before Rflush rejects with EINTR: none can follow (flush(5)). */
  async flush(oldtag: number): Promise<void> {
    const flushed = this.#waiting.get(oldtag);
    await this.request('flush', { oldtag });
    // If the request was answered, another may use its tag by now.
    if (!flushed || this.#waiting.get(oldtag) !== flushed) return;
    this.#waiting.delete(oldtag);
    flushed.reject(EINTR);
  }

  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  async close(): Promise<void> {
    this.socket.end();
    this.socket.destroy();
    await this.closed;
  }
}
