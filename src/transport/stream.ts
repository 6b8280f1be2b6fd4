import { Socket, type SocketConstructorOpts } from 'node:net';
import type { Peer } from '#base/peer.ts';
import { FrameBuffer, FramingError } from '#protocol/frame-buffer.ts';
import { sliceMs, TimeSlice } from '#quota/time-slice.ts';
import type { SessionPort, TransportPort } from '#session/exchange.ts';
import { busyPoll } from './busy-poll.ts';
import { InlineExchange } from './exchange.ts';
import { SendQueue } from './send-queue.ts';

/** What a connection is made from: an accepted libuv handle or a connected descriptor. */
export type Source = { readonly handle: object } | { readonly fd: number };

/** Requests between two readings of the clock. */
const requestsPerClockRead = 16;
/** How long a peer may take to read its last replies, once no further ones will come. */
const closeMsMax = 5000;
/** Interval at which a half-closed peer that waits for replies is checked: it may have disconnected altogether. */
const lookMs = 1000;
/** TCP keep-alive: detects a dead guest, so that its locks are released. */
const keepAliveMs = 30_000;

type State = 'open' | 'finishing' | 'closed';

/**
 * A stream connection: TCP, Unix or vsock. Requests are answered in the event-loop callback that received them where the session
 * can do so, and all replies of a callback leave in one write. Reading pauses while the peer leaves too many replies unread or
 * has too many requests running.
 */
export class Stream {
  readonly #socket: Socket;
  readonly #port: TransportPort;
  readonly #session: SessionPort;
  readonly #frames = new FrameBuffer();
  readonly #sendQueue: SendQueue;
  readonly #exchange: InlineExchange;
  readonly #closed: Promise<void>;
  #state: State = 'open';
  readonly #timeSlice: TimeSlice;
  readonly #busyPollMs: number;
  #waitsForSlice = false;
  readonly #onSlice = (): void => {
    this.#waitsForSlice = false;
    this.#resume();
  };
  #processing = false;
  #paused = false;
  #resuming = false;
  #closeTimer: NodeJS.Timeout | undefined;
  #looking: NodeJS.Timeout | undefined;

  /**
   * `open` creates the session. `log` gets the reason when this side closes the connection. `timeSlice` is shared by the peer's
   * connections. For `busyPoll` microseconds after a request the process polls instead of sleeping.
   */
  constructor(
    source: Source,
    peer: Peer,
    open: (port: TransportPort) => SessionPort,
    log: (text: string) => void,
    timeSlice = new TimeSlice(),
    busyPoll = 0,
  ) {
    this.#timeSlice = timeSlice;
    this.#busyPollMs = busyPoll / 1000;
    const frames = this.#frames;
    const socket = new Socket({
      ...source,
      readable: true,
      writable: true,
      // A peer that has shut down its sending side may still wait for replies.
      allowHalfOpen: true,
      onread: { buffer: () => frames.room(), callback: (count: number) => this.#arrived(count) },
    } as unknown as SocketConstructorOpts);
    this.#socket = socket;
    this.#sendQueue = new SendQueue(socket, () => this.#resumeSoon());
    this.#exchange = new InlineExchange(this.#sendQueue, bytes => this.#session.account(bytes));
    const port: TransportPort = {
      peer,
      hangUp: reason => {
        log(`${peer.label}: ${reason}; the connection is closed`);
        this.#hangUp();
      },
      resume: () => this.#resumeSoon(),
    };
    this.#session = open(port);
    this.#port = port;
    // `close` always follows an error.
    socket.on('error', () => undefined);
    socket.on('end', () => void this.#peerEnded());
    this.#closed = new Promise(resolve => socket.on('close', resolve)).then(() => this.#end());
    socket.setNoDelay(true);
    socket.setKeepAlive(true, keepAliveMs);
    socket.resume();
  }

  /** Resolves when the connection and its session are closed. */
  get closed(): Promise<void> {
    return this.#closed;
  }

  /** Stops reading, waits until running requests are answered (locks that wait aside), and closes. */
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

  /** Returning false makes Node stop reading until `resume`. */
  #arrived(count: number): boolean {
    this.#frames.arrived(count);
    return this.#process();
  }

  /** Resumes in a later callback, since the caller may be in the middle of other work. */
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
    if (this.#process()) this.#socket.resume();
  }

  /** Passes the buffered frames to the session. False when some must wait. */
  #process(): boolean {
    if (this.#processing || this.#state !== 'open') return false;
    if (this.#mustWaitForSlice()) return false;
    const frames = this.#frames;
    this.#processing = true;
    this.#sendQueue.gather();
    const began = performance.now();
    let untilClockRead = requestsPerClockRead;
    let over = false;
    try {
      for (;;) {
        this.#paused = this.#mustWait();
        if (this.#paused) break;
        if (!frames.next(this.#session.frameBytesMax)) break;
        this.#session.receive(this.#exchange.begin(frames.bytes, frames.from, frames.to));
        if (this.#state !== 'open') break;
        if (--untilClockRead > 0) continue;
        untilClockRead = requestsPerClockRead;
        over = performance.now() - began > sliceMs;
        if (over) break;
      }
    } catch (error) {
      if (!(error instanceof FramingError)) throw error;
      this.#port.hangUp(error.message);
    } finally {
      this.#processing = false;
      this.#sendQueue.flush();
      frames.forget();
      this.#timeSlice.spend(performance.now() - began);
      if (this.#busyPollMs > 0) busyPoll(this.#busyPollMs);
    }
    if (over) this.#mustWaitForSlice();
    return this.#state === 'open' && !this.#paused;
  }

  /** Whether the peer has used up its time slice; processing then continues in its next one. */
  #mustWaitForSlice(): boolean {
    if (this.#waitsForSlice) return true;
    this.#waitsForSlice = this.#timeSlice.mustWait(this.#onSlice);
    if (this.#waitsForSlice) this.#paused = true;
    return this.#waitsForSlice;
  }

  /** Whether the session refuses the next frame for now. False when there is none. */
  #mustWait(): boolean {
    const type = this.#frames.nextType;
    return type >= 0 && !this.#session.takes(type, this.#sendQueue.waiting);
  }
}
