import { Socket, type SocketConstructorOpts } from 'node:net';
import type { Peer } from '#base/peer.ts';
import { sliceMs, TimeSlice } from '#quota/time-slice.ts';
import type { SessionPort, TransportPort } from '#session/exchange.ts';
import { busyPoll } from './busy-poll.ts';
import { InlineExchange } from './exchange.ts';
import { FrameBuffer, FramingError } from './frame-buffer.ts';
import { SendQueue } from './send-queue.ts';

/** A connection before it is one: a libuv handle that was accepted, or a descriptor. */
export type Source = { readonly handle: object } | { readonly fd: number };

/** How many requests are answered between two looks at the clock. */
const requestsPerLook = 16;
/** How long a peer may take for its last replies, when no further ones will come. */
const closeMsMax = 5000;
/** How often a peer that has ended its side is looked at, while it waits for replies: it may be gone altogether. */
const lookMs = 1000;
/** After this long without a word the kernel asks a peer whether it lives: what a dead guest locked is freed. */
const keepAliveMs = 30_000;

type State = 'open' | 'finishing' | 'closed';

/**
 * A connection that carries messages one after another: TCP, a Unix socket. Requests are answered in their turn where the
 * session can, and all replies of a turn leave in one write. While a peer does not take its replies, or has too many
 * requests running, nothing more is read from it.
 */
export class Stream {
  readonly #socket: Socket;
  readonly #line: TransportPort;
  readonly #session: SessionPort;
  readonly #frames = new FrameBuffer();
  readonly #sendQueue: SendQueue;
  readonly #exchange: InlineExchange;
  readonly #closed: Promise<void>;
  #state: State = 'open';
  readonly #timeSlice: TimeSlice;
  readonly #busyPollMs: number;
  #waitsForSlice = false;
  readonly #goOn = (): void => {
    this.#waitsForSlice = false;
    this.#resume();
  };
  #pumping = false;
  #paused = false;
  #resuming = false;
  #closeTimer: NodeJS.Timeout | undefined;
  #looking: NodeJS.Timeout | undefined;

  /**
   * `open` makes the session. `log` is told why a connection is closed by this side. `turns` are the peer's. For `busyPoll`
   * microseconds after a request the process does not go to sleep.
   */
  constructor(
    source: Source,
    peer: Peer,
    open: (line: TransportPort) => SessionPort,
    log: (text: string) => void,
    turns = new TimeSlice(),
    busyPoll = 0,
  ) {
    this.#timeSlice = turns;
    this.#busyPollMs = busyPoll / 1000;
    const frames = this.#frames;
    const socket = new Socket({
      ...source,
      readable: true,
      writable: true,
      // A peer that has sent its last request may still wait for replies.
      allowHalfOpen: true,
      onread: { buffer: () => frames.room(), callback: (count: number) => this.#arrived(count) },
    } as unknown as SocketConstructorOpts);
    this.#socket = socket;
    this.#sendQueue = new SendQueue(socket, () => this.#resumeSoon());
    this.#exchange = new InlineExchange(this.#sendQueue, bytes => this.#session.account(bytes));
    const line: TransportPort = {
      peer,
      hangUp: reason => {
        log(`${peer.label}: ${reason}; the connection is closed`);
        this.#hangUp();
      },
      resume: () => this.#resumeSoon(),
    };
    this.#session = open(line);
    this.#line = line;
    // What keeps a connection from working also ends it, and `close` always follows.
    socket.on('error', () => undefined);
    socket.on('end', () => void this.#peerEnded());
    this.#closed = new Promise(resolve => socket.on('close', resolve)).then(() => this.#end());
    socket.setNoDelay(true);
    socket.setKeepAlive(true, keepAliveMs);
    socket.resume();
  }

  /** Resolves when the connection is gone and its session closed. */
  get closed(): Promise<void> {
    return this.#closed;
  }

  /** Reads no more requests, lets those that run be answered, but for locks that wait, and closes. */
  async finish(): Promise<void> {
    if (this.#state === 'open') this.#state = 'finishing';
    this.#socket.pause();
    await this.#session.finish();
    this.#endAfterReplies();
  }

  /** The peer sends no more. What it has asked for is answered, however long that takes. */
  async #peerEnded(): Promise<void> {
    if (this.#state !== 'open') return;
    this.#state = 'finishing';
    this.#looking = setInterval(() => {
      if (this.#sendQueue.peerIsGone) this.#socket.destroy();
    }, lookMs);
    await this.#session.finish(true);
    this.#endAfterReplies();
  }

  /** Closes at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  #hangUp(): void {
    if (this.#state === 'closed') return;
    this.#state = 'finishing';
    this.#socket.pause();
    this.#endAfterReplies();
  }

  #endAfterReplies(): void {
    if (this.#state === 'closed' || this.#closeTimer) return;
    this.#closeTimer = setTimeout(() => this.#socket.destroy(), closeMsMax);
    this.#sendQueue.flush();
    this.#socket.end(() => this.#socket.destroy());
  }

  async #end(): Promise<void> {
    this.#state = 'closed';
    clearTimeout(this.#closeTimer);
    clearInterval(this.#looking);
    this.#sendQueue.close();
    await this.#session.close();
  }

  /** False makes Node read no more until `resume`. */
  #arrived(count: number): boolean {
    this.#frames.arrived(count);
    return this.#pump();
  }

  /** In a later turn, since whoever says that there is room again is in the middle of something. */
  #resumeSoon(): void {
    if (!this.#paused || this.#resuming) return;
    this.#resuming = true;
    setImmediate(() => {
      this.#resuming = false;
      this.#resume();
    });
  }

  #resume(): void {
    if (!this.#paused || this.#state !== 'open') return;
    if (this.#pump()) this.#socket.resume();
  }

  /** Hands over the frames that are there. False when some must wait. */
  #pump(): boolean {
    if (this.#pumping || this.#state !== 'open') return false;
    if (this.#mustWaitForSlice()) return false;
    const frames = this.#frames;
    this.#pumping = true;
    this.#sendQueue.gather();
    const began = performance.now();
    let untilLook = requestsPerLook;
    let over = false;
    try {
      for (;;) {
        this.#paused = this.#mustWait();
        if (this.#paused) break;
        if (!frames.next(this.#session.frameBytesMax)) break;
        this.#session.receive(this.#exchange.begin(frames.bytes, frames.from, frames.to));
        if (this.#state !== 'open') break;
        if (--untilLook > 0) continue;
        untilLook = requestsPerLook;
        over = performance.now() - began > sliceMs;
        if (over) break;
      }
    } catch (error) {
      if (!(error instanceof FramingError)) throw error;
      this.#line.hangUp(error.message);
    } finally {
      this.#pumping = false;
      this.#sendQueue.flush();
      frames.forget();
      this.#timeSlice.spend(performance.now() - began);
      if (this.#busyPollMs > 0) busyPoll(this.#busyPollMs);
    }
    if (over) this.#mustWaitForSlice();
    return this.#state === 'open' && !this.#paused;
  }

  /** Whether the peer has had its turn; goes on in the next one. */
  #mustWaitForSlice(): boolean {
    if (this.#waitsForSlice) return true;
    this.#waitsForSlice = this.#timeSlice.mustWait(this.#goOn);
    if (this.#waitsForSlice) this.#paused = true;
    return this.#waitsForSlice;
  }

  /** What is not there yet need not wait. */
  #mustWait(): boolean {
    const type = this.#frames.nextType;
    return type >= 0 && !this.#session.takes(type, this.#sendQueue.waiting);
  }
}
