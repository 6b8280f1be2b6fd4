import { expect, it } from 'vitest';
import { operations } from '#protocol/operations.ts';
import { body, frame, NOTAG } from './raw-connection.ts';
import { conform } from './server-harness.ts';

const EINVAL = 22;
const EOPNOTSUPP = 95;
const getattr = (tag: number) =>
  frame(operations.getattr.type, tag, body('getattr', { fid: 0, request_mask: 0x3fff }));

conform('a stream of messages', harness => {
  it('may arrive byte by byte, or split within a size (FR-1, FR-3)', async () => {
    const wire = await harness.wire();
    for (const byte of getattr(5)) {
      wire.send(Buffer.of(byte));
      await new Promise(resolve => setImmediate(resolve));
    }
    expect(await wire.next()).toMatchObject({ type: 25, tag: 5 });
    const two = Buffer.concat([getattr(6), getattr(7)]);
    wire.send(two.subarray(0, 21));
    await new Promise(resolve => setTimeout(resolve, 5));
    wire.send(two.subarray(21));
    expect((await wire.nextOf(2)).map(({ tag }) => tag)).toEqual([6, 7]);
  });

  it('may hold 50 messages in one write (FR-2, FR-10, FR-11)', async () => {
    const wire = await harness.wire();
    const tags = [0, 1, 0xfffe, ...Array.from({ length: 47 }, (_, i) => 100 + i)];
    for (let round = 0; round < 2; round++) {
      wire.send(Buffer.concat(tags.map(getattr)));
      const replies = await wire.nextOf(50);
      expect(replies.map(({ tag }) => tag).sort()).toEqual([...tags].sort());
      for (const { type, body: content } of replies) {
        expect(type).toBe(25);
        expect(content).toHaveLength(153);
      }
    }
  });

  it('ends when a size is impossible, and ends alone (FR-4, FR-5, FR-6)', async () => {
    const bystander = await harness.wire();
    for (const size of [0, 6, 131_073, 0xffff_ffff]) {
      const wire = await harness.wire();
      const bytes = getattr(1);
      bytes.writeUInt32LE(size, 0);
      wire.send(bytes);
      await wire.closed();
      expect(wire.replies).toEqual([]);
    }
    for (const size of [6, 8193, 131_072, 0xffff_ffff, 0x20544547]) {
      const wire = await harness.unversionedConnection();
      const bytes = frame(operations.version.type, NOTAG, Buffer.alloc(20));
      bytes.writeUInt32LE(size, 0);
      wire.send(bytes);
      await wire.closed();
    }
    bystander.send(getattr(9));
    expect(await bystander.next()).toMatchObject({ type: 25, tag: 9 });
  });

  it('goes on behind a body that is broken (FR-7, FR-8)', async () => {
    const wire = await harness.wire();
    const long = Buffer.concat([body('walk', { fid: 0, newfid: 9, wname: ['abc'] })]);
    long.writeUInt16LE(5000, 10);
    const broken = [
      frame(operations.getattr.type, 1, Buffer.alloc(3)),
      frame(operations.getattr.type, 1, Buffer.alloc(0)),
      frame(operations.walk.type, 1, long),
      frame(operations.clunk.type, 1, Buffer.alloc(5)),
    ];
    for (const bytes of broken) {
      wire.send(bytes);
      expect(await wire.next()).toMatchObject({ type: 7, tag: 1, ecode: EINVAL });
      wire.send(getattr(2));
      expect(await wire.next()).toMatchObject({ type: 25, tag: 2 });
    }
  });

  it('may hold types that nobody knows (FR-9)', async () => {
    const wire = await harness.wire();
    for (const type of [0, 6, 7, 9, 25, 101, 106, 107, 112, 114, 119, 124, 126, 200, 255]) {
      for (const content of [Buffer.alloc(0), Buffer.alloc(100, 255)]) {
        wire.send(frame(type, 3, content));
        expect(await wire.next()).toMatchObject({ type: 7, tag: 3, ecode: EOPNOTSUPP });
      }
    }
  });

  it('is refused a second request with the tag of one that runs', async () => {
    const { a, wire } = await harness.contended();
    wire.say('lock', { ...harness.lockFields, fid: 1, flags: 1 }, 5);
    wire.say('getattr', { fid: 0 }, 5);
    await a.request('lock', { ...harness.lockFields, fid: 1, type: 2 });
    const replies = [];
    try {
      replies.push(...(await wire.nextOf(2)));
    } catch {
      expect(wire.gone).toBe(true);
    }
    expect(replies.filter(({ type }) => type === 25)).toEqual([]);
    a.send(getattr(8));
    expect(await a.next()).toMatchObject({ type: 25, tag: 8 });
  });
});

conform('Tversion', harness => {
  const agreed = ({ body: content }: { body: Buffer }) => ({
    msize: content.readUInt32LE(0),
    version: content.toString('latin1', 6),
  });

  it('agrees on the dialect and on the smaller msize (VE-1, VE-2, VE-3)', async () => {
    for (const msize of [4096, 8192, 131_072, 0xffff_ffff]) {
      const wire = await harness.unversionedConnection();
      const reply = await wire.version(msize);
      expect(reply).toMatchObject({ type: 101, tag: NOTAG });
      expect(agreed(reply).version).toBe('9P2000.L');
      expect(agreed(reply).msize).toBeGreaterThanOrEqual(4096);
      expect(agreed(reply).msize).toBeLessThanOrEqual(msize);
      if (msize <= 131_072) expect(agreed(reply).msize).toBe(msize);
    }
  });

  it('works within the smallest msize (VE-3)', async () => {
    const { c, dir } = await harness.begin(0, 4096);
    expect(c.msize).toBe(4096);
    await Promise.all(Array.from({ length: 200 }, (_, i) => c.mknod(dir, `entry-${i}`, 0o100644)));
    expect(await c.list(dir, 4072)).toHaveLength(202);
    const fid = await c.create(dir, 'f');
    for (let i = 0; i < 3; i++) await c.write(fid, i * 4072, Buffer.alloc(4072, i));
    expect(await c.read(fid, 4072, 4072)).toEqual(Buffer.alloc(4072, 1));
  });

  it('refuses an msize too small for anything (VE-4)', async () => {
    for (const msize of [0, 7, 100, 4095]) {
      const wire = await harness.unversionedConnection();
      const reply = await wire.version(msize);
      if (reply.type === 101) expect(agreed(reply).version).toBe('unknown');
      else expect(reply.ecode).toBe(90);
      expect((await wire.version()).type).toBe(101);
    }
  });

  it('answers other dialects with "unknown", after which the right one still works (VE-5)', async () => {
    for (const version of ['9P2000', '9P2000.u', '', '9p2000.l', '\xff', 'x'.repeat(8000)]) {
      const wire = await harness.unversionedConnection();
      const reply = await wire.version(8192, version);
      expect(agreed(reply).version).toBe('unknown');
      const attach = await wire.request('attach', { fid: 0, afid: 0xffff_ffff, uname: '', aname: '' });
      expect(attach.type).toBe(7);
      expect(agreed(await wire.version()).version).toBe('9P2000.L');
    }
  });

  it('must come first (VE-6)', async () => {
    const wire = await harness.unversionedConnection();
    for (const op of ['attach', 'walk', 'clunk', 'flush', 'read'] as const) {
      const reply = await wire.request(op, { uname: '', aname: '', wname: [] });
      expect(reply.type).toBe(7);
      expect(reply.ecode).toBeGreaterThan(0);
    }
    expect((await wire.version()).type).toBe(101);
  });

  it('again forgets every fid and every lock, and what waits is never answered (VE-7)', async () => {
    const { a, wire, other } = await harness.contended();
    wire.say('lock', { ...harness.lockFields, fid: 1, flags: 1 }, 7);
    const reply = await wire.version();
    expect(reply).toMatchObject({ type: 101, tag: NOTAG });
    await a.request('lock', { ...harness.lockFields, fid: 1, type: 2 });
    expect((await wire.request('getattr', { fid: 0 }, 8)).ecode).toBe(9);
    expect((await wire.request('getattr', { fid: 1 }, 8)).ecode).toBe(9);
    expect((await other.request('lock', { ...harness.lockFields, fid: 1 })).body[0]).toBe(0);
    expect(wire.replies).toEqual([]);
  });

  it('again makes the new msize count (VE-8)', async () => {
    const { c, dir, name } = await harness.begin();
    await c.file(dir, 'f', Buffer.alloc(20_000, 1));
    const wire = await harness.wire();
    await wire.version(4096);
    await wire.request('attach', { fid: 0, afid: 0xffff_ffff, uname: '', aname: '' });
    await wire.request('walk', { fid: 0, newfid: 1, wname: [name, 'f'] });
    await wire.request('lopen', { fid: 1, flags: 0 });
    const { body: content } = await wire.request('read', { fid: 1, offset: 0, count: 20_000 });
    expect(content.length + 7).toBeLessThanOrEqual(4096);
    const bytes = getattr(1);
    bytes.writeUInt32LE(4097, 0);
    wire.send(bytes);
    await wire.closed();
  });
});
