import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ENOENT } from '#base/errno.ts';
import { encodeRequest } from '#protocol/codec.ts';
import { parseDirents } from '#protocol/dirent.ts';
import type { RMessage } from '#protocol/operations.ts';
import { Frontend, feature } from '../../support/vhost-frontend.ts';
import { type Served, serveDirectory } from '../../support/vhost-served.ts';

const offsetZero = { low: 0, high: 0 };
/** Waits for pending signals. */
const settled = () => new Promise(resolve => setTimeout(resolve, 20));

describe('a virtio-9p device behind vhost-user', () => {
  let served: Served;
  let guest: Frontend;

  beforeEach(async () => {
    served = await serveDirectory();
    guest = await Frontend.connect(served.path);
    await guest.start();
  });
  afterEach(async () => {
    guest.close();
    await served.close();
    expect(served.complaints).toEqual([]);
  });

  async function open(name: string, flags = 2): Promise<void> {
    await guest.request('walk', { fid: 0, newfid: 1, wname: [name as never] });
    await guest.request('lopen', { fid: 1, flags });
  }

  it('answers a version and an attach', async () => {
    await guest.attach();
    expect(served.sessions[0]!.counts().fids).toBe(1);
  });

  it('answers an error', async () => {
    await guest.attach();
    expect(await guest.request('walk', { fid: 0, newfid: 1, wname: ['none' as never] })).toBe(ENOENT);
  });

  it('reads a file into the guest, whatever the buffers are', async () => {
    const content = Buffer.from(Array.from({ length: 20_000 }, (_, i) => (i * 7) & 0xff));
    writeFileSync(join(served.directory, 'file'), content);
    await guest.attach();
    await open('file');
    for (const pieces of [[20_011], [11, 20_000], [4, 3, 9000, 1, 11_003], [5, 20_006]]) {
      for (const indirect of [false, true]) {
        const frame = encodeRequest('read', 3, { fid: 1, offset: 0, count: 20_000 });
        const writable = pieces.map(length => ({ address: guest.room(length + 64), length }));
        const head = guest.chain([{ address: guest.put(frame), length: frame.length }], writable, indirect);
        guest.kick();
        const [used] = await guest.usedOf(1);
        guest.release(head);
        const reply = Buffer.concat(writable.map(one => guest.read(one.address, one.length)));
        expect(used).toEqual({ head, length: 20_011 });
        expect(reply.readUInt32LE(0)).toBe(20_011);
        expect(reply.subarray(11).equals(content)).toBe(true);
      }
    }
  });

  it('writes a file from the guest, whatever the buffers are', async () => {
    const content = Buffer.from(Array.from({ length: 9000 }, (_, i) => (i * 11) & 0xff));
    writeFileSync(join(served.directory, 'file'), '');
    await guest.attach();
    await open('file');
    const frame = encodeRequest('write', 3, { fid: 1, offset: 0, data: { count: 9000, bytes: content } });
    for (const pieces of [[frame.length], [23, 9000], [4, 1, 2, 100, 8916], [22, 9001]]) {
      writeFileSync(join(served.directory, 'file'), '');
      let at = 0;
      const readable = pieces.map(length => {
        const piece = frame.subarray(at, at + length);
        at += length;
        return { address: guest.put(piece), length };
      });
      const reply = guest.room(64);
      const head = guest.chain(readable, [{ address: reply, length: 64 }]);
      guest.kick();
      await guest.usedOf(1);
      guest.release(head);
      expect(guest.read(reply, 11).readUInt32LE(7)).toBe(9000);
      expect(readFileSync(join(served.directory, 'file')).equals(content)).toBe(true);
    }
  });

  it('lists a directory into one buffer and into many', async () => {
    const names = Array.from({ length: 50 }, (_, i) => `name-${i}`);
    for (const name of names) writeFileSync(join(served.directory, name), '');
    await guest.attach();
    await guest.request('walk', { fid: 0, newfid: 1, wname: [] });
    await guest.request('lopen', { fid: 1, flags: 0 });
    const whole = (await guest.request('readdir', {
      fid: 1,
      offset: offsetZero,
      count: 8000,
    })) as RMessage<'readdir'>;
    const listed = parseDirents(whole.data.bytes!).map(one => one.name);
    expect(listed.sort()).toEqual(['.', '..', ...names].sort());
    const frame = encodeRequest('readdir', 3, { fid: 1, offset: offsetZero, count: 8000 });
    const writable = [11, 100, 3000, 4900].map(length => ({ address: guest.room(length + 64), length }));
    guest.chain([{ address: guest.put(frame), length: frame.length }], writable);
    guest.kick();
    const [used] = await guest.usedOf(1);
    const reply = Buffer.concat(writable.map(one => guest.read(one.address, one.length)));
    expect(reply.subarray(11, used!.length).equals(whole.data.bytes!)).toBe(true);
  });

  it('answers a burst with one kick and one call', async () => {
    await guest.attach();
    await settled();
    const calls = guest.calls;
    for (let tag = 0; tag < 40; tag++) {
      const frame = encodeRequest('getattr', tag, { fid: 0, request_mask: { low: 0x7ff, high: 0 } });
      guest.chain(
        [{ address: guest.put(frame), length: frame.length }],
        [{ address: guest.room(256), length: 256 }],
      );
    }
    guest.kick();
    expect((await guest.usedOf(40)).every(({ length }) => length === 160)).toBe(true);
    await settled();
    expect(guest.calls - calls).toBe(1);
    expect(guest.wantsKick).toBe(false);
  });

  it('answers a read into a small buffer with what fits', async () => {
    writeFileSync(join(served.directory, 'file'), 'abcdefgh');
    await guest.attach();
    await open('file');
    const reply = await guest.message(encodeRequest('read', 5, { fid: 1, offset: 0, count: 8 }), 15);
    expect(reply.toString('latin1', 11)).toBe('abcd');
    expect(reply.readUInt32LE(7)).toBe(4);
  });

  it('answers EMSGSIZE where a reply does not fit', async () => {
    await guest.attach();
    const reply = await guest.message(
      encodeRequest('getattr', 5, { fid: 0, request_mask: { low: 0x7ff, high: 0 } }),
      100,
    );
    expect(reply.toString('hex')).toBe('0b000000070500' + '5a000000');
  });

  it('takes more requests than a 16-bit ring index counts', { timeout: 30_000 }, async () => {
    await guest.attach();
    const frame = encodeRequest('clunk', 1, { fid: 77 });
    const { length } = frame;
    // Between the rings and the other buffers.
    const address = guest.used + 0x2000;
    const writable = [{ address: guest.used + 0x3000, length: 64 }];
    guest.write(address, frame);
    for (let done = 0; done < 70_000; done += 100) {
      for (let i = 0; i < 100; i++) guest.chain([{ address, length }], writable, true);
      guest.kick();
      for (const { head } of await guest.usedOf(100)) guest.release(head);
    }
    expect(served.sessions).toHaveLength(1);
  });
});

describe('a virtio-9p device whose driver negotiated no optional features', () => {
  it('works without indirect tables and event indices', async () => {
    const served = await serveDirectory();
    const features = feature.version1 | feature.protocolFeatures | feature.mountTag;
    const guest = await Frontend.connect(served.path, { features, size: 4 });
    await guest.start();
    const reply = await guest.message(encodeRequest('version', 0xffff, { msize: 8192, version: '9P2000.L' }));
    expect(reply.toString('latin1', 13)).toBe('9P2000.L');
    for (let i = 0; i < 20; i++) await guest.message(encodeRequest('clunk', i, { fid: 9 }));
    expect(guest.calls).toBeGreaterThan(0);
    guest.close();
    await served.close();
    expect(served.complaints).toEqual([]);
  });
});
