import { mkdtempSync, readdirSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import { Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { PinnedFdBudget, PinnedFds } from '#quota/pinned-fds.ts';
import { mapped } from '#security/mapped.ts';
import { SessionHarness } from '../session/harness.ts';

const max = 60;

describe('descriptors that are never given up', () => {
  it('are two thirds of all, and an even share of the last third', () => {
    const budget = new PinnedFdBudget(max);
    const [a, b] = [new PinnedFds(), new PinnedFds()];
    const fill = (pins: PinnedFds) => {
      while (budget.admits(pins, 1)) budget.add(pins, 1);
      return pins.count;
    };
    expect([fill(a), fill(b)]).toEqual([40, 10]);
    expect(budget.count).toBe(50);
    budget.add(a, -40);
    expect(fill(b)).toBe(40);
  });
});

describe('a session with many open files', () => {
  let dir: string;
  let descriptors: FdBudget;
  let tree: LocalTree;
  let greedy: SessionHarness;
  let other: SessionHarness;

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'ninepd-pins-'));
    descriptors = new FdBudget(max);
    const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => {});
    tree = await LocalTree.open(dir, { descriptors, model });
    greedy = await new SessionHarness(tree).begin();
    other = await new SessionHarness(tree).begin();
  });
  afterEach(async () => {
    await Promise.all([greedy.session.close(), other.session.close()]);
    expect(descriptors.count).toBe(1);
    expect(descriptors.mayPin(new PinnedFds())).toBe(true);
    expect([greedy.errors, other.errors]).toEqual([[], []]);
    tree.close();
    rmSync(dir, { recursive: true });
  });

  let fids = 10;

  /** Creates a file that contains its name; returns the open fid. */
  async function create(by: SessionHarness, name: string): Promise<number> {
    const fid = fids++;
    await by.request('walk', { fid: 0, newfid: fid, wname: [] });
    try {
      await by.request('lcreate', { fid, name: nameOf(name), flags: 2, mode: 0o644, gid: 0 });
    } catch (error) {
      await by.request('clunk', { fid });
      throw error;
    }
    const bytes = Buffer.from(name);
    await by.request('write', { fid, offset: 0, data: { count: bytes.length, bytes } });
    return fid;
  }

  const unlink = (by: SessionHarness, name: string) =>
    by.request('unlinkat', { dirfid: 0, name: nameOf(name), flags: 0 });

  async function failure(act: () => Promise<unknown>): Promise<string> {
    try {
      await act();
      return 'none';
    } catch (error) {
      if (error instanceof Errno) return error.name;
      throw error;
    }
  }

  async function content(by: SessionHarness, fid: number): Promise<string> {
    const { data } = await by.request('read', { fid, offset: 0, count: 20 });
    return Buffer.from(data.bytes!).toString();
  }

  it('opens nothing more when it has its share, keeps that, and leaves another his', async () => {
    const made: number[] = [];
    const taken = await failure(async () => {
      for (;;) {
        made.push(await create(greedy, `g${made.length}`));
        if (made.length % 2) await unlink(greedy, `g${made.length - 1}`);
      }
    });
    expect([taken, made.length]).toEqual(['EMFILE', 40]);
    expect(readdirSync(dir).length).toBe(20);
    await greedy.request('walk', { fid: 0, newfid: 1, wname: [] });
    expect(await greedy.errno('lopen', { fid: 1, flags: 0 })).toBe('EMFILE');
    for (let i = 0; i < 10; i++) {
      const fid = await create(other, `o${i}`);
      await unlink(other, `o${i}`);
      expect(await content(other, fid)).toBe(`o${i}`);
    }
    expect(await failure(() => create(other, 'more'))).toBe('EMFILE');
    for (const [i, fid] of made.entries()) expect(await content(greedy, fid)).toBe(`g${i}`);
    expect(descriptors.count).toBeLessThanOrEqual(max);
    for (const fid of made.splice(0, 11)) await greedy.request('clunk', { fid });
    expect(await greedy.errno('lopen', { fid: 1, flags: 0 })).toBe('none');
  });

  it('gets no more locks than it may have descriptors for, and another gets his', async () => {
    const opened = async (by: SessionHarness, count: number) => {
      const made: number[] = [];
      for (let i = 0; i < count; i++) made.push(await create(by, `l${fids}`));
      return made;
    };
    const locked = async (by: SessionHarness, made: readonly number[]) => {
      const lockFields = { type: 1, flags: 0, start: 0, length: 0, proc_id: 1, client_id: 'vm' };
      const results: string[] = [];
      for (const fid of made) results.push(await failure(() => by.request('lock', { ...lockFields, fid })));
      expect(new Set(results.splice(results.indexOf('ENOLCK')))).toEqual(new Set(['ENOLCK']));
      return results.length;
    };
    const [many, some] = [await opened(greedy, 25), await opened(other, 7)];
    expect(await locked(greedy, many)).toBe(8);
    expect(await locked(other, some)).toBe(3);
    expect(descriptors.count).toBeLessThanOrEqual(max);
  });

  it('loses none of them when others take the names and all other descriptors are taken', async () => {
    const made: number[] = [];
    for (let i = 0; i < 40; i++) made.push(await create(greedy, `g${i}`));
    for (let i = 0; i < 20; i++) await unlink(other, `g${i}`);
    for (let i = 20; i < 30; i++) unlinkSync(join(dir, `g${i}`));
    for (let i = 30; i < 40; i++) renameSync(join(dir, `g${i}`), join(dir, `h${i}`));
    for (let i = 0; i < 10; i++) await create(other, `o${i}`);
    for (let i = 0; i < 2 * max; i++) {
      writeFileSync(join(dir, `n${i}`), '');
      await other.request('walk', { fid: 0, newfid: 1000 + i, wname: [nameOf(`n${i}`)] });
    }
    expect(descriptors.count).toBeLessThanOrEqual(max);
    for (const [i, fid] of made.entries()) expect(await content(greedy, fid)).toBe(`g${i}`);
    for (const fid of made) await greedy.request('clunk', { fid });
    await create(greedy, 'again');
  });

  it('keeps objects without a name that nobody has open only as long as there is room', async () => {
    const names = Array.from({ length: max * 2 }, (_, i) => `f${i}`);
    for (const name of names) writeFileSync(join(dir, name), '');
    for (const [i, name] of names.entries()) {
      await other.request('walk', { fid: 0, newfid: 1000 + i, wname: [nameOf(name)] });
    }
    for (const name of names) await unlink(greedy, name);
    expect(descriptors.count).toBeLessThanOrEqual(max);
    const request_mask = { low: 0x7ff, high: 0 };
    const found: string[] = [];
    for (const i of names.keys()) found.push(await other.errno('getattr', { fid: 1000 + i, request_mask }));
    expect(found.filter(errno => errno === 'none').length).toBeGreaterThan(max / 2);
    expect(found.filter(errno => errno === 'ESTALE').length).toBeGreaterThan(max / 2);
  });
});
