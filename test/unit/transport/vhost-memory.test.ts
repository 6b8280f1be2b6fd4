/** Guest memory that the monitor splits differently or removes while requests run. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeRequest } from '#protocol/codec.ts';
import { Frontend, memoryFile, regionBytes, request, u32, u64 } from '../../support/vhost-frontend.ts';
import type { Region } from '../../support/vhost-monitor.ts';
import { type Served, serveDirectory } from '../../support/vhost-served.ts';
import { Barrier, turns, waiting } from '../session/harness.ts';

const megabyte = 1 << 20;
const getattr = { fid: 0, request_mask: { low: 0x3fff, high: 0 } };
const rgetattrBytes = 160;

/** A region of the same memory: `bytes` from `at` on. */
function cut(region: Region, at: number, bytes: number): Region {
  const { guestAddress, monitorAddress, fileOffset } = region;
  return {
    guestAddress: guestAddress + at,
    bytes,
    monitorAddress: monitorAddress + at,
    fileOffset: fileOffset + at,
  };
}

describe('a request that runs', () => {
  const barrier = new Barrier();
  let served: Served;
  let guest: Frontend;
  let whole: Region;
  /** The same memory in two new regions. */
  let halves: Region[];

  beforeEach(async () => {
    served = await serveDirectory({ dressed: tree => waiting(tree, barrier, ['stat', 'read', 'write']) });
    guest = await Frontend.connect(served.path);
    [whole] = guest.regions as [Region];
    halves = [cut(whole, 0, megabyte), cut(whole, megabyte, 3 * megabyte)];
    await guest.start();
    writeFileSync(join(served.directory, 'file'), 'content');
    await guest.attach();
    await guest.request('walk', { fid: 0, newfid: 1, wname: ['file' as never] });
    await guest.request('lopen', { fid: 1, flags: 2 });
    barrier.close();
  });
  afterEach(async () => {
    barrier.open();
    guest.close();
    await served.close();
  });

  const setTable = (regions: readonly Region[], file = guest.file) =>
    guest.monitor.order(
      request.setMemTable,
      Buffer.concat([u32(regions.length, 0), ...regions.map(regionBytes)]),
      regions.map(() => file),
    );
  const remove = (region: Region) =>
    guest.monitor.order(request.remMemReg, Buffer.concat([u64(0), regionBytes(region)]));

  /** Offers a request whose reply goes to these addresses. */
  function offer(frame: Buffer, replies: readonly { address: number; length: number }[]): number {
    const head = guest.chain([{ address: guest.put(frame), length: frame.length }], replies);
    guest.kick();
    return head;
  }
  const ask = (tag: number, address = guest.room(256)) => {
    const head = offer(encodeRequest('getattr', tag, getattr), [{ address, length: 256 }]);
    return { head, tag, address };
  };

  async function running(count: number): Promise<void> {
    for (let i = 0; i < 1000 && barrier.waiting < count; i++)
      await new Promise(resolve => setTimeout(resolve, 5));
    expect(barrier.waiting).toBe(count);
  }

  /** Requests are answered into guest memory. */
  async function answered(asked: readonly ReturnType<typeof ask>[]): Promise<void> {
    const used = await guest.usedOf(asked.length);
    expect(used.map(({ head }) => head).sort()).toEqual(asked.map(({ head }) => head).sort());
    for (const { tag, address } of asked) {
      const reply = guest.read(address, rgetattrBytes);
      expect([reply.readUInt32LE(0), reply.readUInt8(4), reply.readUInt16LE(5)]).toEqual([
        rgetattrBytes,
        25,
        tag,
      ]);
    }
    expect(served.complaints).toEqual([]);
  }

  it('is answered in the same memory after it was cut anew as one table', async () => {
    const border = whole.guestAddress + megabyte;
    const asked = [1, 2, 3].map(tag => ask(tag));
    asked.push(ask(4, border - 100));
    await running(4);
    await setTable(halves);
    await turns();
    barrier.open();
    await answered(asked);
    await setTable([whole]);
    await answered([ask(5)]);
  });

  it('is answered in the same memory after its regions were taken away and others added', async () => {
    const asked = [1, 2, 3, 4].map(tag => ask(tag));
    await running(4);
    await remove(whole);
    // Ring and buffers are unmapped; the guest and the host calls continue.
    guest.kick();
    barrier.open();
    await turns();
    asked.push(ask(5));
    for (const half of halves) await guest.addRegion(half);
    await answered(asked);
    await answered([ask(6)]);
  });

  it('is answered after other memory than its own came and went', async () => {
    const extra: Region = {
      guestAddress: 64 * megabyte,
      bytes: megabyte,
      monitorAddress: 0x7fff_0000_0000,
      fileOffset: 0,
    };
    const asked = [ask(1)];
    await running(1);
    await guest.addRegion(extra);
    await remove(extra);
    barrier.open();
    await answered(asked);
  });

  it('has its data written to memory that was cut anew, and read from what it was', async () => {
    const data = Buffer.alloc(300_000, 'abcdefg');
    const written = guest.put(data);
    const head = encodeRequest('write', 1, { fid: 1, offset: 0, data: { count: data.length, bytes: data } });
    const write = guest.chain(
      [
        { address: guest.put(head.subarray(0, 23)), length: 23 },
        { address: written, length: data.length },
      ],
      [{ address: guest.room(64), length: 64 }],
    );
    guest.kick();
    await running(1);
    await setTable(halves);
    barrier.open();
    expect(await guest.usedOf(1)).toEqual([{ head: write, length: 11 }]);
    expect(readFileSync(join(served.directory, 'file')).equals(data)).toBe(true);
    barrier.close();
    const border = whole.guestAddress + megabyte;
    const tread = encodeRequest('read', 2, { fid: 1, offset: 0, count: 100_000 });
    offer(tread, [
      { address: border - 40_000, length: 60_000 },
      { address: border + 500_000, length: 60_000 },
    ]);
    await running(1);
    await setTable([whole]);
    barrier.open();
    expect((await guest.usedOf(1))[0]!.length).toBe(100_011);
    const read = [guest.read(border - 40_000 + 11, 59_989), guest.read(border + 500_000, 40_011)];
    expect(Buffer.concat(read).equals(data.subarray(0, 100_000))).toBe(true);
    expect(served.complaints).toEqual([]);
  });

  it.each(['in a table', 'alone'])(
    'loses its reply and nothing else where its memory really goes, %s',
    async how => {
      const other = memoryFile(megabyte);
      const extra = {
        guestAddress: 64 * megabyte,
        bytes: megabyte,
        monitorAddress: 0x7fff_0000_0000,
        fileOffset: 0,
      };
      await guest.addRegion(extra, other);
      const lost = offer(encodeRequest('getattr', 1, getattr), [
        { address: extra.guestAddress, length: 256 },
      ]);
      const kept = ask(2);
      await running(2);
      if (how === 'alone') await remove(extra);
      else await setTable([whole]);
      barrier.open();
      const used = await guest.usedOf(2);
      expect(used.sort((a, b) => a.length - b.length)).toEqual([
        { head: lost, length: 0 },
        { head: kept.head, length: rgetattrBytes },
      ]);
      expect(served.complaints.join()).toMatch(/a reply is lost: the monitor took away the memory for it/);
      expect(guest.errors).toBe(0);
      // Nothing was written to removed memory.
      expect(readFileSync(`/proc/self/fd/${other}`).equals(Buffer.alloc(megabyte))).toBe(true);
    },
  );

  it('is answered where its address is other memory by then', async () => {
    const asked = ask(1, whole.guestAddress + 3 * megabyte);
    await running(1);
    const other = memoryFile(megabyte);
    const last = { ...cut(whole, 3 * megabyte, megabyte), fileOffset: 0 };
    const regions = [cut(whole, 0, 3 * megabyte), last];
    await guest.monitor.order(request.setMemTable, Buffer.concat([u32(2, 0), ...regions.map(regionBytes)]), [
      guest.file,
      other,
    ]);
    barrier.open();
    expect(await guest.usedOf(1)).toEqual([{ head: asked.head, length: rgetattrBytes }]);
    expect(readFileSync(`/proc/self/fd/${other}`).readUInt32LE(0)).toBe(rgetattrBytes);
  });

  it('keeps the memory it works on, but not for ever more of it', async () => {
    const data = Buffer.alloc(4096, 'x');
    const head = encodeRequest('write', 1, { fid: 1, offset: 0, data: { count: data.length, bytes: data } });
    offer(head, [{ address: guest.room(64), length: 64 }]);
    await running(1);
    let refused = false;
    for (let i = 0; i < 2000 && !refused; i++) {
      refused = await setTable(i % 2 === 0 ? halves : [whole]).then(
        () => false,
        () => true,
      );
    }
    expect(refused).toBe(true);
    expect(served.complaints.join()).toMatch(/memory is changed faster than requests that use it end/);
  });
});
