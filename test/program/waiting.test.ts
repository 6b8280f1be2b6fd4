import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { Contention } from '#backend/local/contention.ts';
import { LocalTree } from '#backend/local/local-tree.ts';
import { Attr } from '#base/attr.ts';
import { EAGAIN, ECANCELED } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { asOwned } from '#base/owned.ts';
import { addon } from '#host/addon.ts';
import { commonThreads } from '#host/control-block.ts';
import { inline } from '#host/linux.ts';
import { pooledOn } from '#host/local.ts';
import { type Submitter, serverCreds as server } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { poolCallsPerSessionMax, poolThreadsPerVolumeMax } from '#quota/limits.ts';
import { mapped } from '#security/mapped.ts';
import { command } from '../support/compiled.ts';
import { contextOf } from '../support/context.ts';
import { SlowExt4 } from '../support/stalling/stalling.ts';

describe('the pool', () => {
  let top: string;
  let fd: number;
  const bytes = Buffer.alloc(1024 * 1024, 1);

  beforeAll(() => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-waiting-'));
    fd = openSync(join(top, 'f'), 'w+');
    addon.setPoolBounds(1, poolCallsPerSessionMax);
  });
  afterAll(() => {
    addon.setPoolBounds(poolThreadsPerVolumeMax, poolCallsPerSessionMax);
    closeSync(fd);
    rmSync(top, { recursive: true });
  });

  const write = (submitter: Submitter) =>
    pooledOn(commonThreads, submitter).write(server, fd, [asOwned(bytes)], 0) as Promise<number>;

  it('lets the queues of sessions take turns', async () => {
    const order: string[] = [];
    const submit = (who: string, queue: number, count: number) =>
      Array.from({ length: count }, () => write({ queue }).then(() => order.push(who)));
    const many = submit('many', 1, 400);
    const few = submit('few', 2, 5);
    await Promise.all(few);
    expect(order.filter(who => who === 'many').length).toBeLessThan(300);
    await Promise.all(many);
  });

  it('gives back a call that no thread has begun, and only such', async () => {
    const withdrawals: (() => boolean)[] = [];
    const submitter = { queue: 1, submitted: (withdraw: () => boolean) => void withdrawals.push(withdraw) };
    const first = write(submitter);
    const others = Array.from({ length: 20 }, () => write(submitter));
    const last = write(submitter);
    const withdrawFirst = withdrawals[0]!;
    const withdrawLast = withdrawals.at(-1)!;
    expect(withdrawLast()).toBe(true);
    await expect(last).rejects.toBe(ECANCELED);
    await Promise.all([first, ...others]);
    expect(withdrawFirst()).toBe(false);
    expect(withdrawLast()).toBe(false);
    expect(await first).toBe(bytes.length);
  });
});

describe('strain', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('lasts 200 times as long as a call has waited, from the last on', () => {
    const told: boolean[] = [];
    const strain = new Contention(strained => told.push(strained));
    strain.blocked(10);
    expect(told).toEqual([true]);
    vi.advanceTimersByTime(1500);
    strain.blocked(10);
    vi.advanceTimersByTime(1500);
    expect(told).toEqual([true]);
    vi.advanceTimersByTime(600);
    expect(told).toEqual([true, false]);
  });

  it('lasts as long as calls that are known to take long', async () => {
    const told: boolean[] = [];
    const strain = new Contention(strained => told.push(strained));
    const ends: (() => void)[] = [];
    const calls = [0, 1].map(() => new Promise<void>(resolve => void ends.push(resolve)));
    for (const call of calls) strain.during(call);
    for (const [i, end] of ends.entries()) {
      expect(told).toEqual([true]);
      end();
      await calls[i];
    }
    expect(told).toEqual([true, false]);
  });
});

describe('a read on ext4', () => {
  let top: string;
  let disk: SlowExt4;
  let path: string;
  const content = Buffer.from(Array.from({ length: 3 * 4096 }, (_, i) => i % 251));
  const dropCache = () =>
    command('dd', `of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none');

  beforeAll(async () => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-ext4-'));
    for (const name of ['disk', 'files']) mkdirSync(join(top, name));
    disk = await SlowExt4.mount(join(top, 'disk'), join(top, 'files'), 20);
    path = join(top, 'files', 'f');
    writeFileSync(path, content);
  });
  afterAll(async () => {
    await disk.end();
    rmSync(top, { recursive: true });
  });

  it('tells what is in memory, up to the end of the file', () => {
    const fd = openSync(path, 'r');
    const into = Buffer.alloc(20_000);
    expect(inline.readCached(server, fd, [into], 0)).toBe(content.length);
    expect(inline.readCached(server, fd, [into.subarray(0, 100)], 5000)).toBe(100);
    expect(inline.readCached(server, fd, [into], content.length)).toBe(0);
    dropCache();
    expect(inline.readCached(server, fd, [into], 0)).toBe(-EAGAIN.code);
    closeSync(fd);
  });

  it('of a tree is made at once into the memory it is given, and later into other memory when the disk is asked', async () => {
    const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined);
    const tree = await LocalTree.open(join(top, 'files'), { descriptors: new FdBudget(64), model });
    const actor = contextOf(server);
    const node = await tree.walk(actor, tree.root, nameOf('f'), new Attr());
    if (!('pathLow' in node)) throw node;
    const how = { read: true, write: false, truncate: false, sync: 'none' } as const;
    const file = await tree.open(actor, node, how);
    const into = Buffer.alloc(4096);
    const kept = Buffer.alloc(4096);
    dropCache();
    expect(tree.readNow(file, [into], 4096)).toBe(undefined);
    expect(into.every(byte => byte === 0)).toBe(true);
    const cold = tree.read(actor, file, [asOwned(kept)], 4096);
    expect(cold).toBeInstanceOf(Promise);
    expect(await cold).toBe(4096);
    expect(kept.equals(content.subarray(4096, 8192))).toBe(true);
    expect(tree.readNow(file, [into], 4096)).toBe(4096);
    expect(into.equals(kept)).toBe(true);
    tree.closeFile(file);
    tree.release(node);
    tree.close();
  });
});
