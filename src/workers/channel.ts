import { EAGAIN, EPROTO } from '#base/errno.ts';
import type { Peer } from '#base/peer.ts';
import { watchFd } from '#host/epoll.ts';
import { closeFd } from '#host/fd.ts';
import { receiveMessage, sendMessage } from '#host/message.ts';

/** A connection for a worker. Its socket is passed with the message. */
export interface Handoff {
  /** Index of the endpoint on the command line. */
  readonly endpoint: number;
  readonly peer: Peer;
  /** Whether it counts as a connection of the server; vhost-user connections do not. */
  readonly counted: boolean;
}

/** Report of a worker: the problems that keep it from starting, or how many of its connections have ended; 0 once it is ready. */
export type Report = { readonly problems: readonly string[] } | { readonly ended: number };

/** `send` returns false for a larger message. */
const messageBytesMax = 64 * 1024;
const messagesPerCallbackMax = 64;

/** One end of the socket pair between main process and worker. Messages arrive complete and in order, or not at all. */
export class Channel<Sent, Received> {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(messageBytesMax);
  readonly #received: (message: Received | undefined, descriptors: number[]) => void;
  readonly #ended: () => void;
  #unwatch: (() => void) | undefined;

  /**
   * Takes ownership of a SOCK_SEQPACKET socket. `received` gets each message and owns its descriptors; undefined is a message
   * whose descriptors were lost since this process has no free ones. `ended` is called once, when the other end is closed.
   */
  constructor(
    fd: number,
    received: (message: Received | undefined, descriptors: number[]) => void,
    ended: () => void = () => undefined,
  ) {
    this.#fd = fd;
    this.#received = received;
    this.#ended = ended;
    this.#unwatch = watchFd(fd, () => this.#readable());
  }

  /** False if the other end is closed, its buffer is full, or the message is too large. */
  send(message: Sent, descriptors: readonly number[] = []): boolean {
    if (!this.#unwatch) return false;
    const bytes = Buffer.from(JSON.stringify(message));
    return bytes.length <= messageBytesMax && sendMessage(this.#fd, bytes, descriptors) === bytes.length;
  }

  close(): void {
    if (!this.#unwatch) return;
    this.#unwatch();
    this.#unwatch = undefined;
    closeFd(this.#fd);
  }

  #readable(): void {
    for (let i = 0; i < messagesPerCallbackMax && this.#unwatch; i++) {
      const descriptors: number[] = [];
      const got = receiveMessage(this.#fd, this.#buffer, descriptors);
      if (got === -EAGAIN.code) return;
      if (got === -EPROTO.code) {
        for (const fd of descriptors) closeFd(fd);
        this.#received(undefined, []);
        continue;
      }
      if (got <= 0) {
        // ECONNRESET: the other end was closed with unread data, unix(7).
        this.close();
        this.#ended();
        return;
      }
      this.#received(JSON.parse(this.#buffer.toString('utf8', 0, got)) as Received, descriptors);
    }
  }
}
