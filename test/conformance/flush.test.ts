import { expect, it } from 'vitest';
import { conform } from './server-harness.ts';

const Rflush = 109;
const Rlock = 53;
const Rlerror = 7;

conform('Tflush', harness => {
  it('of an unknown tag, of its own and of one that was answered is answered at once (FL-1, FL-2)', async () => {
    const wire = await harness.wire();
    for (const oldtag of [0, 1, 4711, 0xffff, 0xfffe])
      expect(await wire.request('flush', { oldtag })).toMatchObject({ type: Rflush, tag: 1 });
    await wire.request('getattr', { fid: 0 }, 3);
    expect(await wire.request('flush', { oldtag: 3 }, 3)).toMatchObject({ type: Rflush, tag: 3 });
  });

  it('of a lock that waits calls it off (FL-3)', async () => {
    const { a, wire, other } = await harness.contended();
    wire.say('lock', { ...harness.lockFields, fid: 1, flags: 1 }, 5);
    wire.say('flush', { oldtag: 5 }, 6);
    const replies = [await wire.next()];
    if (replies[0]!.type !== Rflush) replies.push(await wire.next());
    expect(replies.at(-1)).toMatchObject({ type: Rflush, tag: 6 });
    if (replies.length === 2) expect([Rlerror, Rlock]).toContain(replies[0]!.type);
    // The tag is free, the lock is not held, and no further reply comes.
    expect(await wire.request('getattr', { fid: 0 }, 5)).toMatchObject({ type: 25, tag: 5 });
    await a.request('lock', { ...harness.lockFields, fid: 1, type: 2 });
    expect((await other.request('lock', { ...harness.lockFields, fid: 1 })).body[0]).toBe(0);
    await harness.pause(50);
    expect(wire.replies).toEqual([]);
  });

  it('of a request that runs comes behind its reply, if there is one (FL-4)', async () => {
    const { wire } = await harness.contended();
    const data = Buffer.alloc(100_000, 1);
    for (let round = 0; round < 30; round++) {
      wire.say('write', { fid: 1, offset: 0, data }, 5);
      wire.say('flush', { oldtag: 5 }, 6);
      const first = await wire.next();
      if (first.type === Rflush && harness.backend.differs.requests === 'may wait') continue;
      expect(first).toMatchObject({ type: 119, tag: 5 });
      expect(await wire.next()).toMatchObject({ type: Rflush, tag: 6 });
    }
    for (let round = 0; round < 30; round++) {
      wire.say('read', { fid: 1, offset: 0, count: 100_000 }, 5);
      wire.say('flush', { oldtag: 5 }, 6);
      const first = await wire.next();
      if (first.type !== Rflush) expect(await wire.next()).toMatchObject({ type: Rflush, tag: 6 });
    }
    await harness.pause(20);
    expect(wire.replies).toEqual([]);
  });

  it('of what changes something never leaves the change without a reply (FL-4)', async () => {
    const { wire } = await harness.contended();
    for (let round = 0; round < 30; round++) {
      wire.say('mkdir', { dfid: 2, name: `d${round}`, mode: 0o755, gid: 0 }, 5);
      wire.say('flush', { oldtag: 5 }, 6);
      const first = await wire.next();
      if (first.type !== Rflush) {
        expect(first).toMatchObject({ type: 73, tag: 5 });
        expect(await wire.next()).toMatchObject({ type: Rflush, tag: 6 });
      }
      const found = await wire.request('walk', { fid: 2, newfid: 100 + round, wname: [`d${round}`] });
      expect(found.type === 111).toBe(first.type !== Rflush);
    }
  });

  it('of one tag by three is answered three times, in order (FL-5)', async () => {
    const { wire } = await harness.contended();
    wire.say('lock', { ...harness.lockFields, fid: 1, flags: 1 }, 5);
    for (const tag of [6, 7, 8]) wire.say('flush', { oldtag: 5 }, tag);
    const replies = await wire.nextOf(3);
    if (replies[0]!.tag === 5) replies.push(...(await wire.nextOf(1)));
    expect(replies.filter(({ type }) => type === Rflush).map(({ tag }) => tag)).toEqual([6, 7, 8]);
    wire.say('fsync', { fid: 1, datasync: 0 }, 5);
    for (const tag of [6, 7, 8]) wire.say('flush', { oldtag: 5 }, tag);
    const more = await wire.nextOf(3);
    if (more[0]!.tag === 5) more.push(await wire.next());
    expect(more.filter(({ type }) => type === Rflush).map(({ tag }) => tag)).toEqual([6, 7, 8]);
    await harness.pause(20);
    expect(wire.replies).toEqual([]);
  });

  it('of a walk that runs frees newfid, or the walk is answered (FL-4)', async () => {
    const { wire } = await harness.contended();
    for (let round = 0; round < 30; round++) {
      wire.say('walk', { fid: 2, newfid: 50, wname: ['f'] }, 5);
      wire.say('flush', { oldtag: 5 }, 6);
      const first = await wire.next();
      if (first.type !== Rflush) await wire.next();
      const clunk = await wire.request('clunk', { fid: 50 });
      expect(clunk.type).toBe(first.type === Rflush ? Rlerror : 121);
      expect((await wire.request('walk', { fid: 2, newfid: 50, wname: [] })).type).toBe(111);
      expect((await wire.request('clunk', { fid: 50 })).type).toBe(121);
    }
  });

  it('is answered while more requests wait than there are workers (FL-6)', async () => {
    const { wire } = await harness.contended();
    const tags = Array.from({ length: 200 }, (_, i) => 100 + i);
    for (const tag of tags) wire.say('lock', { ...harness.lockFields, fid: 1, proc_id: tag, flags: 1 }, tag);
    const before = performance.now();
    wire.say('flush', { oldtag: 9999 }, 6);
    expect(await wire.next()).toMatchObject({ type: Rflush, tag: 6 });
    expect(performance.now() - before).toBeLessThan(500);
    for (const tag of tags) wire.say('flush', { oldtag: tag }, 1000 + tag);
    const flushed = new Set<number>();
    while (flushed.size < tags.length) {
      const { type, tag } = await wire.next();
      if (type === Rflush) flushed.add(tag);
    }
  });
});
