import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LocalTree } from '#backend/local/local-tree.ts';
import type { LocalNode } from '#backend/local/node.ts';
import type { LocalOpen } from '#backend/local/open-file.ts';
import type { OpenFile } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { EBADF, ENOLCK, Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { serverCreds } from '#host/syscalls.ts';
import { defaultLimits } from '#quota/limits.ts';
import { SessionQuota } from '#quota/session-quota.ts';
import { LockClient } from '#session/locks/lock-client.ts';
import { add, type Region, subtract } from '#session/locks/lock-regions.ts';
import type { LockRequest } from '#session/locks/lock-request.ts';
import { contextOf } from '../../support/context.ts';
import { TempExport, turns } from './harness.ts';

const through = { file: {} as OpenFile };

function region(owner: string, type: 0 | 1, start: number, end: number): Region<string> {
  return { owner, type, start, end, through, doubtful: false };
}

const short = (regions: readonly Region<string>[]) =>
  regions.map(one => `${one.owner}${one.type ? 'w' : 'r'}${one.start}-${one.end}`).sort();

describe('regions', () => {
  it('are split by an unlock in their middle', () => {
    expect(short(subtract([region('a', 1, 0, 100)], 'a', 40, 60))).toEqual(['aw0-40', 'aw60-100']);
    expect(short(subtract([region('a', 1, 0, Infinity)], 'a', 0, 10))).toEqual(['aw10-Infinity']);
  });

  it('of another owner are not changed by an unlock', () => {
    expect(short(subtract([region('a', 0, 0, 10), region('b', 0, 0, 10)], 'a', 0, Infinity))).toEqual([
      'br0-10',
    ]);
  });

  it('change their type where a new one covers them', () => {
    expect(short(add([region('a', 0, 0, 100)], region('a', 1, 40, 60)))).toEqual([
      'ar0-40',
      'ar60-100',
      'aw40-60',
    ]);
  });

  it('merge with adjacent ones of the same type', () => {
    const held = [region('a', 1, 0, 10), region('a', 1, 20, 30), region('a', 0, 30, 40)];
    expect(short(add(held, region('a', 1, 10, 20)))).toEqual(['ar30-40', 'aw0-30']);
  });

  it('do not merge with regions of another fid', () => {
    const other = { ...region('a', 1, 10, 20), through: { file: {} as OpenFile } };
    expect(short(add([region('a', 1, 0, 10)], other))).toEqual(['aw0-10', 'aw10-20']);
  });
});

describe('locks', () => {
  let tempExport: TempExport;
  let tree: LocalTree;
  let opened: { tree: LocalTree; node: LocalNode; file: LocalOpen }[];
  const limits = { ...defaultLimits, locksPerFile: 60, locksPerSession: 100, waitingLocksPerSession: 2 };
  const a = new LockClient(new SessionQuota(limits));
  const b = new LockClient();
  const c = new LockClient();
  const READ = 0;
  const WRITE = 1;
  const UNLOCK = 2;

  async function open(
    of: LocalTree,
    name = 'f',
    write = true,
  ): Promise<{ file: LocalOpen; locked: boolean }> {
    const node = await of.walk(contextOf(serverCreds), of.root, nameOf(name), new Attr());
    if (node instanceof Errno) throw node;
    const actor = contextOf(serverCreds);
    const how = { read: true, write, truncate: false, sync: 'none' } as const;
    const file = await of.open(actor, node, how);
    opened.push({ tree: of, node, file });
    return { file, locked: true };
  }

  type Through = Awaited<ReturnType<typeof open>>;
  let fid: Through;
  /** A program that runs a file of the export, which cannot be opened for writing meanwhile (ETXTBSY). */
  let program: ChildProcess | undefined;

  const request = (
    client: LockClient,
    type: 0 | 1 | 2,
    { start = 0, length = 0, block = false, pid = 1, id = 'vm', by = fid } = {},
  ): LockRequest => client.ask(tree, by, { type, start, length }, block, id, pid);

  const ask = (...args: Parameters<typeof request>) => request(...args).outcome;

  /** The outcome of a request, or `waits`. */
  async function now(one: LockRequest): Promise<string> {
    await turns();
    return Promise.race([one.outcome, Promise.resolve('waits')]);
  }

  beforeEach(async () => {
    tempExport = new TempExport();
    writeFileSync(tempExport.path('f'), 'x');
    writeFileSync(tempExport.path('g'), 'x');
    tree = await tempExport.tree();
    opened = [];
    fid = await open(tree);
  });

  afterEach(async () => {
    await Promise.all([a, b, c].map(client => client.dropAll()));
    expect([a.count, b.count, c.count]).toEqual([0, 0, 0]);
    program?.kill();
    program = undefined;
    for (const one of opened) {
      one.tree.closeFile(one.file);
      one.tree.release(one.node);
    }
    tempExport.close();
  });

  it('of two sessions conflict even if client_id and proc_id are equal', async () => {
    expect(await ask(a, WRITE)).toBe('granted');
    expect(await ask(b, WRITE)).toBe('blocked');
    expect(await ask(b, READ)).toBe('blocked');
    expect(await ask(a, UNLOCK)).toBe('granted');
    expect(await ask(b, READ)).toBe('granted');
    expect(await ask(a, READ)).toBe('granted');
    expect(await ask(a, WRITE)).toBe('blocked');
  });

  it('of two processes of a session are separate', async () => {
    expect(await ask(a, READ, { pid: 1 })).toBe('granted');
    expect(await ask(a, READ, { pid: 2 })).toBe('granted');
    expect(await ask(a, UNLOCK, { pid: 1 })).toBe('granted');
    expect(await ask(b, WRITE)).toBe('blocked');
  });

  it('leave a range free that was unlocked in their middle', async () => {
    await ask(a, WRITE, { length: 100 });
    await ask(a, UNLOCK, { start: 40, length: 20 });
    expect(await ask(b, WRITE, { start: 40, length: 20 })).toBe('granted');
    expect(await ask(c, WRITE, { start: 39, length: 1 })).toBe('blocked');
    expect(await ask(c, WRITE, { start: 60, length: 1 })).toBe('blocked');
    expect(await ask(c, WRITE, { start: 100 })).toBe('granted');
  });

  it('conflict with those of another server in both directions', async () => {
    const outside = await tempExport.tree();
    const far = await open(outside);
    const owner = {};
    expect(await ask(a, WRITE, { length: 10 })).toBe('granted');
    expect(await outside.lock(owner, far.file, { type: WRITE, start: 5, length: 1 })).toBe(false);
    expect(await outside.lock(owner, far.file, { type: WRITE, start: 10, length: 1 })).toBe(true);
    expect(await ask(b, WRITE, { start: 10, length: 1 })).toBe('blocked');
    const found = await b.test(
      contextOf(serverCreds),
      tree,
      fid,
      { type: WRITE, start: 10, length: 1 },
      'vm',
      1,
    );
    expect(found).toMatchObject({ type: WRITE, start: 10, length: 1, procId: 1, clientId: '' });
    outside.forgetLocks(owner, far.file.node);
  });

  it('that wait for a lock outside the server are retried until it is released', async () => {
    const outside = await tempExport.tree();
    const far = await open(outside);
    const owner = {};
    await outside.lock(owner, far.file, { type: WRITE, start: 0, length: 0 });
    const waiting = request(a, WRITE, { block: true });
    expect(await now(waiting)).toBe('waits');
    await outside.lock(owner, far.file, { type: UNLOCK, start: 0, length: 0 });
    outside.forgetLocks(owner, far.file.node);
    expect(await waiting.outcome).toBe('granted');
  });

  it('are granted in the order of the requests', async () => {
    await ask(a, WRITE);
    const first = request(b, WRITE, { block: true });
    const second = request(c, WRITE, { block: true });
    expect(await now(second)).toBe('waits');
    await ask(a, UNLOCK);
    expect(await first.outcome).toBe('granted');
    expect(await now(second)).toBe('waits');
    await ask(b, UNLOCK);
    expect(await second.outcome).toBe('granted');
  });

  it('wait for held locks and not for waiting ones: no deadlock that fcntl(2) does not have', async () => {
    await ask(a, READ, { pid: 1 });
    const writer = request(b, WRITE, { block: true });
    expect(await now(writer)).toBe('waits');
    // A child that the holder waits for, then another guest: if the waiting writer blocked them, none could continue.
    expect(await now(request(a, READ, { pid: 2, block: true }))).toBe('granted');
    expect(await now(request(c, READ, { block: true }))).toBe('granted');
    expect(await now(writer)).toBe('waits');
    for (const [client, pid] of [
      [a, 1],
      [a, 2],
      [c, 1],
    ] as const)
      await ask(client, UNLOCK, { pid });
    expect(await writer.outcome).toBe('granted');
  });

  it('are refused exactly when Tgetlock returns a conflict', async () => {
    await ask(a, READ);
    const writer = request(b, WRITE, { block: true });
    expect(await now(writer)).toBe('waits');
    for (const [type, outcome] of [
      [READ, 'granted'],
      [WRITE, 'blocked'],
    ] as const) {
      const found = await c.test(contextOf(serverCreds), tree, fid, { type, start: 5, length: 1 }, 'vm', 1);
      expect(found === undefined).toBe(outcome === 'granted');
      expect(await ask(c, type, { start: 5, length: 1 })).toBe(outcome);
    }
  });

  it('that wait are retried in order, also after a cancellation before them', async () => {
    await ask(a, WRITE);
    const writer = request(b, WRITE, { block: true });
    const reader = request(c, READ, { block: true });
    const next = request(a, WRITE, { pid: 2, block: true });
    expect(await now(next)).toBe('waits');
    b.cancel(tree, writer);
    expect(await writer.outcome).toBe('cancelled');
    expect(await now(reader)).toBe('waits');
    await ask(a, UNLOCK);
    expect(await reader.outcome).toBe('granted');
    expect(await now(next)).toBe('waits');
    await ask(c, UNLOCK);
    expect(await next.outcome).toBe('granted');
  });

  it('are granted when a write lock is downgraded to a read lock', async () => {
    await ask(a, WRITE);
    const reader = request(b, READ, { block: true });
    await turns();
    await ask(a, READ);
    expect(await reader.outcome).toBe('granted');
  });

  it('that are cancelled leave nothing behind', async () => {
    await ask(a, WRITE);
    const waiting = request(b, WRITE, { block: true });
    await turns();
    b.cancel(tree, waiting);
    expect(await waiting.outcome).toBe('cancelled');
    expect(b.count).toBe(0);
    // A request may be cancelled before it is tried and at any moment while it is.
    for (let steps = 0; steps < 20; steps++) {
      const early = request(b, WRITE, { block: true });
      for (let step = 0; step < steps; step++) await undefined;
      b.cancel(tree, early);
      expect(await now(early)).toBe('cancelled');
      expect(b.count).toBe(0);
    }
    await ask(a, UNLOCK);
    expect(await ask(c, WRITE)).toBe('granted');
  });

  it('for writing respect locks outside the server if the file cannot be opened for writing', async () => {
    copyFileSync('/bin/sleep', tempExport.path('busy'));
    program = spawn(tempExport.path('busy'), ['60'], { stdio: 'ignore' });
    await once(program, 'spawn');
    const by = await open(tree, 'busy', false);
    const far = await open(await tempExport.tree(), 'busy', false);
    const outside = opened.at(-1)!.tree;
    const owner = {};
    expect(await outside.lock(owner, far.file, { type: READ, start: 5, length: 1 })).toBe(true);
    const whole = { type: WRITE, start: 0, length: 0 } as const;
    expect(await a.test(contextOf(serverCreds), tree, by, whole, 'vm', 1)).toMatchObject({
      type: READ,
      start: 5,
      length: 1,
    });
    expect(await ask(a, WRITE, { by })).toBe('blocked');
    expect(await ask(a, WRITE, { by, start: 6 })).toBe('granted');
    expect(await outside.testLock(contextOf(serverCreds), owner, far.file, whole)).toMatchObject({
      start: 6,
    });
    expect(await outside.lock(owner, far.file, { type: WRITE, start: 10, length: 1 })).toBe(false);
    outside.forgetLocks(owner, far.file.node);
  });

  it('are released with their fid, and requests that wait through it fail with EBADF', async () => {
    const other = await open(tree);
    await ask(a, WRITE, { length: 10 });
    await ask(a, WRITE, { start: 20, length: 10, by: other });
    const waiting = request(b, WRITE, { start: 20, block: true, by: fid });
    const refused = expect(waiting.outcome).rejects.toBe(EBADF);
    await turns();
    await a.dropThrough(tree, fid);
    await refused;
    expect(await ask(c, WRITE, { length: 10 })).toBe('granted');
    expect(await ask(c, WRITE, { start: 20, length: 1 })).toBe('blocked');
  });

  it('are released with their session', async () => {
    await ask(a, WRITE);
    const waiting = request(b, WRITE, { block: true });
    await turns();
    await a.dropAll();
    expect(await waiting.outcome).toBe('granted');
  });

  it('that another process unlocked through the same fid yield to their own client only', async () => {
    await ask(a, WRITE, { pid: 1 });
    expect(await ask(a, UNLOCK, { pid: 2 })).toBe('granted');
    expect(await ask(b, WRITE)).toBe('blocked');
    expect(
      await a.test(contextOf(serverCreds), tree, fid, { type: WRITE, start: 0, length: 0 }, 'vm', 3),
    ).toBeUndefined();
    expect(await ask(a, WRITE, { pid: 3 })).toBe('granted');
    expect(await ask(a, WRITE, { pid: 1 })).toBe('blocked');
  });

  it('that yield to their own client are released as a whole, also for requests of others that wait', async () => {
    await ask(a, WRITE, { pid: 1, length: 100 });
    const elsewhere = request(b, WRITE, { start: 50, length: 10, block: true });
    const own = request(a, WRITE, { start: 0, length: 10, pid: 3, block: true });
    expect(await now(own)).toBe('waits');
    await ask(a, UNLOCK, { pid: 2 });
    expect(await own.outcome).toBe('granted');
    expect(await elsewhere.outcome).toBe('granted');
  });

  it('become doubtful only if the same client unlocks the whole file through the same fid', async () => {
    const other = await open(tree);
    await ask(a, WRITE, { pid: 1 });
    await ask(a, UNLOCK, { pid: 2, length: 10 });
    await ask(a, UNLOCK, { pid: 2, by: other });
    await ask(a, UNLOCK, { pid: 2, id: 'another' });
    expect(await ask(a, WRITE, { pid: 3 })).toBe('blocked');
  });

  it('are limited for each session and file', async () => {
    for (let at = 0; at < limits.locksPerFile; at++) {
      expect(await ask(a, READ, { start: at * 2, length: 1 })).toBe('granted');
    }
    await expect(ask(a, READ, { start: 1_000_000, length: 1 })).rejects.toBe(ENOLCK);
    expect(await ask(b, READ, { start: 1_000_000, length: 1 })).toBe('granted');
    expect(await ask(a, UNLOCK)).toBe('granted');
    expect(a.count).toBe(0);
  });

  it('are limited for each session', async () => {
    const second = await open(tree, 'g');
    for (let at = 0; at < 50; at++) {
      for (const by of [fid, second])
        expect(await ask(a, READ, { start: at * 2, length: 1, by })).toBe('granted');
    }
    expect(a.count).toBe(100);
    await expect(ask(a, READ, { start: 1_000_000, length: 1 })).rejects.toBe(ENOLCK);
    // An unlock never fails, and frees capacity.
    expect(await ask(a, UNLOCK, { start: 0, length: 1 })).toBe('granted');
    expect(await ask(a, READ, { start: 1_000_000, length: 1 })).toBe('granted');
  });

  it('wait up to waitingLocksPerSession; further requests get status BLOCKED', async () => {
    expect(await ask(b, WRITE)).toBe('granted');
    const waiting = [1, 2].map(pid => ask(a, WRITE, { pid, block: true }));
    await turns();
    expect(a.waiting).toBe(2);
    expect(await ask(a, WRITE, { pid: 3, block: true })).toBe('blocked');
    expect(await ask(b, UNLOCK)).toBe('granted');
    expect(await waiting[0]).toBe('granted');
    expect(await ask(a, UNLOCK, { pid: 1 })).toBe('granted');
    expect(await waiting[1]).toBe('granted');
    expect(a.waiting).toBe(0);
  });

  it('are described by Tgetlock', async () => {
    await ask(a, WRITE, { start: 3, length: 4, pid: 77, id: 'guest' });
    const found = await b.test(
      contextOf(serverCreds),
      tree,
      fid,
      { type: READ, start: 0, length: 0 },
      'vm',
      1,
    );
    expect(found).toEqual({ type: WRITE, start: 3, length: 4, procId: 77, clientId: 'guest' });
    expect(
      await b.test(contextOf(serverCreds), tree, fid, { type: WRITE, start: 7, length: 0 }, 'vm', 1),
    ).toBeUndefined();
  });
});
