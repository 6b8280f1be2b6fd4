import { endianness } from 'node:os';
import type { Logger } from '#base/log.ts';
import type { Peer } from '#base/peer.ts';
import { closeFd, dupCloexec } from '#host/fd.ts';
import type { Source } from '../stream.ts';
import { Connection } from './connection.ts';
import type { OpenSession } from './device.ts';
import { configOf } from './tag.ts';
import { Windows } from './windows.ts';

interface VhostUserListenerOptions {
  /** Path of the socket, for log lines. */
  readonly path: string;
  /** The mount tag. */
  readonly tag: string;
  /** Microseconds for which the virtqueue is polled after a request. */
  readonly busyPoll?: number;
}

/** A vhost-user socket with its one device, which serves one monitor at a time. */
export class VhostUserListener {
  readonly #options: VhostUserListenerOptions;
  readonly #open: OpenSession;
  readonly #log: Logger;
  readonly #windows = new Windows();
  readonly #connectionEnded: () => void;
  #connection: Connection | undefined;

  /** `connectionEnded` is called after each accepted connection, refused ones included. */
  constructor(
    options: VhostUserListenerOptions,
    open: OpenSession,
    log: Logger,
    connectionEnded: () => void = () => undefined,
  ) {
    if (endianness() !== 'LE') throw new Error('vhost-user needs a little-endian host');
    this.#options = options;
    this.#open = open;
    this.#log = log;
    this.#connectionEnded = connectionEnded;
  }

  /** Whether a monitor is connected. */
  get connected(): boolean {
    return this.#connection !== undefined;
  }

  /** Serves a monitor; refuses it if there is one already. */
  accept(source: Source, from: Peer): void {
    const descriptor = takeDescriptor(source);
    const peer = { ...from, label: `vhost-user ${this.#options.path} ${from.label.replace(/^unix /, '')}` };
    // The previous monitor's disconnect may not have been read yet.
    this.#connection?.poll();
    if (this.#connection) {
      this.#log.warn(
        `${peer.label}: refused: the socket already serves ${this.#connection.peer.label}; ` +
          'give each guest a --listen of its own',
      );
      closeFd(descriptor);
      this.#connectionEnded();
      return;
    }
    const config = configOf(this.#options.tag);
    this.#log.info(`${peer.label}: the monitor connected`);
    const connection: Connection = new Connection(descriptor, peer, {
      config,
      configHint: `give the device config_size=${config.length} (QEMU 10.2 or newer: vhost-user-test-device-pci)`,
      open: this.#open,
      busyPoll: this.#options.busyPoll ?? 0,
      windows: this.#windows,
      log: this.#log,
      closed: () => {
        if (this.#connection === connection) this.#connection = undefined;
        this.#connectionEnded();
      },
    });
    this.#connection = connection;
  }

  /** Waits until running requests are answered, and closes the connection. */
  async finish(): Promise<void> {
    await this.#connection?.finish();
  }

  /** Closes the connection at once. */
  async close(): Promise<void> {
    await this.#connection?.close();
  }
}

/** Takes the descriptor of an accepted socket from libuv, which cannot receive passed descriptors. */
function takeDescriptor(source: Source): number {
  if ('fd' in source) return source.fd;
  const handle = source.handle as { readonly fd: number; close(): void };
  const descriptor = dupCloexec(handle.fd);
  handle.close();
  return descriptor;
}
