import { EAGAIN, EPROTO } from '#base/errno.ts';
import type { Peer } from '#base/peer.ts';
import { closeFd, receiveMessage, sendMessage, watchFd } from '#host/vhost.ts';

/** A connection for a worker; its socket comes along. */
export interface Handoff {
  /** Which of the endpoints of the command line it came to. */
  readonly endpoint: number;
  readonly peer: Peer;
  /** Whether it is one of those that a server counts, which those of devices are not. */
  readonly counted: boolean;
}

/** What a worker says: what keeps it from starting, or how many connections it was given that have ended; 0 when it is ready. */
export type Report = { readonly problems: readonly string[] } | { readonly ended: number };

/** No message is larger: faults are cut. */
const messageBytesMax = 64 * 1024;
const messagesPerTurnMax = 64;

/** One end of what connects the first process with a worker. Messages arrive whole, in order, or not at all. */
export class Channel<Sent, Received> {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(messageBytesMax);
  readonly #received: (message: Received | undefined, descriptors: number[]) => void;
  readonly #ended: () => void;
  #unwatch: (() => void) | undefined;

  /**
   * Takes over a socket that keeps messages apart. `received` is given each message and owns its descriptors; undefined
   * stands for one whose descriptors this process had no room for. `ended` is called once, when the other end is closed.
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

  /** False when the other end is gone, or has so much to read that it takes no more now. */
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
    for (let i = 0; i < messagesPerTurnMax && this.#unwatch; i++) {
      const descriptors: number[] = [];
      const got = receiveMessage(this.#fd, this.#buffer, descriptors);
      if (got === -EAGAIN.code) return;
      if (got === -EPROTO.code) {
        this.#received(undefined, []);
        continue;
      }
      if (got <= 0) {
        // ECONNRESET: it was closed with something left unread, unix(7).
        this.close();
        this.#ended();
        return;
      }
      this.#received(JSON.parse(this.#buffer.toString('utf8', 0, got)) as Received, descriptors);
    }
  }
}
