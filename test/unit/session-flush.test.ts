import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { defaultLimits } from '../../src/limits.ts';
import { nameOf } from '../../src/name.ts';
import { dialect, NOTAG } from '../../src/protocol/constants.ts';
import { Gate, Ground, Talk, turns, until, waiting } from './session-fixture.ts';

const lock = { fid: 2, type: 1, flags: 1, start: 0, length: 0, proc_id: 1, client_id: 'vm' };

describe('a session whose tree waits', () => {
  let ground: Ground;
  let gate: Gate;
  let talk: Talk;
  const f = nameOf('f');

  beforeEach(async () => {
    ground = new Ground();
    gate = new Gate();
    writeFileSync(ground.path('f'), 'content');
    const tree = waiting(await ground.tree(), gate, [
      'walk',
      'stat',
      'read',
      'write',
      'make',
      'readdir',
      'getXattr',
    ]);
    talk = await new Talk(tree).begin();
    await talk.request('walk', { fid: 0, newfid: 1, wname: [f] });
    await talk.request('walk', { fid: 1, newfid: 2, wname: [] });
    await talk.request('lopen', { fid: 2, flags: 2 });
    gate.close();
  });

  afterEach(async () => {
    gate.open();
    await talk.session.close();
    expect(talk.session.counts()).toEqual({ fids: 0, requests: 0, locks: 0, xattrBytes: 0 });
    expect(talk.errors).toEqual([]);
    // The roots of the trees, of which one test has two.
    expect(ground.descriptors.count).toBeLessThanOrEqual(2);
    ground.close();
  });

  it('answers the flush of a read at once and throws the late data away', async () => {
    talk.say('read', 5, { fid: 2, offset: 0, count: 100 });
    talk.say('flush', 6, { oldtag: 5 });
    expect(talk.takeTags()).toEqual([6]);
    gate.open();
    await turns();
    expect(talk.takeTags()).toEqual([]);
    expect(talk.dropped).toBe(1);
  });

  it('lets the tag of a flushed request be used again while the old one still runs', async () => {
    talk.say('read', 5, { fid: 2, offset: 0, count: 3 });
    talk.say('flush', 6, { oldtag: 5 });
    talk.takeTags();
    talk.say('read', 5, { fid: 2, offset: 3, count: 4 });
    gate.open();
    // The read is made by a thread.
    await until(() => talk.replies.length > 0);
    const [reply] = talk.replies;
    expect(talk.takeTags()).toEqual([5]);
    expect(reply!.frame.toString('latin1', 11)).toBe('tent');
  });

  it('answers a flushed write first, then every flush in its order', async () => {
    talk.say('write', 5, { fid: 2, offset: 0, data: { count: 3, bytes: Buffer.from('CON') } });
    for (const tag of [6, 7, 8]) talk.say('flush', tag, { oldtag: 5 });
    await turns();
    expect(talk.takeTags()).toEqual([]);
    gate.open();
    await turns();
    expect(talk.takeTags()).toEqual([5, 6, 7, 8]);
    expect(readFileSync(ground.path('f'), 'latin1')).toBe('CONtent');
  });

  it('answers a flush of a flush after it', async () => {
    talk.say('mkdir', 5, { dfid: 0, name: nameOf('d'), mode: 0o755, gid: 0 });
    talk.say('flush', 6, { oldtag: 5 });
    talk.say('flush', 7, { oldtag: 6 });
    gate.open();
    await turns(100);
    expect(talk.takeTags()).toEqual([5, 6, 7]);
  });

  it('answers at once the flush of what it does not know, and of the flush itself', () => {
    talk.say('flush', 5, { oldtag: 99 });
    talk.say('flush', 6, { oldtag: 6 });
    expect(talk.takeTags()).toEqual([5, 6]);
  });

  it('keeps a newfid to itself until the walk is done, and frees it with the flush', async () => {
    talk.say('walk', 5, { fid: 0, newfid: 9, wname: [f] });
    expect(await talk.errno('clunk', { fid: 9 })).toBe('EBADF');
    expect(await talk.errno('walk', { fid: 1, newfid: 9, wname: [] })).toBe('EBADF');
    talk.say('flush', 6, { oldtag: 5 });
    expect(talk.takeTags()).toEqual([6]);
    expect(await talk.errno('walk', { fid: 1, newfid: 9, wname: [] })).toBe('none');
    gate.open();
    await turns();
    expect(talk.takeTags()).toEqual([]);
    expect(await talk.errno('clunk', { fid: 9 })).toBe('none');
    expect(await talk.errno('clunk', { fid: 9 })).toBe('EBADF');
  });

  it('frees a newfid whose walk fails', async () => {
    talk.say('walk', 5, { fid: 0, newfid: 9, wname: [nameOf('absent')] });
    gate.open();
    await turns();
    expect(talk.takeTags()).toEqual([5]);
    expect(await talk.errno('walk', { fid: 1, newfid: 9, wname: [] })).toBe('none');
  });

  it('moves a fid in place only when all of a walk succeeds, and lets nobody turn it meanwhile', async () => {
    gate.open();
    await talk.request('mkdir', { dfid: 0, name: nameOf('d'), mode: 0o755, gid: 0 });
    await talk.request('walk', { fid: 0, newfid: 3, wname: [nameOf('d')] });
    gate.close();
    talk.say('walk', 5, { fid: 3, newfid: 3, wname: ['..' as never, f] });
    expect(await talk.errno('lopen', { fid: 3, flags: 0 })).toBe('EBADF');
    talk.say('flush', 6, { oldtag: 5 });
    expect(talk.takeTags()).toEqual([]);
    gate.open();
    await turns();
    expect(talk.takeTags()).toEqual([5, 6]);
    expect((await talk.request('lopen', { fid: 3, flags: 0 })).qid.type).toBe(0);
  });

  it('gives a clunked number away while a read still uses the file', async () => {
    talk.say('read', 5, { fid: 2, offset: 0, count: 100 });
    expect(await talk.errno('clunk', { fid: 2 })).toBe('none');
    expect(await talk.errno('clunk', { fid: 2 })).toBe('EBADF');
    gate.open();
    await talk.request('walk', { fid: 0, newfid: 2, wname: [] });
    await until(() => talk.replies.length > 0);
    const [reply] = talk.replies;
    expect(talk.takeTags()).toEqual([5]);
    expect(reply!.frame.toString('latin1', 11)).toBe('content');
  });

  it('answers nothing old after a version, whatever was running', async () => {
    talk.say('read', 5, { fid: 2, offset: 0, count: 100 });
    talk.say('write', 6, { fid: 2, offset: 0, data: { count: 1, bytes: Buffer.from('C') } });
    talk.say('walk', 7, { fid: 0, newfid: 9, wname: [f] });
    talk.say('flush', 8, { oldtag: 6 });
    talk.say('version', NOTAG, { msize: 8192, version: dialect });
    gate.open();
    await turns();
    expect(talk.takeTags()).toEqual([NOTAG]);
    expect(talk.dropped).toBe(4);
    expect(talk.session.counts().fids).toBe(0);
    expect(await talk.errno('clunk', { fid: 0 })).toBe('EBADF');
  });

  it('hangs up on a tag that is used again before its reply', () => {
    talk.say('read', 5, { fid: 2, offset: 0, count: 1 });
    talk.say('clunk', 5, { fid: 1 });
    expect(talk.hungUp).toMatch(/tag 5/);
    talk.say('clunk', 6, { fid: 1 });
    expect(talk.takeTags()).toEqual([]);
  });

  it('lists a directory for one request after the other', async () => {
    gate.open();
    await talk.request('walk', { fid: 0, newfid: 4, wname: [] });
    await talk.request('lopen', { fid: 4, flags: 0 });
    gate.close();
    for (const tag of [5, 6]) talk.say('readdir', tag, { fid: 4, offset: { low: 0, high: 0 }, count: 4096 });
    await turns();
    expect(gate.waiting).toBe(1);
    gate.open();
    await turns();
    const [one, two] = talk.replies;
    expect(talk.takeTags()).toEqual([5, 6]);
    expect(one!.frame.subarray(7)).toEqual(two!.frame.subarray(7));
  });

  it('is full when so many requests run, and says when it has room again', async () => {
    for (let tag = 0; tag < defaultLimits.requestsPerSession; tag++) {
      expect(talk.takes).toBe(true);
      talk.say('read', tag, { fid: 2, offset: 0, count: 1 });
    }
    expect(talk.takes).toBe(false);
    gate.open();
    await until(() => talk.replies.length === defaultLimits.requestsPerSession);
    expect(talk.takes).toBe(true);
    expect(talk.resumed).toBe(1);
    expect(talk.takeTags()).toHaveLength(defaultLimits.requestsPerSession);
  });

  it('is full when the reads that run need much memory', async () => {
    const large = await new Talk(waiting(await ground.tree(), gate, ['read'])).begin(1_048_576);
    await large.request('walk', { fid: 0, newfid: 2, wname: [f] });
    await large.request('lopen', { fid: 2, flags: 0 });
    let tag = 0;
    while (large.takes) large.say('read', tag++, { fid: 2, offset: 0, count: 1_000_000 });
    expect(tag).toBeLessThan(50);
    gate.open();
    await until(() => large.replies.length === tag);
    expect(large.takes).toBe(true);
    expect(large.resumed).toBe(1);
    await large.session.close();
  });

  it('finishes when what runs is answered', async () => {
    talk.say('read', 5, { fid: 2, offset: 0, count: 1 });
    let finished = false;
    const finishing = talk.session.finish().then(() => {
      finished = true;
    });
    await turns();
    expect(finished).toBe(false);
    gate.open();
    await finishing;
    expect(talk.takeTags()).toEqual([5]);
  });

  it('calls a blocked lock off with its flush, and with the end of its session', async () => {
    const other = await new Talk(await ground.tree()).begin();
    gate.open();
    await other.request('walk', { fid: 0, newfid: 2, wname: [f] });
    await other.request('lopen', { fid: 2, flags: 2 });
    expect((await other.request('lock', { ...lock, flags: 0 })).status).toBe(0);
    talk.say('lock', 5, lock);
    await turns();
    expect(talk.takeTags()).toEqual([]);
    talk.say('flush', 6, { oldtag: 5 });
    await turns();
    expect(talk.takeTags()).toEqual([6]);
    talk.say('lock', 5, lock);
    await turns();
    await other.session.close();
    await talk.session.close();
    expect(talk.takeTags()).toEqual([]);
    expect(talk.session.counts().locks).toBe(0);
  });
});

describe('a session', () => {
  it('survives a fault of its own: that connection ends with EIO, and the fault is logged with its request', async () => {
    const ground = new Ground();
    const tree = await ground.tree();
    const broken = new Proxy(tree, {
      get: (target, property) => {
        if (property === 'statfs') return () => (undefined as unknown as { oops(): void }).oops();
        const value: unknown = Reflect.get(target, property);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const talk = await new Talk(broken).begin();
    expect(await talk.errno('statfs', { fid: 0 })).toBe('EIO');
    await turns();
    expect(talk.hungUp).toBeDefined();
    expect(talk.errors.join()).toMatch(/Tstatfs tag \d+ fid 0: TypeError/);
    await talk.session.close();
    ground.close();
  });
});
