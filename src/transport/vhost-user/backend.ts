import type { Logger } from '#base/log.ts';
import type { Peer } from '#base/peer.ts';
import { watchFd } from '#host/epoll.ts';
import { closeFd, kindOfDescriptor } from '#host/fd.ts';
import { Device, type OpenSession } from './device.ts';
import type { RegionLayout } from './memory.ts';
import {
  feature,
  offeredFeatures,
  offeredProtocolFeatures,
  protocolFeature,
  readAddress,
  request,
  u64,
  VhostUserError,
} from './messages.ts';
import type { RingLayout } from './ring.ts';
import { VirtioError } from './virtio-error.ts';
import type { Windows } from './windows.ts';

type Result = Buffer | undefined;

export interface RequestHandler {
  /** Size of the payload; the minimum if `more`. */
  readonly bytes: number;
  readonly more?: true;
  /**
   * Returns the payload of the reply, if any. Removes the descriptors that it keeps from `descriptors`; the caller closes
   * the rest.
   */
  run(payload: Buffer, descriptors: number[]): Result | Promise<Result>;
}

export interface BackendOptions {
  /** The configuration space: the mount tag with its length. */
  readonly config: Buffer;
  /** How to configure the monitor for a configuration space of that size. */
  readonly configHint: string;
  readonly open: OpenSession;
  /** Microseconds. */
  readonly busyPoll: number;
  readonly windows: Windows;
  readonly log: Logger;
}

/** The virtqueue as the monitor has described it since it was last stopped. */
interface RingState {
  readonly size?: number;
  readonly addresses?: readonly [descriptors: number, used: number, available: number];
  readonly next?: number;
}

const regionBytes = 32;
const tableRegionsMax = 8;
/** QEMU's limit of hotplugged regions. */
const memorySlots = 509;
const ringSizeMax = 1024;
const configBytesMax = 256;
const configHeaderBytes = 12;
const noDescriptor = 0x100;
const NEEDS_RESET = 0x40;

/** The vhost-user requests (QEMU's docs/interop/vhost-user.rst), applied to a device. They may come in any order. */
export class Backend {
  readonly peer: Peer;
  readonly device: Device;
  readonly handlers = this.#makeHandlers();

  readonly #options: BackendOptions;
  #features = 0n;
  #protocolFeatures = 0n;
  #status = 0;
  #ring: RingState = {};
  #enabled: boolean | undefined;
  #kick: { readonly descriptor: number; readonly unwatch: () => void } | undefined;
  #configWarned = false;
  /** End of the part of the configuration space that was last read from its start. */
  #configRead = 0;
  /** Where requests to the monitor would go. */
  #requestDescriptor: number | undefined;

  constructor(peer: Peer, options: BackendOptions) {
    this.peer = peer;
    this.#options = options;
    this.device = new Device(peer, options);
  }

  get acknowledges(): boolean {
    return (this.#protocolFeatures & protocolFeature.replyAck) !== 0n;
  }

  /** Releases everything. Resolves when the session is closed. */
  close(): Promise<void> {
    this.#dropKick();
    this.#setCall(undefined);
    this.#setError(undefined);
    this.#setRequests(undefined);
    return this.device.close();
  }

  #makeHandlers(): Map<number, RequestHandler> {
    return new Map<number, RequestHandler>([
      [request.getFeatures, { bytes: 0, run: () => u64(offeredFeatures) }],
      [request.setFeatures, { bytes: 8, run: payload => this.#setFeatures(payload.readBigUInt64LE()) }],
      [request.getProtocolFeatures, { bytes: 0, run: () => u64(offeredProtocolFeatures) }],
      [
        request.setProtocolFeatures,
        { bytes: 8, run: payload => this.#setProtocolFeatures(payload.readBigUInt64LE()) },
      ],
      [request.getQueueNum, { bytes: 0, run: () => u64(1) }],
      [request.setOwner, { bytes: 0, run: () => undefined }],
      [request.resetOwner, { bytes: 0, run: () => this.#reset() }],
      [request.resetDevice, { bytes: 0, run: () => this.#reset() }],
      [request.setStatus, { bytes: 8, run: payload => this.#setStatus(payload.readUInt8()) }],
      [request.getStatus, { bytes: 0, run: () => this.#getStatus() }],
      [request.getConfig, { bytes: configHeaderBytes, more: true, run: payload => this.#getConfig(payload) }],
      // Ignored: virtio 1.2 has no field that a 9p driver may write.
      [request.setConfig, { bytes: configHeaderBytes, more: true, run: () => undefined }],
      [request.setMemTable, { bytes: 8, more: true, run: (payload, fds) => this.#setMemTable(payload, fds) }],
      [request.getMaxMemSlots, { bytes: 0, run: () => u64(memorySlots) }],
      [
        request.addMemReg,
        { bytes: 8 + regionBytes, run: (payload, fds) => this.#addRegion(readRegion(payload, 8), fds) },
      ],
      [
        request.remMemReg,
        { bytes: 8 + regionBytes, run: payload => this.#removeRegion(readRegion(payload, 8)) },
      ],
      [request.setVringNum, { bytes: 8, run: payload => this.#setRing({ size: readState(payload) }) }],
      [request.setVringBase, { bytes: 8, run: payload => this.#setRing({ next: readState(payload) }) }],
      [
        request.setVringAddr,
        { bytes: 40, run: payload => this.#setRing({ addresses: readAddresses(payload) }) },
      ],
      [request.getVringBase, { bytes: 8, run: payload => this.#getVringBase(payload) }],
      [request.setVringEnable, { bytes: 8, run: payload => this.#enable(readState(payload) !== 0) }],
      [
        request.setVringKick,
        { bytes: 8, run: (payload, fds) => this.#setKick(takeDescriptor(payload, fds)) },
      ],
      [
        request.setVringCall,
        { bytes: 8, run: (payload, fds) => this.#setCall(takeDescriptor(payload, fds)) },
      ],
      [request.setBackendReqFd, { bytes: 0, run: (_, fds) => this.#setRequests(fds.shift()) }],
      [
        request.setVringErr,
        { bytes: 8, run: (payload, fds) => this.#setError(takeDescriptor(payload, fds)) },
      ],
    ]);
  }

  #setFeatures(features: bigint): undefined {
    const unknown = features & ~offeredFeatures;
    if (unknown !== 0n) throw new VhostUserError(`features 0x${unknown.toString(16)}, which are not offered`);
    this.#features = features;
    this.#startIfReady();
  }

  #setProtocolFeatures(features: bigint): undefined {
    const unknown = features & ~offeredProtocolFeatures;
    if (unknown !== 0n)
      throw new VhostUserError(`protocol features 0x${unknown.toString(16)}, which are not offered`);
    this.#protocolFeatures = features;
    this.#warnWithoutConfig();
  }

  #warnWithoutConfig(): void {
    if (this.#protocolFeatures & protocolFeature.config) return;
    this.#warnOnce('the monitor does not ask for the configuration space, so the guest cannot learn the tag');
  }

  /** Warns that the guest does not get the mount tag: once, though a monitor asks several times. */
  #warnOnce(text: string): void {
    if (this.#configWarned) return;
    this.#configWarned = true;
    this.#options.log.warn(`${this.peer.label}: ${text}: ${this.#options.configHint}`);
  }

  async #reset(): Promise<undefined> {
    this.#dropKick();
    this.#status = 0;
    await this.device.reset();
  }

  /** QEMU writes 0 also when it only pauses the guest, so the session is kept until the queue is started again. */
  async #setStatus(status: number): Promise<undefined> {
    this.#status = status & ~NEEDS_RESET;
    if (status !== 0) return;
    this.#dropKick();
    await this.device.stop();
  }

  #getStatus(): Buffer {
    return u64(this.#status | (this.device.broken ? NEEDS_RESET : 0));
  }

  /**
   * QEMU requests the whole configured space, other monitors the bytes that the guest reads; virtio_uml requests all up to the last
   * of them, so that each part is a little longer than the one before.
   */
  #getConfig(payload: Buffer): Buffer {
    const { config } = this.#options;
    const offset = payload.readUInt32LE(0);
    const size = payload.readUInt32LE(4);
    if (size > configBytesMax || offset > configBytesMax || payload.length !== configHeaderBytes + size) {
      throw new VhostUserError(`a configuration space of ${offset + size} bytes`);
    }
    const inPieces = this.#configRead > 0 && size > this.#configRead;
    if (offset === 0 && size > 2 && size < config.length && !inPieces) {
      this.#warnOnce(`the tag does not fit into a configuration space of ${size} bytes`);
      return Buffer.alloc(0);
    }
    if (offset === 0) this.#configRead = size;
    payload.fill(0, configHeaderBytes);
    config.copy(payload, configHeaderBytes, Math.min(offset, config.length), offset + size);
    return payload;
  }

  /** The table may have room for more regions than it has: virtio_uml's is always of two. */
  #setMemTable(payload: Buffer, descriptors: readonly number[]): undefined {
    const count = payload.readUInt32LE(0);
    const room = (payload.length - 8) / regionBytes;
    if (!Number.isInteger(room) || count > room || room > tableRegionsMax) {
      throw new VhostUserError(`a memory table of ${count} regions in ${payload.length} bytes`);
    }
    if (descriptors.length !== count) {
      throw new VhostUserError(`a memory table of ${count} regions with ${descriptors.length} descriptors`);
    }
    const layouts = Array.from({ length: count }, (_, i) => readRegion(payload, 8 + i * regionBytes));
    this.device.memory.setTable(layouts, descriptors);
    this.#memoryChanged();
  }

  #addRegion(layout: RegionLayout, descriptors: readonly number[]): undefined {
    const { memory } = this.device;
    if (descriptors.length !== 1)
      throw new VhostUserError(`a memory region with ${descriptors.length} descriptors`);
    if (memory.regionCount >= memorySlots)
      throw new VhostUserError(`more than ${memorySlots} memory regions`);
    memory.add(layout, descriptors[0]!);
    this.#memoryChanged();
  }

  #removeRegion(layout: RegionLayout): undefined {
    this.device.memory.remove(layout);
    this.#memoryChanged(true);
  }

  #memoryChanged(mayReturn = false): void {
    this.device.memoryChanged(mayReturn);
    this.#startIfReady();
  }

  /** Stores part of the queue's description, which must not change while the queue runs. */
  #setRing(change: RingState): undefined {
    const { size, next } = change;
    if (next !== undefined && next > 0xffff) throw new VhostUserError(`index ${next} in a virtqueue`);
    if (size !== undefined && (size === 0 || size > ringSizeMax || (size & (size - 1)) !== 0)) {
      throw new VhostUserError(
        `a virtqueue of ${size} descriptors: a power of two up to ${ringSizeMax} is needed (vq_size)`,
      );
    }
    const before = this.#ring;
    this.#ring = { ...before, ...change };
    if (this.device.running && JSON.stringify(before) !== JSON.stringify(this.#ring)) {
      throw new VhostUserError('a running virtqueue is moved');
    }
    this.#startIfReady();
  }

  async #getVringBase(payload: Buffer): Promise<Buffer> {
    onlyQueue(payload.readUInt32LE(0));
    this.#dropKick();
    const { next: _, ...kept } = this.#ring;
    this.#ring = kept;
    const next = await this.device.stop();
    const state = Buffer.alloc(8);
    state.writeUInt32LE(next, 4);
    return state;
  }

  #enable(enabled: boolean): undefined {
    this.#enabled = enabled;
    this.#startIfReady();
    this.device.enable(enabled);
  }

  #setKick(descriptor: number | undefined): undefined {
    this.#dropKick();
    if (descriptor === undefined) throw new VhostUserError('a virtqueue without a kick descriptor');
    try {
      this.#kick = { descriptor, unwatch: watchFd(descriptor, () => this.#kicked(), true) };
    } catch (error) {
      closeFd(descriptor);
      throw error;
    }
    this.#startIfReady();
  }

  #dropKick(): void {
    if (!this.#kick) return;
    this.#kick.unwatch();
    closeFd(this.#kick.descriptor);
    this.#kick = undefined;
  }

  #setCall(descriptor: number | undefined): undefined {
    const { device } = this;
    if (device.callDescriptor !== undefined) closeFd(device.callDescriptor);
    device.callDescriptor = descriptor;
    // A signal to the previous descriptor may have been missed.
    if (device.running) device.interrupt();
  }

  #setError(descriptor: number | undefined): undefined {
    const { device } = this;
    if (device.errorDescriptor !== undefined) closeFd(device.errorDescriptor);
    device.errorDescriptor = descriptor;
  }

  #setRequests(descriptor: number | undefined): undefined {
    if (this.#requestDescriptor !== undefined) closeFd(this.#requestDescriptor);
    this.#requestDescriptor = descriptor;
  }

  #kicked(): void {
    const error = this.#start(this.#ring.next ?? 0);
    if (error !== undefined) this.device.fail(error);
    this.device.serve();
  }

  /**
   * Starts the queue once it is completely described. A part of it that lies outside of the shared memory is no error until
   * the guest kicks, since its region may still be added.
   */
  #startIfReady(): void {
    const { next } = this.#ring;
    if (next !== undefined) this.#start(next);
  }

  /** Starts the queue if it is stopped, enabled and described. Returns an error text if that fails. */
  #start(next: number): string | undefined {
    const { device } = this;
    const { size, addresses } = this.#ring;
    const enabled = this.#enabled ?? (this.#features & feature.protocolFeatures) === 0n;
    if (device.running || device.broken || !enabled) return undefined;
    if (size === undefined || addresses === undefined || !this.#kick) return undefined;
    const [descriptors, used, available] = addresses.map(address => device.memory.guestAddressOf(address));
    if (descriptors === undefined || used === undefined || available === undefined) {
      return (
        'the virtqueue lies outside of the memory that the monitor shares; share all of it ' +
        '(QEMU: -object memory-backend-memfd,share=on and -machine memory-backend=)'
      );
    }
    const indirect = (this.#features & feature.indirect) !== 0n;
    const eventIndex = (this.#features & feature.eventIndex) !== 0n;
    const layout: RingLayout = { size, descriptors, used, available, indirect, eventIndex };
    try {
      device.start(layout, next);
    } catch (error) {
      if (error instanceof VirtioError) return error.message;
      throw error;
    }
    this.#warnWithoutConfig();
    device.enable(true);
    return undefined;
  }
}

function readRegion(payload: Buffer, at: number): RegionLayout {
  return {
    guestAddress: readAddress(payload, at),
    bytes: readAddress(payload, at + 8),
    monitorAddress: readAddress(payload, at + 16),
    fileOffset: readAddress(payload, at + 24),
  };
}

function onlyQueue(index: number): void {
  if (index !== 0) throw new VhostUserError(`virtqueue ${index}: a 9p device has one (QEMU: num_vqs=1)`);
}

function readState(payload: Buffer): number {
  onlyQueue(payload.readUInt32LE(0));
  return payload.readUInt32LE(4);
}

/** Descriptor table, used ring and available ring, in the order of the message. */
function readAddresses(payload: Buffer): readonly [number, number, number] {
  onlyQueue(payload.readUInt32LE(0));
  return [readAddress(payload, 8), readAddress(payload, 16), readAddress(payload, 24)];
}

function takeDescriptor(payload: Buffer, descriptors: number[]): number | undefined {
  const value = payload.readUInt32LE(0);
  onlyQueue(value & 0xff);
  if (value & noDescriptor) return undefined;
  const [descriptor] = descriptors;
  if (descriptor === undefined) throw new VhostUserError('a descriptor is announced but not passed');
  if (kindOfDescriptor(descriptor) !== 'event')
    throw new VhostUserError('what signals a virtqueue is no eventfd and no pipe');
  descriptors.shift();
  return descriptor;
}
