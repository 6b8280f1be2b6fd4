import { Errno } from '#base/errno.ts';
import type { Peer } from '#base/peer.ts';
import { watchFd } from '#host/epoll.ts';
import { closeOnPool, kindOfDescriptor } from '#host/fd.ts';
import { receiveMessage, sendMessage } from '#host/message.ts';
import { sliceMs } from '#quota/time-slice.ts';
import { Backend, type BackendOptions, type RequestHandler } from './backend.ts';
import {
  type Header,
  nameOfRequest,
  parseHeader,
  payloadBytesMax,
  reply,
  u64,
  VhostUserError,
  vhostHeaderBytes,
} from './messages.ts';

interface ConnectionOptions extends BackendOptions {
  readonly closed: () => void;
}

type Result = Buffer | undefined;

const EAGAIN = 11;
const EPROTO = 71;
/** As many as one message may bring: a byte after byte, each with descriptors, brings no more. */
const descriptorsMax = 16;
const messagesPerCallbackMax = 64;

/** The connection of one monitor. Each request is answered before the next is read. */
export class Connection {
  readonly peer: Peer;
  readonly #descriptor: number;
  readonly #options: ConnectionOptions;
  readonly #backend: Backend;

  readonly #header = Buffer.alloc(vhostHeaderBytes);
  readonly #payload = Buffer.alloc(payloadBytesMax);
  #parsed: Header | undefined;
  #have = 0;
  #descriptors: number[] = [];
  #unwatch: (() => void) | undefined;
  #open = true;

  /** Takes ownership of a connected socket. */
  constructor(descriptor: number, peer: Peer, options: ConnectionOptions) {
    this.#descriptor = descriptor;
    this.peer = peer;
    this.#options = options;
    this.#backend = new Backend(peer, options);
    this.#watch();
  }

  get open(): boolean {
    return this.#open;
  }

  /** Closes the connection. Resolves when the session is closed. */
  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    this.#unwatch?.();
    this.#unwatch = undefined;
    for (const fd of this.#descriptors.splice(0)) closeOnPool(fd);
    // It may hold descriptors that were passed and not received.
    closeOnPool(this.#descriptor);
    this.#options.closed();
    await this.#backend.close();
  }

  /** Stops taking requests from the guest, waits until running ones are answered, and closes. */
  async finish(): Promise<void> {
    await this.#backend.device.finish();
    await this.close();
  }

  /** Reads messages, or notices the monitor's disconnect, now instead of in the next event-loop iteration. */
  poll(): void {
    if (this.#unwatch) this.#readable();
  }

  #watch(): void {
    this.#unwatch = watchFd(this.#descriptor, () => this.#readable());
  }

  #readable(): void {
    const began = performance.now();
    try {
      for (let i = 0; i < messagesPerCallbackMax && this.#unwatch && this.#receive(); i++)
        if (performance.now() - began > sliceMs) break;
    } catch (error) {
      this.#refuse(error);
    }
  }

  /** Reads more of the current message. False when there is nothing to read. */
  #receive(): boolean {
    const target = this.#parsed ? this.#payload.subarray(0, this.#parsed.payloadBytes) : this.#header;
    const known = this.#descriptors.length;
    const got = receiveMessage(this.#descriptor, target.subarray(this.#have), this.#descriptors);
    if (got === -EAGAIN) return false;
    if (got === -EPROTO || this.#descriptors.length > descriptorsMax)
      throw new VhostUserError(`more than ${descriptorsMax} descriptors with a message`);
    // Anything else could hang this process: a file of the monitor's own file system (FUSE) answers when it likes.
    if (this.#descriptors.slice(known).some(fd => kindOfDescriptor(fd) === 'else'))
      throw new VhostUserError(
        'a descriptor that is neither shared memory (memfd, tmpfs or hugetlbfs) nor an eventfd, pipe or socket; ' +
          'QEMU: -object memory-backend-memfd,share=on',
      );
    if (got <= 0) {
      this.#options.log.info(`${this.peer.label}: the monitor disconnected`);
      void this.close();
      return false;
    }
    this.#have += got;
    if (this.#have < target.length) return true;
    this.#have = 0;
    this.#parsed ??= parseHeader(this.#header);
    if (target === this.#header && this.#parsed.payloadBytes > 0) return true;
    this.#handle(this.#parsed);
    return true;
  }

  #handle(header: Header): void {
    this.#parsed = undefined;
    const descriptors = this.#descriptors;
    this.#descriptors = [];
    const payload = Buffer.from(this.#payload.subarray(0, header.payloadBytes));
    let result: Result | Promise<Result>;
    try {
      result = this.#handlerOf(header).run(payload, descriptors);
    } finally {
      for (const fd of descriptors) closeOnPool(fd);
    }
    if (result instanceof Promise) this.#wait(header, result);
    else this.#answer(header, result);
  }

  /** Reads no message until this one is answered. */
  #wait(header: Header, result: Promise<Result>): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
    result
      .then(payload => {
        if (!this.#open) return;
        this.#answer(header, payload);
        this.#watch();
      })
      .catch(error => this.#refuse(error));
  }

  #handlerOf({ request: number, payloadBytes }: Header): RequestHandler {
    const handler = this.#backend.handlers.get(number);
    if (!handler) throw new VhostUserError(`${nameOfRequest(number)}, which is not offered`);
    const fits = handler.more ? payloadBytes >= handler.bytes : payloadBytes === handler.bytes;
    if (!fits) throw new VhostUserError(`${nameOfRequest(number)} of ${payloadBytes} bytes`);
    return handler;
  }

  #answer(header: Header, payload: Result): void {
    const acknowledge = header.needsReply && this.#backend.acknowledges;
    const body = payload ?? (acknowledge ? u64(0) : undefined);
    if (!body) return;
    const message = reply(header.request, body);
    if (sendMessage(this.#descriptor, message) !== message.length) {
      throw new VhostUserError('the monitor does not take its replies');
    }
  }

  #refuse(error: unknown): void {
    if (!(error instanceof VhostUserError || error instanceof Errno)) {
      void this.close();
      // A bug, which is reported as one (unhandledRejection) and ends no other device.
      void Promise.reject(error);
      return;
    }
    if (!this.#open) return;
    const reason = error instanceof Errno ? `${error}` : error.message;
    this.#options.log.warn(`${this.peer.label}: refused: ${reason}; the connection is closed`);
    void this.close();
  }
}
