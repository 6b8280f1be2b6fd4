import { closeSync } from 'node:fs';
import { Errno } from '#base/errno.ts';
import { watchFd } from '#host/epoll.ts';
import { signal } from '#host/eventfd.ts';
import { closeFd } from '#host/fd.ts';
import { Mapping } from '#host/mapping.ts';
import { decodeReply, encodeRequest } from '#protocol/codec.ts';
import type { Draft, Op, RMessage, TMessage } from '#protocol/operations.ts';
import { feature, protocolFeature, request } from '#transport/vhost-user/messages.ts';
import { eventfd } from './eventfd.ts';
import { Monitor, memoryFile, type Region, regionBytes, u32, u64, until } from './vhost-monitor.ts';

export { feature, protocolFeature, request } from '#transport/vhost-user/messages.ts';
export { Monitor, memoryFile, regionBytes, u32, u64 } from './vhost-monitor.ts';

export interface Descriptor {
  address: number;
  length: number;
  flags?: number;
  next?: number;
}

export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

export interface FrontendOptions {
  size?: number;
  features?: bigint;
  protocolFeatures?: bigint;
  /** Regions of one file; default: one of 4 MiB. Ring and buffers are in the first. */
  regions?: Region[];
}

const defaultFeatures =
  feature.mountTag | feature.indirect | feature.eventIndex | feature.protocolFeatures | feature.version1;
const defaultProtocol = protocolFeature.replyAck | protocolFeature.config | protocolFeature.memorySlots;

/** A monitor with a guest: memory, one virtqueue, and its driver. */
export class Frontend {
  readonly monitor: Monitor;
  readonly size: number;
  readonly regions: Region[];
  readonly file: number;
  readonly memory: Buffer;
  readonly kickDescriptor = eventfd();
  readonly callDescriptor = eventfd();
  readonly errorDescriptor = eventfd();
  readonly descriptors: number;
  readonly available: number;
  used: number;
  features: bigint;
  protocolFeatures: bigint;
  calls = 0;
  errors = 0;
  #offered = 0;
  #seen = 0;
  readonly #free: number[];
  #arena: number;
  readonly #arenaStart: number;
  readonly #unwatch: (() => void)[];

  constructor(monitor: Monitor, options: FrontendOptions = {}) {
    this.monitor = monitor;
    this.size = options.size ?? 128;
    this.features = options.features ?? defaultFeatures;
    this.protocolFeatures = options.protocolFeatures ?? defaultProtocol;
    this.regions = options.regions ?? [
      { guestAddress: 0x100000, bytes: 4 << 20, monitorAddress: 0x7f00_0000_0000, fileOffset: 0 },
    ];
    const fileBytes = Math.max(...this.regions.map(region => region.fileOffset + region.bytes));
    this.file = memoryFile(fileBytes);
    const mapping = new Mapping(fileBytes, 4096);
    mapping.map(this.file, 0, fileBytes);
    this.memory = Buffer.from(mapping.buffer);
    const base = this.regions[0]!.guestAddress;
    this.descriptors = base;
    this.available = base + 0x8000;
    this.used = base + 0xc000;
    this.#arenaStart = this.#arena = base + 0x10000;
    this.#free = Array.from({ length: this.size }, (_, i) => i);
    this.#unwatch = [
      watchFd(this.callDescriptor, () => void this.calls++, true),
      watchFd(this.errorDescriptor, () => void this.errors++, true),
    ];
  }

  static async connect(path: string, options: FrontendOptions = {}): Promise<Frontend> {
    return new Frontend(await Monitor.connect(path), options);
  }

  close(): void {
    for (const stop of this.#unwatch) stop();
    this.monitor.close();
    for (const fd of [this.kickDescriptor, this.callDescriptor, this.errorDescriptor]) closeFd(fd);
    closeSync(this.file);
  }

  /** Sends all messages until the device runs, in QEMU's order. */
  async start(next = 0): Promise<void> {
    await this.negotiate();
    await this.shareMemory();
    await this.startRing(next);
  }

  async negotiate(): Promise<void> {
    const { monitor } = this;
    await monitor.ask(request.getFeatures);
    await monitor.ask(request.getProtocolFeatures);
    monitor.tell(request.setProtocolFeatures, u64(this.protocolFeatures));
    monitor.tell(request.setOwner);
    await monitor.order(request.setFeatures, u64(this.features));
  }

  async shareMemory(): Promise<void> {
    for (const region of this.regions) await this.addRegion(region);
  }

  async addRegion(region: Region, file = this.file): Promise<void> {
    await this.monitor.order(request.addMemReg, Buffer.concat([u64(0), regionBytes(region)]), [file]);
  }

  /** Translates a guest address to a monitor address. */
  monitorAddress(address: number): number {
    const region = this.regions.find(
      one => address >= one.guestAddress && address < one.guestAddress + one.bytes,
    )!;
    return region.monitorAddress + address - region.guestAddress;
  }

  ringAddresses(): Buffer {
    const [descriptors, used, available] = [this.descriptors, this.used, this.available].map(address =>
      this.monitorAddress(address),
    );
    return Buffer.concat([u32(0, 0), u64(descriptors!, used!, available!, 0)]);
  }

  async startRing(next = 0): Promise<void> {
    const { monitor } = this;
    await monitor.order(request.setVringNum, u32(0, this.size));
    await monitor.order(request.setVringBase, u32(0, next));
    await monitor.order(request.setVringAddr, this.ringAddresses());
    await monitor.order(request.setVringErr, u64(0), [this.errorDescriptor]);
    await monitor.order(request.setVringCall, u64(0), [this.callDescriptor]);
    await monitor.order(request.setVringKick, u64(0), [this.kickDescriptor]);
    await monitor.order(request.setVringEnable, u32(0, 1));
  }

  /** Stops the device; returns its next index. */
  async stopRing(): Promise<number> {
    return (await this.monitor.ask(request.getVringBase, u32(0, 0))).readUInt32LE(4);
  }

  /** As after a reboot of the guest: zeroed rings and a new driver. */
  forget(): void {
    const at = this.at(this.descriptors);
    this.memory.fill(0, at, at + 0x10000);
    this.#offered = this.#seen = 0;
    this.reclaim();
    this.#arena = this.#arenaStart;
  }

  /** Free descriptors. */
  get spare(): number {
    return this.#free.length;
  }

  /** Marks all descriptors as free. */
  reclaim(): void {
    this.#free.splice(0, this.#free.length, ...Array.from({ length: this.size }, (_, i) => i));
  }

  /** File offset of a guest address. */
  at(address: number): number {
    const region = this.regions.find(
      one => address >= one.guestAddress && address < one.guestAddress + one.bytes,
    );
    if (!region) throw new Error(`0x${address.toString(16)} is no memory`);
    return region.fileOffset + address - region.guestAddress;
  }

  write(address: number, bytes: Uint8Array): void {
    this.memory.set(bytes, this.at(address));
  }

  read(address: number, bytes: number): Buffer {
    const at = this.at(address);
    return Buffer.from(this.memory.subarray(at, at + bytes));
  }

  /** Allocates a buffer; wraps around. */
  room(bytes: number): number {
    const { guestAddress, bytes: all } = this.regions[0]!;
    if (this.#arena + bytes > guestAddress + all) this.#arena = this.#arenaStart;
    const address = this.#arena;
    this.#arena += (bytes + 63) & ~63;
    return address;
  }

  put(bytes: Uint8Array): number {
    const address = this.room(bytes.length);
    this.write(address, bytes);
    return address;
  }

  encode({ address, length, flags = 0, next = 0 }: Descriptor): Buffer {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(BigInt(address), 0);
    bytes.writeUInt32LE(length, 8);
    bytes.writeUInt16LE(flags, 12);
    bytes.writeUInt16LE(next, 14);
    return bytes;
  }

  describe(index: number, descriptor: Descriptor): void {
    this.write(this.descriptors + 16 * index, this.encode(descriptor));
  }

  /** Puts a head into the available ring, which may be invalid. */
  offer(head: number): void {
    const at = this.at(this.available);
    this.memory.writeUInt16LE(head, at + 4 + 2 * (this.#offered % this.size));
    this.#offered = (this.#offered + 1) & 0xffff;
    this.memory.writeUInt16LE(this.#offered, at + 2);
  }

  kick(): void {
    signal(this.kickDescriptor);
  }

  /** Whether the device's event index asks for a kick. */
  get wantsKick(): boolean {
    const event = this.memory.readUInt16LE(this.at(this.used) + 4 + 8 * this.size);
    return event === ((this.#offered - 1) & 0xffff);
  }

  /** Requests a call after the next used element. */
  #wantCall(): void {
    this.memory.writeUInt16LE(this.#seen, this.at(this.available) + 4 + 2 * this.size);
  }

  get usedIndex(): number {
    return this.memory.readUInt16LE(this.at(this.used) + 2);
  }

  /** The new used elements. */
  takeUsed(): { head: number; length: number }[] {
    const taken: { head: number; length: number }[] = [];
    for (; this.#seen !== this.usedIndex; this.#seen = (this.#seen + 1) & 0xffff) {
      const at = this.at(this.used) + 4 + 8 * (this.#seen % this.size);
      taken.push({ head: this.memory.readUInt32LE(at), length: this.memory.readUInt32LE(at + 4) });
    }
    this.#wantCall();
    return taken;
  }

  /** Waits for this number of used elements. */
  async usedOf(count: number): Promise<{ head: number; length: number }[]> {
    const all: { head: number; length: number }[] = [];
    await until(`${count} used buffers`, () => {
      all.push(...this.takeUsed());
      return all.length >= count;
    });
    return all;
  }

  /** Makes a chain of these buffers available, indirect or not. Returns its head. */
  chain(readable: readonly Descriptor[], writable: readonly Descriptor[], indirect = false): number {
    const buffers = [...readable, ...writable.map(one => ({ ...one, flags: WRITE }))];
    const link = (one: Descriptor, i: number, next: number): Descriptor => ({
      ...one,
      flags: (one.flags ?? 0) | (i < buffers.length - 1 ? NEXT : 0),
      next,
    });
    if (indirect) {
      const table = Buffer.concat(buffers.map((one, i) => this.encode(link(one, i, i + 1))));
      const head = this.#free.shift()!;
      this.describe(head, { address: this.put(table), length: table.length, flags: INDIRECT });
      this.offer(head);
      return head;
    }
    const heads = this.#free.splice(0, buffers.length);
    if (heads.length < buffers.length) throw new Error('no descriptors left');
    for (const [i, one] of buffers.entries()) this.describe(heads[i]!, link(one, i, heads[i + 1] ?? 0));
    this.#chains.set(heads[0]!, heads);
    this.offer(heads[0]!);
    return heads[0]!;
  }

  readonly #chains = new Map<number, number[]>();

  release(head: number): void {
    this.#free.push(...(this.#chains.get(head) ?? [head]));
    this.#chains.delete(head);
  }

  /** Sends a message and waits for its reply. */
  async message(frame: Uint8Array, room = 8192, indirect = false): Promise<Buffer> {
    const reply = this.room(room);
    const head = this.chain(
      [{ address: this.put(frame), length: frame.length }],
      [{ address: reply, length: room }],
      indirect,
    );
    this.kick();
    const [used] = await this.usedOf(1);
    if (used!.head !== head) throw new Error(`descriptor ${used!.head} instead of ${head}`);
    this.release(head);
    return this.read(reply, used!.length);
  }

  /** Sends a 9P request; resolves to the reply or an Errno. */
  async request<O extends Op>(op: O, fields: Draft<O> | TMessage<O>, tag = 1): Promise<RMessage<O> | Errno> {
    return decodeReply(op, await this.message(encodeRequest(op, tag, fields), 16384, true));
  }

  /** Version and attach as fid 0. */
  async attach(aname = ''): Promise<void> {
    const version = await this.request('version', { msize: 131_072, version: '9P2000.L' }, 0xffff);
    if (version instanceof Errno) throw version;
    const fields = { fid: 0, afid: 0xffff_ffff, uname: '', aname, n_uname: 0 };
    const attached = await this.request('attach', fields);
    if (attached instanceof Errno) throw attached;
  }
}
