import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nameOf } from '#base/name.ts';
import { dialect, NOTAG } from '#protocol/constants.ts';
import { defaultLimits } from '#quota/limits.ts';
import { Barrier, SessionHarness, TempExport, turns, until, waiting } from './harness.ts';

const lock = { fid: 2, type: 1, flags: 1, start: 0, length: 0, proc_id: 1, client_id: 'vm' };

describe('a session whose tree blocks', () => {
  let tempExport: TempExport;
  let barrier: Barrier;
  let harness: SessionHarness;
  const f = nameOf('f');

  beforeEach(async () => {
    tempExport = new TempExport();
    barrier = new Barrier();
    writeFileSync(tempExport.path('f'), 'content');
    const tree = waiting(await tempExport.tree(), barrier, [
      'walk',
      'stat',
      'read',
      'write',
      'make',
      'readdir',
      'getXattr',
    ]);
    harness = await new SessionHarness(tree).begin();
    await harness.request('walk', { fid: 0, newfid: 1, wname: [f] });
    await harness.request('walk', { fid: 1, newfid: 2, wname: [] });
    await harness.request('lopen', { fid: 2, flags: 2 });
    barrier.close();
  });

  afterEach(async () => {
    barrier.open();
    await harness.session.close();
    expect(harness.session.counts()).toEqual({ fids: 0, requests: 0, locks: 0, xattrBytes: 0 });
    expect(harness.errors).toEqual([]);
    // The roots of the trees; one test has two.
    expect(tempExport.descriptors.count).toBeLessThanOrEqual(2);
    tempExport.close();
  });

  it('answers the flush of a read at once and discards the late data', async () => {
    harness.send('read', 5, { fid: 2, offset: 0, count: 100 });
    harness.send('flush', 6, { oldtag: 5 });
    expect(harness.takeTags()).toEqual([6]);
    barrier.open();
    await turns();
    expect(harness.takeTags()).toEqual([]);
    expect(harness.dropped).toBe(1);
  });

  it('allows reuse of a flushed tag while the old request still runs', async () => {
    harness.send('read', 5, { fid: 2, offset: 0, count: 3 });
    harness.send('flush', 6, { oldtag: 5 });
    harness.takeTags();
    harness.send('read', 5, { fid: 2, offset: 3, count: 4 });
    barrier.open();
    // The read runs on a pool thread.
    await until(() => harness.replies.length > 0);
    const [reply] = harness.replies;
    expect(harness.takeTags()).toEqual([5]);
    expect(reply!.frame.toString('latin1', 11)).toBe('tent');
  });

  it('answers a flushed write, then each of its flushes in order', async () => {
    harness.send('write', 5, { fid: 2, offset: 0, data: { count: 3, bytes: Buffer.from('CON') } });
    for (const tag of [6, 7, 8]) harness.send('flush', tag, { oldtag: 5 });
    await turns();
    expect(harness.takeTags()).toEqual([]);
    barrier.open();
    await turns();
    expect(harness.takeTags()).toEqual([5, 6, 7, 8]);
    expect(readFileSync(tempExport.path('f'), 'latin1')).toBe('CONtent');
  });

  it('answers a flush of a flush after it', async () => {
    harness.send('mkdir', 5, { dfid: 0, name: nameOf('d'), mode: 0o755, gid: 0 });
    harness.send('flush', 6, { oldtag: 5 });
    harness.send('flush', 7, { oldtag: 6 });
    barrier.open();
    await turns(100);
    expect(harness.takeTags()).toEqual([5, 6, 7]);
  });

  it('answers at once the flush of an unknown tag and of its own tag', () => {
    harness.send('flush', 5, { oldtag: 99 });
    harness.send('flush', 6, { oldtag: 6 });
    expect(harness.takeTags()).toEqual([5, 6]);
  });

  it('reserves a newfid until the walk ends, and frees it on flush', async () => {
    harness.send('walk', 5, { fid: 0, newfid: 9, wname: [f] });
    expect(await harness.errno('clunk', { fid: 9 })).toBe('EBADF');
    expect(await harness.errno('walk', { fid: 1, newfid: 9, wname: [] })).toBe('EBADF');
    harness.send('flush', 6, { oldtag: 5 });
    expect(harness.takeTags()).toEqual([6]);
    expect(await harness.errno('walk', { fid: 1, newfid: 9, wname: [] })).toBe('none');
    barrier.open();
    await turns();
    expect(harness.takeTags()).toEqual([]);
    expect(await harness.errno('clunk', { fid: 9 })).toBe('none');
    expect(await harness.errno('clunk', { fid: 9 })).toBe('EBADF');
  });

  it('frees a newfid whose walk fails', async () => {
    harness.send('walk', 5, { fid: 0, newfid: 9, wname: [nameOf('absent')] });
    barrier.open();
    await turns();
    expect(harness.takeTags()).toEqual([5]);
    expect(await harness.errno('walk', { fid: 1, newfid: 9, wname: [] })).toBe('none');
  });

  it('moves a fid in place only if the whole walk succeeds, and refuses to open it meanwhile', async () => {
    barrier.open();
    await harness.request('mkdir', { dfid: 0, name: nameOf('d'), mode: 0o755, gid: 0 });
    await harness.request('walk', { fid: 0, newfid: 3, wname: [nameOf('d')] });
    barrier.close();
    harness.send('walk', 5, { fid: 3, newfid: 3, wname: ['..' as never, f] });
    expect(await harness.errno('lopen', { fid: 3, flags: 0 })).toBe('EBADF');
    harness.send('flush', 6, { oldtag: 5 });
    expect(harness.takeTags()).toEqual([]);
    barrier.open();
    await turns();
    expect(harness.takeTags()).toEqual([5, 6]);
    expect((await harness.request('lopen', { fid: 3, flags: 0 })).qid.type).toBe(0);
  });

  it('gives a clunked number away while a read still uses the file', async () => {
    harness.send('read', 5, { fid: 2, offset: 0, count: 100 });
    expect(await harness.errno('clunk', { fid: 2 })).toBe('none');
    expect(await harness.errno('clunk', { fid: 2 })).toBe('EBADF');
    barrier.open();
    await harness.request('walk', { fid: 0, newfid: 2, wname: [] });
    await until(() => harness.replies.length > 0);
    const [reply] = harness.replies;
    expect(harness.takeTags()).toEqual([5]);
    expect(reply!.frame.toString('latin1', 11)).toBe('content');
  });

  it('sends no old reply after Tversion', async () => {
    harness.send('read', 5, { fid: 2, offset: 0, count: 100 });
    harness.send('write', 6, { fid: 2, offset: 0, data: { count: 1, bytes: Buffer.from('C') } });
    harness.send('walk', 7, { fid: 0, newfid: 9, wname: [f] });
    harness.send('flush', 8, { oldtag: 6 });
    harness.send('version', NOTAG, { msize: 8192, version: dialect });
    barrier.open();
    await turns();
    expect(harness.takeTags()).toEqual([NOTAG]);
    expect(harness.dropped).toBe(4);
    expect(harness.session.counts().fids).toBe(0);
    expect(await harness.errno('clunk', { fid: 0 })).toBe('EBADF');
  });

  it('closes the connection when a tag is reused before its reply', () => {
    harness.send('read', 5, { fid: 2, offset: 0, count: 1 });
    harness.send('clunk', 5, { fid: 1 });
    expect(harness.hungUp).toMatch(/tag 5/);
    harness.send('clunk', 6, { fid: 1 });
    expect(harness.takeTags()).toEqual([]);
  });

  it('runs the readdirs of a fid one after another', async () => {
    barrier.open();
    await harness.request('walk', { fid: 0, newfid: 4, wname: [] });
    await harness.request('lopen', { fid: 4, flags: 0 });
    barrier.close();
    for (const tag of [5, 6])
      harness.send('readdir', tag, { fid: 4, offset: { low: 0, high: 0 }, count: 4096 });
    await turns();
    expect(barrier.waiting).toBe(1);
    barrier.open();
    await turns();
    const [one, two] = harness.replies;
    expect(harness.takeTags()).toEqual([5, 6]);
    expect(one!.frame.subarray(7)).toEqual(two!.frame.subarray(7));
  });

  it('takes no request while requestsPerSession run, and resumes the transport afterwards', async () => {
    for (let tag = 0; tag < defaultLimits.requestsPerSession; tag++) {
      expect(harness.takes).toBe(true);
      harness.send('read', tag, { fid: 2, offset: 0, count: 1 });
    }
    expect(harness.takes).toBe(false);
    barrier.open();
    await until(() => harness.replies.length === defaultLimits.requestsPerSession);
    expect(harness.takes).toBe(true);
    expect(harness.resumed).toBe(1);
    expect(harness.takeTags()).toHaveLength(defaultLimits.requestsPerSession);
  });

  it('takes no request while running reads use bytesPerSession', async () => {
    const large = await new SessionHarness(waiting(await tempExport.tree(), barrier, ['read'])).begin(
      1_048_576,
    );
    await large.request('walk', { fid: 0, newfid: 2, wname: [f] });
    await large.request('lopen', { fid: 2, flags: 0 });
    let tag = 0;
    while (large.takes) large.send('read', tag++, { fid: 2, offset: 0, count: 1_000_000 });
    expect(tag).toBeLessThan(50);
    barrier.open();
    await until(() => large.replies.length === tag);
    expect(large.takes).toBe(true);
    expect(large.resumed).toBe(1);
    await large.session.close();
  });

  it('finishes when all running requests are answered', async () => {
    harness.send('read', 5, { fid: 2, offset: 0, count: 1 });
    let finished = false;
    const finishing = harness.session.finish().then(() => {
      finished = true;
    });
    await turns();
    expect(finished).toBe(false);
    barrier.open();
    await finishing;
    expect(harness.takeTags()).toEqual([5]);
  });

  it('cancels a blocked lock on flush and at the end of its session', async () => {
    const other = await new SessionHarness(await tempExport.tree()).begin();
    barrier.open();
    await other.request('walk', { fid: 0, newfid: 2, wname: [f] });
    await other.request('lopen', { fid: 2, flags: 2 });
    expect((await other.request('lock', { ...lock, flags: 0 })).status).toBe(0);
    harness.send('lock', 5, lock);
    await turns();
    expect(harness.takeTags()).toEqual([]);
    harness.send('flush', 6, { oldtag: 5 });
    await turns();
    expect(harness.takeTags()).toEqual([6]);
    harness.send('lock', 5, lock);
    await turns();
    await other.session.close();
    await harness.session.close();
    expect(harness.takeTags()).toEqual([]);
    expect(harness.session.counts().locks).toBe(0);
  });
});

describe('a session', () => {
  it('answers an internal error with EIO, logs it with the request, and closes the connection', async () => {
    const tempExport = new TempExport();
    const tree = await tempExport.tree();
    const broken = new Proxy(tree, {
      get: (target, property) => {
        if (property === 'statfs') return () => (undefined as unknown as { oops(): void }).oops();
        const value: unknown = Reflect.get(target, property);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const harness = await new SessionHarness(broken).begin();
    expect(await harness.errno('statfs', { fid: 0 })).toBe('EIO');
    await turns();
    expect(harness.hungUp).toBeDefined();
    expect(harness.errors.join()).toMatch(/Tstatfs tag \d+ fid 0: TypeError/);
    await harness.session.close();
    tempExport.close();
  });
});
