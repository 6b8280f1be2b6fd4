import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Tree } from '#backend/tree.ts';
import { nameOf } from '#base/name.ts';
import { dialect, NOTAG } from '#protocol/constants.ts';
import { flushWaitMs } from '#session/request.ts';
import { Barrier, SessionHarness, TempExport, turns, waiting } from './harness.ts';

const version = { msize: 8192, version: dialect };
const f = nameOf('f');

describe('a second Tversion', () => {
  let tempExport: TempExport;
  let tree: Tree;
  let barrier: Barrier;
  let harness: SessionHarness;

  beforeEach(async () => {
    tempExport = new TempExport();
    writeFileSync(tempExport.path('f'), 'content');
    barrier = new Barrier();
    tree = await tempExport.tree();
    harness = await new SessionHarness(waiting(tree, barrier, ['read', 'write', 'stat', 'sync'])).begin();
    await harness.request('walk', { fid: 0, newfid: 1, wname: [f] });
    await harness.request('lopen', { fid: 1, flags: 2 });
    barrier.close();
  });
  afterEach(async () => {
    barrier.open();
    await harness.session.close();
    tempExport.close();
  });

  const write = (tag: number) =>
    harness.send('write', tag, { fid: 1, offset: 0, data: { count: 3, bytes: Buffer.from('CON') } });

  it('is answered after the last write of the old session has ended, and not before', async () => {
    write(5);
    harness.send('version', NOTAG, version);
    // Without a limit of time.
    await new Promise(resolve => setTimeout(resolve, 2 * flushWaitMs));
    expect(harness.takeTags()).toEqual([]);
    expect(readFileSync(tempExport.path('f'), 'utf8')).toBe('content');
    barrier.open();
    await turns();
    expect(harness.takeTags()).toEqual([NOTAG]);
    expect(readFileSync(tempExport.path('f'), 'utf8')).toBe('CONtent');
    expect(harness.session.counts()).toMatchObject({ fids: 0, requests: 0 });
  });

  it('does not wait for requests without an effect', async () => {
    harness.send('read', 5, { fid: 1, offset: 0, count: 3 });
    harness.send('getattr', 6, { fid: 1, request_mask: { low: 0x7ff, high: 0 } });
    harness.send('fsync', 7, { fid: 1, datasync: 0 });
    harness.send('version', NOTAG, version);
    expect(harness.takeTags()).toEqual([NOTAG]);
  });

  it('establishes no session until it is answered, and is dropped by a third one', async () => {
    write(5);
    harness.send('version', NOTAG, version);
    harness.send('clunk', 6, { fid: 1 });
    expect(harness.takeTags()).toEqual([6]);
    harness.send('version', NOTAG, { ...version, msize: 16_384 });
    await turns();
    expect(harness.takeTags()).toEqual([]);
    barrier.open();
    await turns();
    expect(harness.takeTags()).toEqual([NOTAG]);
    expect(harness.hungUp).toBeUndefined();
    expect(harness.session.msize).toBe(16_384);
  });

  it('is answered after the locks of the old session are released', async () => {
    barrier.open();
    const lock = { type: 1, start: 0, length: 0, proc_id: 1, client_id: 'a' };
    const other = await new SessionHarness(tree).begin();
    await other.request('walk', { fid: 0, newfid: 1, wname: [f] });
    await other.request('lopen', { fid: 1, flags: 2 });
    const mine = await new SessionHarness(tree).begin();
    await mine.request('walk', { fid: 0, newfid: 1, wname: [f] });
    await mine.request('lopen', { fid: 1, flags: 2 });
    expect((await mine.request('lock', { ...lock, fid: 1, flags: 0 })).status).toBe(0);
    // A waiting lock of the session is cancelled.
    other.send('lock', 7, { ...lock, fid: 1, flags: 1 });
    await turns();
    mine.send('lock', 8, { ...lock, fid: 1, flags: 1, proc_id: 2 });
    await turns();
    await mine.request('version', version);
    await turns();
    expect(other.takeTags()).toEqual([7]);
    expect(mine.takeTags()).toEqual([]);
    await Promise.all([mine.session.close(), other.session.close()]);
  });
});
