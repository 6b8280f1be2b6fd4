import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { CallContext } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { Errno, ESTALE } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { noSession } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { passthrough } from '#security/passthrough.ts';
import { contextOf } from '../../support/context.ts';
import { interceptCalls } from '../../support/intercept-calls.ts';

const how = {
  read: true,
  write: true,
  truncate: false,
  sync: 'none',
  exclusive: true,
  mode: 0o644,
  gid: 0,
} as const;

/** The call that links a new file. */
const models = [
  { model: mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined), publishes: 'link' },
  { model: passthrough(() => undefined), publishes: 'create' },
];

describe.each(models)('an object has one node, $model.name', ({ model, publishes }) => {
  let path: string;
  let tree: LocalTree;
  let root: CallContext;
  let restore: () => void;

  beforeEach(async () => {
    path = mkdtempSync(join(tmpdir(), 'ninepd-node-'));
    tree = await LocalTree.open(path, { descriptors: new FdBudget(64), model });
    root = contextOf(await tree.credentials(noSession, 0));
    const { volume } = tree.root;
    // As while the file system is contended.
    Object.assign(volume, { inline: undefined });
  });
  afterEach(() => {
    restore();
    tree.close();
    rmSync(path, { recursive: true });
  });

  it('when another connection finds a new file before its maker has heard of it', async () => {
    let goOn: () => void = () => undefined;
    const walked = new Promise<void>(resolve => {
      goOn = resolve;
    });
    restore = interceptCalls((name, call) => {
      const made = call();
      return name === publishes ? Promise.resolve(made).then(result => walked.then(() => result)) : made;
    });
    const creating = Promise.resolve(tree.create(root, tree.root, nameOf('new'), how, new Attr()));
    await vi.waitFor(() => expect(existsSync(join(path, 'new'))).toBe(true));
    const found = await tree.walk(root, tree.root, nameOf('new'), new Attr());
    goOn();
    if (found instanceof Errno) throw found;
    const { node, file } = await creating;
    expect(node).toBe(found);
    expect(await tree.isEntry(root, tree.root, nameOf('new'), node)).toBe(true);
    expect(await tree.isEntry(root, tree.root, nameOf('new'), found)).toBe(true);
    await tree.rename(root, tree.root, nameOf('new'), tree.root, nameOf('renamed'));
    expect(await tree.isEntry(root, tree.root, nameOf('renamed'), found)).toBe(true);
    tree.closeFile(file);
    tree.release(node);
    const attr = new Attr();
    await tree.stat(root, found, attr);
    expect(attr.nlink).toBe(1);
    tree.release(found);
  });

  it('when two find one file at the same time', async () => {
    restore = () => undefined;
    const { node, file } = await tree.create(root, tree.root, nameOf('new'), how, new Attr());
    tree.closeFile(file);
    tree.release(node);
    const walks = Array.from({ length: 20 }, () => tree.walk(root, tree.root, nameOf('new'), new Attr()));
    const found = await Promise.all(walks);
    expect(new Set(found).size).toBe(1);
    for (const one of found) if (!(one instanceof Errno)) tree.release(one);
  });

  it('and is not taken for a later one that has its inode number', async () => {
    restore = () => undefined;
    const name = nameOf('name');
    for (let tries = 0; tries < 20; tries++) {
      writeFileSync(join(path, 'name'), '');
      const first = await tree.walk(root, tree.root, name, new Attr());
      if (first instanceof Errno) throw first;
      first.evict();
      rmSync(join(path, 'name'));
      writeFileSync(join(path, 'name'), '');
      expect(await tree.isEntry(root, tree.root, name, first)).toBe(false);
      const second = await tree.walk(root, tree.root, name, new Attr());
      if (second instanceof Errno) throw second;
      expect(second).not.toBe(first);
      await expect(Promise.resolve().then(() => tree.stat(root, first, new Attr()))).rejects.toBe(ESTALE);
      tree.release(first);
      tree.release(second);
      rmSync(join(path, 'name'));
    }
  });
});

describe('an object of overlayfs', () => {
  it('is found again after it was copied up', async () => {
    const top = mkdtempSync(join(tmpdir(), 'ninepd-overlay-'));
    for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(join(top, name));
    writeFileSync(join(top, 'lower/f'), 'content');
    const layers = ['lower', 'upper', 'work'].map(name => `${name}dir=${join(top, name)}`);
    execFileSync('mount', ['-t', 'overlay', '-o', layers.join(','), 'none', join(top, 'merged')]);
    const descriptors = new FdBudget(64);
    const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined);
    const tree = await LocalTree.open(join(top, 'merged'), { descriptors, model });
    const root = contextOf(await tree.credentials(noSession, 0));
    const node = await tree.walk(root, tree.root, nameOf('f'), new Attr());
    if (node instanceof Errno) throw node;
    await tree.change(root, node, { mode: 0o640 });
    expect(node.evict()).toBe(true);
    const attr = new Attr();
    await tree.stat(root, node, attr);
    expect([attr.size, attr.mode & 0o777]).toEqual([7, 0o640]);
    expect(await tree.isEntry(root, tree.root, nameOf('f'), node)).toBe(true);
    tree.release(node);
    tree.close();
    execFileSync('umount', [join(top, 'merged')]);
    rmSync(top, { recursive: true });
  });
});
