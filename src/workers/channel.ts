import { EAGAIN, EPROTO } from '#base/errno.ts';
import type { Peer } from '#base/peer.ts';
import { watchFd } from '#host/epoll.ts';
import { closeFd } from '#host/fd.ts';
import { receiveMessage, sendMessage } from '#host/message.ts';

/** A connection for a worker. Its socket is passed with the message. */
export interface Handoff {
  /** Index of the endpoint in the worker's settings. */
  readonly endpoint: number;
  readonly peer: Peer;
}

/** A part of the worker's settings, which may be larger than a message. Parts come first, in order. */
export interface SettingsPart {
  readonly settings: string;
  readonly last: boolean;
}

/** Report of a worker: the problems that keep it from starting, or how many of its connections have ended; 0 once it is ready. */
export type Report = { readonly problems: readonly string[] } | { readonly ended: number };

/** `send` returns false for a larger message. */
const messageBytesMax = 64 * 1024;
const messagesPerCallbackMax = 64;
/** Characters of a part; JSON takes at most six bytes for each. */
const settingsPartMax = 8 * 1024;

/** A report as a worker may send it: a worker may have been taken over by its guest. Undefined if it is none. */
export function reportOf(message: unknown): Report | undefined {
  if (typeof message !== 'object' || message === null) return undefined;
  const { ended, problems } = message as Record<string, unknown>;
  if (Number.isSafeInteger(ended) && (ended as number) >= 0) return { ended: ended as number };
  if (Array.isArray(problems) && problems.every(text => typeof text === 'string')) return { problems };
  return undefined;
}

/** One end of the socket pair between main process and worker. Messages arrive complete and in order, or not at all. */
export class Channel<Sent> {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(messageBytesMax);
  readonly #received: (message: unknown, descriptors: number[]) => void;
  readonly #ended: () => void;
  #unwatch: (() => void) | undefined;

  /**
   * Takes ownership of a SOCK_SEQPACKET socket. `received` gets each message and owns its descriptors; undefined is a message
   * whose descriptors were lost since this process has no free ones, null one that is no JSON. `ended` is called once, when the
   * other end is closed.
   */
  constructor(
    fd: number,
    received: (message: unknown, descriptors: number[]) => void,
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
      this.#received(parsed(this.#buffer.toString('utf8', 0, got)), descriptors);
    }
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Splits settings into messages. */
export function settingsParts(settings: unknown): SettingsPart[] {
  const text = JSON.stringify(settings);
  const parts: SettingsPart[] = [];
  for (let at = 0; at < text.length; at += settingsPartMax) {
    parts.push({ settings: text.slice(at, at + settingsPartMax), last: at + settingsPartMax >= text.length });
  }
  return parts;
}
