import { expect, it } from 'vitest';
import { operations } from '#protocol/operations.ts';
import { body, frame, type Loose } from './raw-connection.ts';
import { conform, soon } from './server-harness.ts';
import { errnoOf, O } from './test-client.ts';

const MiB = 1024 * 1024;

const say = (op: 'walk' | 'read' | 'getattr', tag: number, fields: Readonly<Record<string, Loose>>) =>
  frame(operations[op].type, tag, body(op, fields));

conform('a connection', harness => {
  it('answers 1,000 requests in flight, whatever they ask (TR-1)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f', 'content');
    const open = await c.open(file, O.RDWR);
    const answers = Array.from({ length: 1000 }, (_, i) => {
      if (i % 4 === 0) return c.look(file).then(({ nlink }) => nlink === 1);
      if (i % 4 === 1) return c.read(open, 0, 7).then(data => data.toString() === 'content');
      if (i % 4 === 2) return c.mkdir(dir, `d${i}`).then(() => true);
      return c.write(open, 0, 'content').then(count => count === 7);
    });
    expect((await Promise.all(answers)).every(right => right)).toBe(true);
  });

  it('may have very many fids (TR-2)', { timeout: 120_000 }, async () => {
    const { c, dir, name } = await harness.begin();
    const names = Array.from({ length: harness.work(2000) }, (_, i) => `f${i}`);
    await Promise.all(names.map(one => c.mknod(dir, one, 0o100644)));
    const wire = await harness.wire();
    await wire.request('walk', { fid: 0, newfid: 1, wname: [name] });
    const before = process.memoryUsage().rss;
    const count = names.length;
    for (let round = 0; round < 100; round++) {
      const first = 10 + round * count;
      // Every tenth round walks to the files, the others clone the previous round's fids.
      const frames = names.map((one, i) =>
        round % 10 === 0
          ? say('walk', i, { fid: 1, newfid: first + i, wname: [one] })
          : say('walk', i, { fid: first + i - count, newfid: first + i, wname: [] }),
      );
      wire.send(Buffer.concat(frames));
      for (const { type } of await wire.nextOf(count)) if (type !== 111) throw new Error('a walk failed');
    }
    expect((await wire.request('getattr', { fid: 10 + 99 * count })).type).toBe(25);
    expect(process.memoryUsage().rss - before).toBeLessThan(300 * MiB);
  });

  it('that is cut leaves nothing of what was running (TR-3)', async () => {
    const { c, dir, name } = await harness.begin();
    await c.file(dir, 'f', Buffer.alloc(100_000));
    for (let i = 0; i < 20; i++) {
      const victim = await harness.connect();
      const fid = await victim.open(await victim.walk(0, name, 'f'), O.RDWR);
      const running = [
        victim.write(fid, 0, Buffer.alloc(60_000)),
        victim.read(fid, 0, 60_000),
        victim.call('fsync', { fid, datasync: 0 }),
        victim.call('lock', { ...harness.lockFields, fid, flags: 1 }),
        victim.call('lock', { ...harness.lockFields, fid, flags: 1, proc_id: 2 }),
        victim.create(await victim.walk(0, name), `made-${i}`),
        victim.list(0),
      ];
      const settled = Promise.allSettled(running);
      if (i % 2 === 0) await new Promise(resolve => setImmediate(resolve));
      victim.client.wire.socket.destroy();
      await settled;
    }
    await harness.settle(2);
    const fid = await c.open(await c.walk(dir, 'f'), O.RDWR);
    await soon(async () => expect((await c.call('lock', { ...harness.lockFields, fid })).status).toBe(0));
  });

  it('whose client does not read is not read from either, and takes no memory (TR-4)', async () => {
    const { c, dir, name } = await harness.begin();
    await c.file(dir, 'f', Buffer.alloc(100_000, 1));
    const wire = await harness.wire();
    await wire.request('walk', { fid: 0, newfid: 1, wname: [name, 'f'] });
    await wire.request('lopen', { fid: 1, flags: 0 });
    wire.socket.pause();
    const before = process.memoryUsage().arrayBuffers;
    const count = 1500;
    for (let tag = 0; tag < count; tag++) wire.send(say('read', tag, { fid: 1, offset: 0, count: 100_000 }));
    await harness.pause(150);
    const started = performance.now();
    expect((await c.look(dir)).type).toBe('directory');
    expect(performance.now() - started).toBeLessThan(400);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * MiB);
    wire.socket.resume();
    for (let seen = 0; seen < count; seen++) {
      const reply = await wire.next();
      if (reply.type !== 117 || reply.body.length !== 100_004) throw new Error(`reply ${seen} is broken`);
    }
  });

  it('answers short questions while long ones run (TR-1)', async () => {
    const { c, dir } = await harness.begin();
    const open = await c.create(dir, 'f');
    for (let i = 0; i < 32; i++) await c.write(open, i * 100_000, Buffer.alloc(100_000, i));
    const syncs = Array.from({ length: 8 }, () => c.call('fsync', { fid: open, datasync: 0 }));
    const started = performance.now();
    await c.look(dir);
    expect(performance.now() - started).toBeLessThan(250);
    await Promise.all(syncs);
  });
});

conform(
  'a tree in memory',
  harness => {
    it('writes as much as there is room for, and then says ENOSPC (IO-10)', async () => {
      const { c, dir } = await harness.begin();
      const fid = await c.create(dir, 'f');
      const data = Buffer.alloc(130_000, 1);
      let size = 0;
      let errno = 'none';
      while (errno === 'none') {
        errno = await errnoOf(
          c.write(fid, size, data).then(count => {
            expect(count).toBeGreaterThan(0);
            size += count;
          }),
        );
      }
      expect(errno).toBe('ENOSPC');
      expect((await c.look(fid)).size).toBe(size);
      expect(await errnoOf(c.file(dir, 'g', 'x'))).toBe('ENOSPC');
      await c.unlink(dir, 'f');
      await c.clunk(fid);
      await c.file(dir, 'h', 'x');
    });
  },
  { host: false },
);
