import { endianness } from 'node:os';
import type { Logger } from '#base/log.ts';
import type { Peer } from '#base/peer.ts';
import { closeFd, dupCloexec } from '#host/vhost.ts';
import type { Source } from '../stream.ts';
import { Connection } from './connection.ts';
import type { OpenSession } from './device.ts';
import { configOf } from './tag.ts';

export interface VhostUserListenerOptions {
  /** Of the socket, for texts. */
  readonly path: string;
  /** What the guest mounts. */
  readonly tag: string;
  /** Microseconds for which the virtqueue is looked at before the guest has to kick. */
  readonly busyPoll?: number;
}

/** A socket's one device: monitors come and go, one at a time. */
export class VhostUserListener {
  readonly #options: VhostUserListenerOptions;
  readonly #open: OpenSession;
  readonly #log: Logger;
  #connection: Connection | undefined;

  constructor(options: VhostUserListenerOptions, open: OpenSession, log: Logger) {
    if (endianness() !== 'LE') throw new Error('vhost-user needs a little-endian host.');
    this.#options = options;
    this.#open = open;
    this.#log = log;
  }

  /** Serves a monitor, unless there is one already. */
  accept(source: Source, from: Peer): void {
    const descriptor = takeDescriptor(source);
    const peer = { ...from, label: `vhost-user ${this.#options.path} ${from.label.replace(/^unix /, '')}` };
    // The last one may have ended without our knowing yet.
    this.#connection?.poll();
    if (this.#connection) {
      this.#log.warn(
        `${peer.label}: refused: the socket already serves ${this.#connection.peer.label}; ` +
          'give each guest a --listen of its own',
      );
      closeFd(descriptor);
      return;
    }
    const config = configOf(this.#options.tag);
    this.#log.info(`${peer.label}: the monitor is there`);
    const connection: Connection = new Connection(descriptor, peer, {
      config,
      configHint: `give the device config_size=${config.length} (QEMU 10.2 or newer: vhost-user-test-device-pci)`,
      open: this.#open,
      busyPoll: this.#options.busyPoll ?? 0,
      log: this.#log,
      closed: () => {
        if (this.#connection === connection) this.#connection = undefined;
      },
    });
    this.#connection = connection;
  }

  /** Lets running requests be answered, and ends. */
  async finish(): Promise<void> {
    await this.#connection?.finish();
  }

  /** Ends at once. */
  async close(): Promise<void> {
    await this.#connection?.close();
  }
}

/** The descriptor of an accepted socket, taken away from libuv, which cannot receive descriptors through it. */
function takeDescriptor(source: Source): number {
  if ('fd' in source) return source.fd;
  const handle = source.handle as { readonly fd: number; close(): void };
  const descriptor = dupCloexec(handle.fd);
  handle.close();
  return descriptor;
}
