import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { LocalNode } from '#backend/local/node.ts';
import { Attr } from '#base/attr.ts';
import { EEXIST, ENOSPC } from '#base/errno.ts';
import { type Name, nameOf } from '#base/name.ts';
import { asOwned } from '#base/owned.ts';
import { O_PATH, O_RDONLY, O_RDWR } from '#host/constants.ts';
import { handOffBytesMax, threadsFor } from '#host/control-block.ts';
import { diskCalls } from '#host/local.ts';
import { type InlineSyscalls, serverCreds as server } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { command } from '../support/compiled.ts';
import { contextOf } from '../support/context.ts';
import { LoopDisk } from '../support/loop-disk.ts';
import { Stalling } from '../support/stalling/stalling.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests mount file systems and freeze them: run them as root (sudo npm test).');
}

const diskMebibytes = 24;
const lightBytes = 64 * 1024;
const largeBytes = 1024 * 1024;

let top: string;
let disk: LoopDisk;
const path = (name: string) => join(disk.path, name);

beforeAll(() => {
  top = mkdtempSync(join(tmpdir(), 'ninepd-hand-off-'));
  disk = new LoopDisk(top, 'disk', diskMebibytes, []);
});
afterAll(() => {
  disk.remove();
  rmSync(top, { recursive: true });
});

/** On a busy machine a call may take longer than the event loop waits for it, but not every time. */
async function expectAtOnce(act: () => unknown, wanted?: unknown): Promise<void> {
  let answer = act();
  for (let tries = 0; tries < 50 && answer instanceof Promise; tries++) {
    await answer;
    answer = act();
  }
  expect(answer).toBe(wanted);
}

/** Calls of a disk, and those for which the event loop stopped waiting. */
function callsOfDisk() {
  const late: Promise<unknown>[] = [];
  const nothing = () => undefined;
  const events = {
    onBlocked: nothing,
    onLate: (call: Promise<unknown>) => void late.push(call),
    onFreeing: nothing,
  };
  // Only pool and helper: a blocked call on this thread could not be released by the test.
  const { inlineCalls: calm } = diskCalls(threadsFor(77, false), 0, events);
  return { calm, late };
}

describe('a change that is handed off', () => {
  let calm: InlineSyscalls;
  let late: Promise<unknown>[];
  let dir: number;
  let file: number;

  beforeEach(() => {
    ({ calm, late } = callsOfDisk());
    dir = openSync(disk.path, O_RDONLY);
    file = openSync(path('file'), 'w+');
  });
  afterEach(() => {
    closeSync(file);
    closeSync(dir);
    for (const name of ['file', 'd', 'e']) rmSync(path(name), { recursive: true, force: true });
  });

  it('is answered at once where nothing holds it up', async () => {
    expect(await calm.write(server, file, [Buffer.from('con'), Buffer.from('tent')], 0)).toBe(7);
    expect(readFileSync(path('file'), 'latin1')).toBe('content');
    await expectAtOnce(() => calm.write(server, file, [Buffer.from('content')], 0), 7);
    await calm.mkdir(server, dir, nameOf('d'), 0o700);
    await expect((async () => calm.mkdir(server, dir, nameOf('d'), 0o700))()).rejects.toBe(EEXIST);
  });

  it('goes on by itself when it is held up, with data of its own, beside others', async () => {
    const data = Buffer.from('CONTENT');
    await calm.write(server, file, [Buffer.from('content')], 0);
    disk.freeze();
    let calls: unknown[];
    try {
      calls = [
        calm.write(server, file, [data.subarray(0, 3), data.subarray(3)], 0),
        calm.write(server, file, [Buffer.alloc(handOffBytesMax, 'x')], 7),
        calm.mkdir(server, dir, nameOf('d'), 0o700),
        calm.mkdir(server, dir, nameOf('d'), 0o700),
        calm.setxattr(server, file, 'user.x', data, 0),
      ];
      data.fill(0);
      for (const call of calls) expect(call).toBeInstanceOf(Promise);
      // Reads do not wait.
      const into = Buffer.alloc(7);
      expect(calm.read(server, file, [into], 0)).toBe(7);
      expect(into.toString()).toBe('content');
    } finally {
      disk.thaw();
    }
    expect(late.slice(-calls.length)).toEqual(calls);
    const outcomes = await Promise.allSettled(calls);
    expect(outcomes.map(one => (one.status === 'fulfilled' ? one.value : 'refused')).sort()).toEqual(
      [7, handOffBytesMax, 'refused', undefined, undefined].sort(),
    );
    expect(readFileSync(path('file'), 'latin1')).toBe(`CONTENT${'x'.repeat(handOffBytesMax)}`);
    const value = Buffer.alloc(7);
    expect(calm.getxattr(server, file, 'user.x', value)).toBe(7);
    expect(value.toString()).toBe('CONTENT');
    await expectAtOnce(() => calm.write(server, file, [Buffer.from('again')], 0), 5);
  });
});

describe('closing', () => {
  const { calm } = callsOfDisk();
  const name = () => path('closed');
  const isOpen = (fd: number) => {
    try {
      readFileSync(`/proc/self/fdinfo/${fd}`);
      return true;
    } catch {
      return false;
    }
  };
  const opened = (bytes: number, flags: number) => {
    writeFileSync(name(), Buffer.alloc(bytes));
    return openSync(name(), flags);
  };

  afterEach(() => rmSync(name(), { force: true }));

  it.each([
    ['what is light and has a name', lightBytes, O_RDWR],
    ['an O_PATH descriptor of what has a name', largeBytes, O_PATH],
  ])('is done at once for %s', (_what, bytes, flags) => {
    const fd = opened(bytes, flags);
    expect(calm.close(fd)).toBeUndefined();
    expect(isOpen(fd)).toBe(false);
  });

  it.each([
    ['that was written', lightBytes + 1, O_RDWR],
    ['that was read', largeBytes, O_RDONLY],
  ])('is done on the pool for a large file %s', async (_what, bytes, flags) => {
    const fd = opened(bytes, flags);
    const closed = calm.close(fd);
    expect(closed).toBeInstanceOf(Promise);
    await closed;
    expect(isOpen(fd)).toBe(false);
  });

  it.each([O_PATH, O_RDONLY])('is done on the pool for a large file that was removed (%i)', async flags => {
    const fd = opened(largeBytes, flags);
    unlinkSync(name());
    const closed = calm.close(fd);
    expect(closed).toBeInstanceOf(Promise);
    await closed;
    expect(isOpen(fd)).toBe(false);
  });

  it('is done on the pool for what has many blocks, whatever its size', async () => {
    writeFileSync(name(), 'x');
    command('fallocate', '--keep-size', '--length', String(largeBytes), name());
    const closed = calm.close(openSync(name(), O_RDWR));
    expect(closed).toBeInstanceOf(Promise);
    await closed;
  });
});

describe('a tree', () => {
  let tree: LocalTree;
  let descriptors: FdBudget;
  const actor = contextOf({ uid: 0, gid: 0, groups: [] });
  const rw = { read: true, write: true, truncate: false, sync: 'none' } as const;
  const n = (text: string): Name => nameOf(text);
  const makeLarge = (name: string) => writeFileSync(path(name), Buffer.alloc(largeBytes, 1));
  const found = async (name: string): Promise<LocalNode> => {
    const node = await tree.walk(actor, tree.root, n(name), new Attr());
    if (!('pathLow' in node)) throw node;
    return node;
  };

  beforeEach(async () => {
    const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined);
    descriptors = new FdBudget(64);
    tree = await LocalTree.open(disk.path, { descriptors, model });
    makeLarge('large');
    writeFileSync(path('small'), 'small');
  });
  afterEach(async () => {
    tree.close();
    await vi.waitFor(() => expect(descriptors.count).toBe(0), { timeout: 20_000 });
    for (const name of ['large', 'small', 'filling', 'new']) rmSync(path(name), { force: true });
  });

  it('truncates what is large on the pool, and what is not at once', async () => {
    const large = await found('large');
    const truncate = () => tree.change(actor, large, { size: 1 });
    const first = truncate();
    expect(first).toBeInstanceOf(Promise);
    await first;
    await expectAtOnce(truncate);
    tree.release(large);
  });

  it.each([
    ['removed', () => tree.unlink(actor, tree.root, n('large'), 'file')],
    ['replaced', () => tree.rename(actor, tree.root, n('small'), tree.root, n('large'))],
  ])('has freed a large file that is %s when it answers, and not on this thread', async (_how, act) => {
    const before = statfsSync(disk.path).bfree;
    const answer = act();
    expect(answer).toBeInstanceOf(Promise);
    await answer;
    expect(statfsSync(disk.path).bfree).toBeGreaterThanOrEqual(before + largeBytes / 4096);
  });

  it('finds room for a write while what was removed is still being freed', async () => {
    const large = await found('large');
    await tree.unlink(actor, tree.root, n('large'), 'file');
    writeFileSync(path('filling'), '');
    const node = await found('filling');
    const file = await tree.open(actor, node, rw);
    const piece = asOwned(Buffer.alloc(lightBytes, 2));
    let at = 0;
    const fill = async () => {
      for (;;) at += await tree.write(actor, file, [piece], at);
    };
    await expect(fill()).rejects.toBe(ENOSPC);
    // Closes the file's last descriptor.
    tree.release(large);
    expect(node.volume.isFreeing).toBe(true);
    expect(
      (await tree.writeNow(actor, file, [piece], at)) ?? (await tree.write(actor, file, [piece], at)),
    ).toBe(lightBytes);
    tree.closeFile(file);
    tree.release(node);
  });

  it('counts a descriptor until it is closed', async () => {
    const before = descriptors.count;
    const names = Array.from({ length: 5 }, (_, i) => `large${i}`);
    for (const name of names) makeLarge(name);
    const nodes = await Promise.all(names.map(found));
    for (const name of names) unlinkSync(path(name));
    for (const node of nodes) tree.release(node);
    expect(descriptors.count).toBe(before + nodes.length);
    await vi.waitFor(() => expect(descriptors.count).toBe(before), { timeout: 20_000 });
  });
});

describe('on a file system that waits for others', () => {
  let directory: string;
  let fuse: Stalling;

  beforeAll(async () => {
    directory = join(top, 'fuse');
    mkdirSync(directory);
    fuse = await Stalling.mount(directory);
  });
  afterAll(() => fuse.end());

  it('closes O_PATH descriptors on the pool, too', async () => {
    const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined);
    const descriptors = new FdBudget(64);
    const tree = await LocalTree.open(directory, { descriptors, model });
    const before = descriptors.count;
    const node = await tree.walk(contextOf(server), tree.root, nameOf('well'), new Attr());
    if (!('pathLow' in node)) throw node;
    tree.release(node);
    expect(descriptors.count).toBe(before + 1);
    await vi.waitFor(() => expect(descriptors.count).toBe(before), { timeout: 20_000 });
    tree.close();
  });
});
