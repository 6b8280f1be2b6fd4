import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeRequest } from '#protocol/codec.ts';
import { heldBy } from '../../support/descriptors.ts';
import { Frontend, Monitor, regionBytes, request, u32, u64 } from '../../support/vhost-frontend.ts';
import { type Served, serveDirectory } from '../../support/vhost-served.ts';

const write = 1;
const block = 1;
const megabyte = 1 << 20;

let served: Served;
let guest: Frontend;

const settled = (ms = 20) => new Promise(resolve => setTimeout(resolve, ms));

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !done(); i++) await settled(5);
  expect(done()).toBe(true);
}

/** Guest memory files of these tests that this process has open or mapped. */
function memoryHeld(): string[] {
  const mapped = readFileSync('/proc/self/maps', 'latin1').split('\n');
  return [...heldBy(), ...mapped].filter(text => text.includes('/dev/shm/ninepd-test'));
}

function tlock(tag: number, type: number, client_id: string): Buffer {
  const extent = { start: 0n, length: 0n };
  const lock = { fid: 1, type, flags: block, ...extent, proc_id: 1, client_id };
  const fields = Buffer.alloc(4 + 1 + 4 + 8 + 8 + 4 + 2);
  fields.writeUInt32LE(lock.fid, 0);
  fields.writeUInt8(type, 4);
  fields.writeUInt32LE(block, 5);
  fields.writeUInt32LE(lock.proc_id, 25);
  fields.writeUInt16LE(client_id.length, 29);
  const head = Buffer.concat([u32(7 + fields.length + client_id.length), Buffer.from([52]), Buffer.alloc(2)]);
  head.writeUInt16LE(tag, 5);
  return Buffer.concat([head, fields, Buffer.from(client_id, 'latin1')]);
}

/** Opens a file, locks it for one client, and sends another client's blocking lock request. Returns its head and reply. */
async function blockedLock(): Promise<{ head: number; reply: number }> {
  writeFileSync(join(served.directory, 'file'), 'content');
  await guest.attach();
  await guest.request('walk', { fid: 0, newfid: 1, wname: ['file' as never] });
  await guest.request('lopen', { fid: 1, flags: 2 });
  expect((await guest.message(tlock(1, write, 'a'))).readUInt8(7)).toBe(0);
  const frame = tlock(2, write, 'b');
  const reply = guest.room(64);
  const head = guest.chain(
    [{ address: guest.put(frame), length: frame.length }],
    [{ address: reply, length: 64 }],
  );
  guest.kick();
  await until(() => served.sessions.at(-1)!.counts().requests === 1);
  return { head, reply };
}

beforeEach(async () => {
  served = await serveDirectory();
  guest = await Frontend.connect(served.path);
});
afterEach(async () => {
  guest.close();
  await served.close();
  for (const session of served.sessions) {
    expect(session.counts()).toEqual({ fids: 0, requests: 0, locks: 0, xattrBytes: 0 });
  }
});

describe('a device that is stopped', () => {
  it('continues its session when it is started again unchanged', async () => {
    await guest.start();
    await guest.attach();
    const next = await guest.stopRing();
    expect(next).toBe(2);
    await guest.startRing(next);
    await guest.request('walk', { fid: 0, newfid: 1, wname: [] });
    expect(served.sessions).toHaveLength(1);
    expect(served.sessions[0]!.counts().fids).toBe(2);
  });

  it('answers a blocked request when it continues', async () => {
    await guest.start();
    const { head, reply } = await blockedLock();
    const next = await guest.stopRing();
    guest.takeUsed();
    const session = served.sessions[0]!;
    // The first client's lock is released while the guest is paused.
    await session.locks.dropAll();
    await settled();
    expect(guest.takeUsed()).toEqual([]);
    await guest.startRing(next);
    const [used] = await guest.usedOf(1);
    expect(used!.head).toBe(head);
    expect(guest.read(reply, 11).readUInt8(4)).toBeOneOf([53, 7]);
  });

  it('opens a new session after a reboot of the guest, and writes no reply of the old one', async () => {
    await guest.start();
    await blockedLock();
    await guest.stopRing();
    guest.forget();
    await guest.startRing();
    expect(served.sessions).toHaveLength(2);
    await until(() => served.sessions[0]!.counts().requests === 0);
    expect(guest.usedIndex).toBe(0);
    await guest.attach();
  });

  it.each([request.resetDevice, request.resetOwner])('ends its session by reset %i', async number => {
    await guest.start();
    await blockedLock();
    await guest.monitor.order(number);
    await until(() => served.sessions[0]!.counts().requests === 0);
    guest.forget();
    await guest.startRing();
    await guest.attach();
    expect(served.sessions).toHaveLength(2);
  });

  it('is broken by a descriptor that is offered while it is in use', async () => {
    await guest.start();
    const { head } = await blockedLock();
    guest.offer(head);
    guest.kick();
    await until(() => guest.errors === 1);
    expect(served.complaints.join()).toMatch(/offered again before it was used/);
    expect((await guest.monitor.ask(request.getStatus)).readUInt8(0)).toBe(0x40);
  });

  it('takes no requests while its queue is disabled', async () => {
    await guest.start();
    await guest.attach();
    await guest.monitor.order(request.setVringEnable, u32(0, 0));
    const frame = encodeRequest('clunk', 3, { fid: 0 });
    guest.chain(
      [{ address: guest.put(frame), length: frame.length }],
      [{ address: guest.room(64), length: 64 }],
    );
    guest.kick();
    await settled();
    expect(guest.takeUsed()).toEqual([]);
    await guest.monitor.order(request.setVringEnable, u32(0, 1));
    await guest.usedOf(1);
  });
});

describe('a monitor', () => {
  it('may send its requests in any order', async () => {
    const { monitor } = guest;
    await guest.negotiate();
    await monitor.order(request.setVringEnable, u32(0, 1));
    await monitor.order(request.setVringKick, u64(0), [guest.kickDescriptor]);
    await monitor.order(request.setVringAddr, guest.ringAddresses());
    await monitor.order(request.setVringNum, u32(0, guest.size));
    await guest.shareMemory();
    await monitor.order(request.setVringBase, u32(0, 0));
    await monitor.order(request.setVringCall, u64(0), [guest.callDescriptor]);
    await guest.attach();
  });

  it('may send its memory as one table, and again while the guest runs', async () => {
    const table = Buffer.concat([u32(1, 0), regionBytes(guest.regions[0]!)]);
    await guest.negotiate();
    await guest.monitor.order(request.setMemTable, table, [guest.file]);
    await guest.startRing();
    await guest.attach();
    await guest.monitor.order(request.setMemTable, table, [guest.file]);
    await guest.request('walk', { fid: 0, newfid: 1, wname: [] });
    expect(served.sessions).toHaveLength(1);
  });

  it('may add and remove memory while the guest runs', async () => {
    const extra = {
      guestAddress: 64 * megabyte,
      bytes: megabyte,
      monitorAddress: 0x7fff_0000_0000,
      fileOffset: 0,
    };
    await guest.start();
    await guest.attach();
    await guest.addRegion(extra);
    guest.regions.push(extra);
    const frame = encodeRequest('clunk', 3, { fid: 9 });
    const message = async () => {
      const address = extra.guestAddress + 0x80000;
      guest.write(address, frame);
      guest.chain([{ address, length: frame.length }], [{ address: address + 4096, length: 64 }]);
      guest.kick();
    };
    await message();
    await guest.usedOf(1);
    await guest.monitor.order(request.remMemReg, Buffer.concat([u64(0), regionBytes(extra)]));
    await message();
    await until(() => guest.errors === 1);
    expect(served.complaints.join()).toMatch(/outside of the guest's memory/);
  });

  it('breaks the device by removing the memory of its queue without adding it again', async () => {
    await guest.start();
    await guest.attach();
    await guest.monitor.order(request.remMemReg, Buffer.concat([u64(0), regionBytes(guest.regions[0]!)]));
    // The memory could have been added again as other regions.
    await until(() => guest.errors === 1);
    expect(served.complaints.join()).toMatch(/descriptor table lies outside/);
  });

  it('that dies leaves nothing mapped, and the next one is served', async () => {
    const before = memoryHeld().length;
    await guest.start();
    await guest.attach();
    const mine = memoryHeld().length - before;
    guest.monitor.close();
    await until(() => served.sessions[0]!.counts().fids === 0);
    // The device's mapping is removed; the remaining one is this test's.
    await until(() => memoryHeld().length - before < mine);
    const next = await Frontend.connect(served.path);
    await next.start();
    await next.attach();
    expect(served.complaints).toEqual([]);
    next.close();
    guest = await Frontend.connect(served.path);
  });

  it('is refused, and logged, while the socket serves another', async () => {
    await guest.start();
    await guest.attach();
    const second = await Monitor.connect(served.path);
    await second.closed();
    second.close();
    expect(served.complaints.join()).toMatch(/already serves .* give each guest a --listen of its own/);
    await guest.request('walk', { fid: 0, newfid: 1, wname: [] });
  });

  it('that reconnects at once is served', async () => {
    await guest.start();
    guest.close();
    guest = await Frontend.connect(served.path);
    await guest.start();
    await guest.attach();
    expect(served.complaints).toEqual([]);
  });

  it('is served beside those of other sockets', async () => {
    const other = await serveDirectory({ tag: 'other' });
    const neighbour = await Frontend.connect(other.path);
    await guest.start();
    await neighbour.start();
    await Promise.all([guest.attach(), neighbour.attach()]);
    guest.offer(999);
    guest.kick();
    await until(() => guest.errors === 1);
    await neighbour.request('walk', { fid: 0, newfid: 1, wname: [] });
    expect(neighbour.errors).toBe(0);
    expect(other.complaints).toEqual([]);
    neighbour.close();
    await other.close();
  });

  it('loses no descriptors', async () => {
    const count = () => readdirSync('/proc/self/fd').length;
    await guest.start();
    await guest.attach();
    await settled();
    const before = count();
    for (let i = 0; i < 5; i++) {
      const { monitor } = guest;
      await monitor.order(request.setVringCall, u64(0), [guest.callDescriptor]);
      await monitor.order(request.setVringErr, u64(0), [guest.errorDescriptor, guest.errorDescriptor]);
      await monitor.order(request.setOwner, Buffer.alloc(0), [guest.file, guest.file]);
    }
    // They are closed on a thread of the pool.
    await until(() => count() === before);
    guest.monitor.close();
    await settled();
    // The socket on either side, and kick, call and err of the device.
    expect(count()).toBe(before - 5);
    guest = await Frontend.connect(served.path);
  });
});
