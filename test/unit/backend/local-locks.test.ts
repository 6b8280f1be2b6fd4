import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { LocalNode } from '#backend/local/node.ts';
import type { LocalOpen } from '#backend/local/open-file.ts';
import type { CallContext } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { pool } from '#host/linux.ts';
import { noSession } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { contextOf } from '../../support/context.ts';
import { interceptCalls } from '../../support/intercept-calls.ts';

const how = { read: true, write: true, truncate: false, sync: 'none' } as const;
const all = { type: 1, start: 0, length: 0 } as const;

describe('locks of a host directory whose calls may wait', () => {
  let path: string;
  let tree: LocalTree;
  let ctx: CallContext;
  let node: LocalNode;
  let file: LocalOpen;
  let restore: () => void = () => undefined;

  beforeEach(async () => {
    path = mkdtempSync(join(tmpdir(), 'ninepd-locks-'));
    writeFileSync(join(path, 'f'), '');
    const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined);
    tree = await LocalTree.open(path, { descriptors: new FdBudget(64), model });
    ctx = contextOf(await tree.credentials(noSession, 0));
    const found = await tree.walk(ctx, tree.root, nameOf('f'), new Attr());
    if (found instanceof Errno) throw found;
    node = found;
    file = await tree.open(ctx, node, how);
    const { volume } = tree.root;
    Object.defineProperties(volume, { local: { value: false }, inline: { value: undefined } });
    volume.sys = () => pool;
  });
  afterEach(() => {
    restore();
    tree.closeFile(file);
    tree.release(node);
    tree.close();
    rmSync(path, { recursive: true });
  });

  it('are asked about through a descriptor that stays open until the answer is there', async () => {
    const owner = {};
    expect(await tree.lock(owner, file, all)).toBe(true);
    let goOn: () => void = () => undefined;
    const forgotten = new Promise<void>(resolve => {
      goOn = resolve;
    });
    const order: string[] = [];
    restore = interceptCalls((name, call) => {
      if (name === 'close') order.push(name);
      if (name !== 'testLock') return call();
      return forgotten.then(async () => {
        // Everything is closed by now.
        await new Promise(resolve => setTimeout(resolve, 20));
        order.push(name);
        return call();
      });
    });
    const asked = tree.testLock(ctx, owner, file, all);
    await tree.lock(owner, file, { ...all, type: 2 });
    tree.forgetLocks(owner, node);
    goOn();
    expect(await asked).toBeUndefined();
    await new Promise(setImmediate);
    expect(order).toEqual(['testLock', 'close']);
  });

  it('let another owner in when they are forgotten', async () => {
    const [one, other] = [{}, {}];
    expect(await tree.lock(one, file, all)).toBe(true);
    expect(await tree.lock(other, file, all)).toBe(false);
    expect(await tree.testLock(ctx, other, file, all)).toMatchObject({ type: 1, start: 0, length: 0 });
    await tree.lock(one, file, { ...all, type: 2 });
    expect(await tree.lock(other, file, all)).toBe(true);
    for (const owner of [one, other]) tree.forgetLocks(owner, node);
  });
});
