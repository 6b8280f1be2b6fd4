import { endianness } from 'node:os';
import { duplicate } from '../../host/vhost.ts';
import type { Logger } from '../../log.ts';
import type { Peer } from '../../session/door.ts';
import { Connection } from './connection.ts';
import type { OpenSession } from './device.ts';

export interface FaceOptions {
  /** Of the socket, for texts. */
  readonly path: string;
  /** What the guest mounts. */
  readonly tag: string;
}

/** A tag lies in the configuration space, of which monitors ask for 256 bytes at most, behind its length. */
export const tagBytesMax = 254;

const virtio9p = 9;
const queueSize = 128;

/** Why this tag cannot be, or undefined. */
export function tagFault(tag: string): string | undefined {
  if (tag === '') return 'a tag is needed, which the guest mounts: add ?tag=NAME';
  if (Buffer.byteLength(tag) > tagBytesMax)
    return `the tag is longer than ${tagBytesMax} bytes: choose a shorter one`;
  return tag.includes('\0') || tag.includes(',')
    ? 'the tag has a character that no mount can name'
    : undefined;
}

/** A socket's one device: monitors come and go, one at a time. */
export class VhostUserFace {
  readonly #options: FaceOptions;
  readonly #open: OpenSession;
  readonly #log: Logger;
  #connection: Connection | undefined;

  constructor(options: FaceOptions, open: OpenSession, log: Logger) {
    if (endianness() !== 'LE') throw new Error('vhost-user needs a little-endian host.');
    this.#options = options;
    this.#open = open;
    this.#log = log;
  }

  /** `vhost-user:///run/vm1.sock?tag=share`. */
  get uri(): string {
    const { path, tag } = this.#options;
    return `vhost-user://${path}?tag=${encodeURIComponent(tag)}`;
  }

  /** What to type on either side. */
  get hints(): readonly string[] {
    const { path, tag } = this.#options;
    return [
      'QEMU: -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem ' +
        `-chardev socket,id=ninepd,path=${path} -device vhost-user-test-device-pci,chardev=ninepd,` +
        `virtio-id=${virtio9p},num_vqs=1,vq_size=${queueSize},config_size=${this.#config.length}`,
      `guest: mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 ${tag} /mnt`,
    ];
  }

  /** tag_len[2] tag[tag_len] (virtio 1.2 §5.18.4 calls it config). */
  get #config(): Buffer {
    const tag = Buffer.from(this.#options.tag);
    const config = Buffer.alloc(2 + tag.length);
    config.writeUInt16LE(tag.length, 0);
    tag.copy(config, 2);
    return config;
  }

  /** Serves a monitor on a duplicate of its socket's descriptor, unless there is one already. */
  accept(descriptor: number, from: Peer): void {
    const peer = { label: `vhost-user ${this.#options.path} ${from.label}` };
    // The last one may have ended without our knowing yet.
    this.#connection?.poll();
    if (this.#connection) {
      this.#log.warn(
        `${peer.label}: refused: the socket already serves ${this.#connection.peer.label}; ` +
          'give each guest a --listen of its own',
      );
      return;
    }
    const config = this.#config;
    this.#log.info(`${peer.label}: the monitor is there`);
    const connection: Connection = new Connection(duplicate(descriptor), peer, {
      config,
      configHint: `give the device config_size=${config.length} (QEMU 10.2 or newer: vhost-user-test-device-pci)`,
      open: this.#open,
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
