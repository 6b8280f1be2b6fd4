/** Connections that one side ends while requests run for longer than a peer has for its last replies (5 s). */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { inline } from '#host/linux.ts';
import { serverCreds } from '#host/syscalls.ts';
import { Client, Disconnected, Server } from '#index.ts';
import { Barrier, TempExport, waiting } from '../session/harness.ts';

const longMs = 5500;
const write = { type: 1, start: 0, length: 0, proc_id: 1, client_id: 'vm' };
const [wait, now] = [1, 0];
const O_RDWR = 2;
const [granted, blocked] = [0, 1];

/** A client with a file open. */
class Guest {
  readonly client: Client;
  readonly fid: number;

  constructor(client: Client, fid: number) {
    this.client = client;
    this.fid = fid;
  }

  lock(type: number, flags: number): Promise<number> {
    return this.client.lock(this.fid, { ...write, type, flags });
  }

  read(offset = 0, count = 7): Promise<Buffer> {
    return this.client.read(this.fid, offset, count);
  }

  /** The server does not read requests after it. */
  end(): void {
    this.client.wire.socket.end();
  }
}

/** A server whose reads wait for a barrier, initially closed. */
class ServerHarness {
  readonly tempExport = new TempExport();
  readonly barrier = new Barrier();
  readonly #clients: Client[] = [];
  server!: Server;
  #port = 0;

  static async open(): Promise<ServerHarness> {
    const harness = new ServerHarness();
    const { tempExport, barrier } = harness;
    writeFileSync(tempExport.path('f'), 'content');
    writeFileSync(tempExport.path('g'), Buffer.alloc(3_000_000, 'x'));
    const tree = waiting(await tempExport.tree(), barrier, ['read']);
    harness.server = await Server.open({ exports: [{ name: 'test', tree }] });
    await harness.server.listen(`unix://${tempExport.path('s')}`);
    harness.#port = Number(/\d+$/.exec(await harness.server.listen('tcp://127.0.0.1:0'))![0]);
    barrier.close();
    return harness;
  }

  async guest(way: 'unix' | 'tcp', name = 'f'): Promise<Guest> {
    const client = await Client.connect(
      way === 'tcp' ? { port: this.#port } : { path: this.tempExport.path('s') },
    );
    this.#clients.push(client);
    const fid = await client.walk(await client.attach(), name);
    await client.wire.request('lopen', { fid, flags: O_RDWR });
    return new Guest(client, fid);
  }

  async close(): Promise<void> {
    this.barrier.open();
    for (const client of this.#clients) client.wire.socket.destroy();
    await this.server.close();
    this.tempExport.close();
  }
}

async function withHarness(act: (harness: ServerHarness) => Promise<void>): Promise<void> {
  const harness = await ServerHarness.open();
  try {
    await act(harness);
  } finally {
    await harness.close();
  }
}

async function until(what: string, done: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !done(); i++) await sleep(20);
  expect(done(), what).toBe(true);
}

describe.concurrent('a connection', () => {
  it('whose peer has ended its side lives until all is answered that was asked, but no longer', () =>
    withHarness(async harness => {
      const { barrier, server } = harness;
      const holder = await harness.guest('unix');
      expect(await holder.lock(1, now)).toBe(granted);
      const peers = [await harness.guest('unix'), await harness.guest('tcp')];
      const locks = peers.map(peer => peer.lock(0, wait));
      const reads = peers.map(peer => peer.read());
      // A peer that does not read: 3 MB exceed the kernel's buffers.
      const deaf = await harness.guest('unix', 'g');
      const deafReads = [0, 1, 2].map(part => deaf.read(part * 1_000_000, 1_000_000).catch(error => error));
      await until('reads run', () => barrier.waiting === 5);
      deaf.client.wire.socket.pause();
      for (const peer of [...peers, deaf]) peer.end();
      await sleep(longMs);
      expect(server.connections).toBe(4);
      barrier.open();
      for (const read of reads) expect((await read).toString()).toBe('content');
      expect(await holder.lock(2, now)).toBe(granted);
      for (const lock of locks) expect(await lock).toBe(granted);
      await until('those that were answered are gone', () => server.connections === 2);
      await until('so is the one that takes nothing', () => server.connections === 1);
      deaf.client.wire.socket.resume();
      expect(await Promise.all(deafReads)).toContainEqual(expect.any(Disconnected));
      // Their locks are free.
      expect(await holder.lock(1, now)).toBe(granted);
    }));

  it('whose peer is gone altogether lets go of its locks, though a request of it runs', () =>
    withHarness(async harness => {
      const holder = await harness.guest('unix');
      const peer = await harness.guest('unix');
      expect(await peer.lock(1, now)).toBe(granted);
      const read = peer.read().catch(error => error);
      await until('a read runs', () => harness.barrier.waiting === 1);
      peer.end();
      await sleep(longMs);
      expect(await holder.lock(1, now)).toBe(blocked);
      peer.client.wire.socket.destroy();
      expect(await read).toBeInstanceOf(Disconnected);
      expect(await holder.lock(1, wait)).toBe(granted);
      expect(harness.barrier.waiting).toBe(1);
    }));

  it('of a server that stops is answered what runs, as long as there is time, but for locks that wait', () =>
    withHarness(async harness => {
      const outside = openSync(harness.tempExport.path('f'), 'r+');
      expect(inline.lock(serverCreds, outside, 1, 0, 0)).toBe(true);
      const peers = [await harness.guest('unix'), await harness.guest('tcp')];
      // One of them has closed its sending side before.
      const locks = peers.map(peer => peer.lock(1, wait).catch(error => error));
      const reads = peers.map(peer => peer.read());
      await until('reads run', () => harness.barrier.waiting === 2);
      peers[0]!.end();
      await sleep(100);
      const closed = harness.server.close(60_000);
      await sleep(longMs);
      harness.barrier.open();
      for (const read of reads) expect((await read).toString()).toBe('content');
      expect(await closed).toBe(true);
      for (const lock of locks) expect(await lock).toBeInstanceOf(Disconnected);
      closeSync(outside);
    }));
});
