import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nameOf } from '../../src/name.ts';
import { dialect, NOTAG } from '../../src/protocol/constants.ts';
import { patienceMs } from '../../src/session/tags.ts';
import type { Tree } from '../../src/tree/tree.ts';
import { Gate, Ground, Talk, turns, waiting } from './session-fixture.ts';

const version = { msize: 8192, version: dialect };
const f = nameOf('f');

describe('a second Tversion', () => {
  let ground: Ground;
  let tree: Tree;
  let gate: Gate;
  let talk: Talk;

  beforeEach(async () => {
    ground = new Ground();
    writeFileSync(ground.path('f'), 'content');
    gate = new Gate();
    tree = await ground.tree();
    talk = await new Talk(waiting(tree, gate, ['read', 'write', 'stat', 'sync'])).begin();
    await talk.request('walk', { fid: 0, newfid: 1, wname: [f] });
    await talk.request('lopen', { fid: 1, flags: 2 });
    gate.close();
  });
  afterEach(async () => {
    gate.open();
    await talk.session.close();
    ground.close();
  });

  const write = (tag: number) =>
    talk.say('write', tag, { fid: 1, offset: 0, data: { count: 3, bytes: Buffer.from('CON') } });

  it('is answered when the last write of the old session has landed, and not before', async () => {
    write(5);
    talk.say('version', NOTAG, version);
    // However long that takes.
    await new Promise(resolve => setTimeout(resolve, 2 * patienceMs));
    expect(talk.takeTags()).toEqual([]);
    expect(readFileSync(ground.path('f'), 'utf8')).toBe('content');
    gate.open();
    await turns();
    expect(talk.takeTags()).toEqual([NOTAG]);
    expect(readFileSync(ground.path('f'), 'utf8')).toBe('CONtent');
    expect(talk.session.counts()).toMatchObject({ fids: 0, requests: 0 });
  });

  it('waits for nothing that can only look', async () => {
    talk.say('read', 5, { fid: 1, offset: 0, count: 3 });
    talk.say('getattr', 6, { fid: 1, request_mask: { low: 0x7ff, high: 0 } });
    talk.say('fsync', 7, { fid: 1, datasync: 0 });
    talk.say('version', NOTAG, version);
    expect(talk.takeTags()).toEqual([NOTAG]);
  });

  it('has no session until it is answered, and a third one ends it', async () => {
    write(5);
    talk.say('version', NOTAG, version);
    talk.say('clunk', 6, { fid: 1 });
    expect(talk.takeTags()).toEqual([6]);
    talk.say('version', NOTAG, { ...version, msize: 16_384 });
    await turns();
    expect(talk.takeTags()).toEqual([]);
    gate.open();
    await turns();
    expect(talk.takeTags()).toEqual([NOTAG]);
    expect(talk.hungUp).toBeUndefined();
    expect(talk.session.frameBytesMax).toBe(16_384);
  });

  it('is answered when the locks of the old session are free', async () => {
    gate.open();
    const lock = { type: 1, start: 0, length: 0, proc_id: 1, client_id: 'a' };
    const other = await new Talk(tree).begin();
    await other.request('walk', { fid: 0, newfid: 1, wname: [f] });
    await other.request('lopen', { fid: 1, flags: 2 });
    const mine = await new Talk(tree).begin();
    await mine.request('walk', { fid: 0, newfid: 1, wname: [f] });
    await mine.request('lopen', { fid: 1, flags: 2 });
    expect((await mine.request('lock', { ...lock, fid: 1, flags: 0 })).status).toBe(0);
    // And one that waits is called off.
    other.say('lock', 7, { ...lock, fid: 1, flags: 1 });
    await turns();
    mine.say('lock', 8, { ...lock, fid: 1, flags: 1, proc_id: 2 });
    await turns();
    await mine.request('version', version);
    await turns();
    expect(other.takeTags()).toEqual([7]);
    expect(mine.takeTags()).toEqual([]);
    await Promise.all([mine.session.close(), other.session.close()]);
  });
});
