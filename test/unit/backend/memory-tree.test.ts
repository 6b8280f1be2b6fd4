import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MemoryTree } from '#backend/memory/memory-tree.ts';
import { Attr, S_IFIFO, S_IFREG, stampOf } from '#base/attr.ts';
import {
  EINVAL,
  EISDIR,
  ELOOP,
  ENODATA,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  ENXIO,
  EOPNOTSUPP,
} from '#base/errno.ts';
import { HostDirectory, MemoryDirectory, random, randomSteps } from '../../support/namespace-oracle.ts';
import { actor, MiB, n, newTree, readWrite, root, thrown, user } from './memory-fixture.ts';

describe('names in a tree in memory', () => {
  it.each([1, 2, 3, 4])('come and go with the errnos of the host file system (seed %i)', seed => {
    const path = mkdtempSync(join(tmpdir(), 'memory-tree-'));
    try {
      const host = new HostDirectory(path);
      const memory = new MemoryDirectory(new MemoryTree({ bytesMax: 64 * MiB }));
      for (const step of randomSteps(random(seed), 1500)) {
        expect([step, memory.run(step)]).toEqual([step, host.run(step)]);
      }
      expect(memory.list()).toEqual(host.list());
    } finally {
      rmSync(path, { recursive: true });
    }
  });

  it('lead nowhere new once their directory is removed', () => {
    const { tree, by, create, mkdir } = newTree();
    const dir = mkdir('d');
    tree.unlink(by, tree.root, n('d'), 'directory');
    expect(thrown(() => create('f', 0o644, dir))).toBe(ENOENT);
    expect(thrown(() => mkdir('g', dir))).toBe(ENOENT);
    const { node } = create('f');
    expect(thrown(() => tree.link(by, node, dir, n('l')))).toBe(ENOENT);
    expect(thrown(() => tree.rename(by, tree.root, n('f'), dir, n('l')))).toBe(ENOENT);
    expect(tree.parent(actor(user), dir)).toBe(tree.root);
    expect(tree.readdir(by, tree.openDir(actor(), dir), 0, 0, Buffer.alloc(4096))).toBe(0);
  });

  it('are not given to an object that has lost its last one', () => {
    const { tree, by, create } = newTree();
    const { node } = create('f');
    tree.unlink(by, tree.root, n('f'), 'file');
    expect(thrown(() => tree.link(by, node, tree.root, n('g')))).toBe(ENOENT);
  });
});

describe('an object in memory', () => {
  it('lives on without a name while it is held, and then gives its space back', () => {
    const { tree, by, create, stat, free } = newTree();
    const before = free();
    const { node, file } = create('f');
    tree.write(by, file, [Buffer.alloc(10_000, 1)], 0);
    tree.unlink(by, tree.root, n('f'), 'file');
    expect(stat(node).nlink).toBe(0);
    tree.closeFile(file);
    const again = tree.open(by, node, readWrite);
    const bytes = Buffer.alloc(2);
    expect(tree.read(by, again, [bytes], 9999)).toBe(1);
    expect(bytes[0]).toBe(1);
    tree.closeFile(again);
    tree.closeFile(again);
    expect(free()).not.toEqual(before);
    tree.release(node);
    expect(free()).toEqual(before);
  });

  it('has a stamp that moves with every change, and says so to the watch', () => {
    const { tree, by, create, stat } = newTree();
    const { node, file } = create('f');
    const changes = [
      () => tree.write(by, file, [Buffer.from('a')], 0),
      () => tree.write(by, file, [Buffer.from('a')], 0),
      () => tree.change(by, node, { mode: 0o600 }),
      () => tree.change(by, node, { mode: 0o600 }),
      () => tree.change(by, node, { mtime: { sec: 1, nsec: 2 } }),
      () => tree.link(by, node, tree.root, n('g')),
      () => tree.setXattr(by, node, 'user.a', Buffer.alloc(0), 0),
      () => tree.rename(by, tree.root, n('g'), tree.root, n('h')),
      () => tree.unlink(by, tree.root, n('f'), 'file'),
      () => tree.open(by, node, { ...readWrite, truncate: true }),
    ];
    for (const change of changes) {
      const before = stampOf(stat(node));
      by.told.length = 0;
      change();
      const after = stampOf(stat(node));
      expect(after).not.toBe(before);
      expect(by.told.filter(([, of]) => of === node)).toEqual([
        ['before', node, before],
        ['after', node, after],
      ]);
    }
  });

  it('is opened only when it is a regular file', () => {
    const { tree, by, mkdir } = newTree();
    const attr = new Attr();
    const link = tree.make(by, tree.root, n('l'), { type: 'symlink', target: 'x', gid: 0 }, attr);
    const fifo = tree.make(
      by,
      tree.root,
      n('p'),
      { type: 'special', mode: S_IFIFO | 0o644, rdev: 0, gid: 0 },
      attr,
    );
    expect(thrown(() => tree.open(by, link, readWrite))).toBe(ELOOP);
    expect(thrown(() => tree.open(by, fifo, readWrite))).toBe(ENXIO);
    expect(thrown(() => tree.open(by, mkdir('d'), readWrite))).toBe(EISDIR);
    expect(thrown(() => tree.openDir(actor(), fifo))).toBe(ENOTDIR);
    expect(tree.readlink(actor(user), link)).toBe('x');
    expect(thrown(() => tree.readlink(actor(user), fifo))).toBe(EINVAL);
    expect(
      thrown(() => tree.make(by, tree.root, n('e'), { type: 'symlink', target: '', gid: 0 }, attr)),
    ).toBe(ENOENT);
    expect(thrown(() => tree.change(by, link, { mode: 0o600 }))).toBe(EOPNOTSUPP);
    expect(thrown(() => tree.change(by, fifo, { size: 0 }))).toBe(EINVAL);
    expect(thrown(() => tree.change(by, tree.root, { size: 0 }))).toBe(EISDIR);
  });

  it('loses set-id bits and its capability when another than root writes, and to chown always', () => {
    const { tree, by, create, stat } = newTree();
    const asRoot = actor(root);
    const { node, file } = create('f', 0o6755);
    const arm = () => {
      tree.change(asRoot, node, { mode: 0o6755 });
      tree.setXattr(asRoot, node, 'security.capability', Buffer.from('cap'), 0);
    };
    const state = () => [
      (stat(node).mode & 0o7777).toString(8),
      thrown(() => tree.getXattr(actor(root), node, 'security.capability')) !== ENODATA,
    ];
    arm();
    tree.write(by, file, [Buffer.from('x')], 0);
    expect(state()).toEqual(['755', false]);
    arm();
    tree.write(asRoot, file, [Buffer.from('x')], 0);
    expect(state()).toEqual(['6755', false]);
    arm();
    tree.change(by, node, { size: 0 });
    expect(state()).toEqual(['755', false]);
    arm();
    tree.change(asRoot, node, { uid: 1 });
    expect(state()).toEqual(['755', false]);
    arm();
    tree.change(asRoot, node, { uid: 1, mode: 0o4755 });
    expect(state()).toEqual(['4755', false]);
    tree.change(asRoot, node, { mode: 0o2644 });
    tree.write(by, file, [Buffer.from('x')], 0);
    expect(state()).toEqual(['2644', false]);
  });

  it('keeps the times it is given, before 1970 too', () => {
    const { tree, by, create, stat } = newTree();
    const { node } = create('f');
    tree.change(by, node, {
      atime: { sec: -1, nsec: 999_999_999 },
      mtime: { sec: 1_700_000_000, nsec: 123_456_789 },
    });
    const { bytes } = stat(node);
    expect(bytes.readBigInt64LE(73)).toBe(-1n);
    expect(bytes.readBigInt64LE(81)).toBe(999_999_999n);
    expect(bytes.readBigInt64LE(89)).toBe(1_700_000_000n);
    expect(bytes.readBigInt64LE(97)).toBe(123_456_789n);
    for (const sec of [2 ** 53, 2 ** 63]) {
      tree.change(by, node, { atime: { sec, nsec: 5 }, mtime: { sec: -sec, nsec: 5 } });
      const far = stat(node).bytes;
      const [most, least] = [2n ** 53n - 1n, 1n - 2n ** 53n];
      expect([far.readBigInt64LE(73), far.readBigInt64LE(89)]).toEqual([most, least]);
      expect([far.readBigInt64LE(81), far.readBigInt64LE(97)]).toEqual([0n, 0n]);
    }
    tree.change(by, node, { atime: 'now', mtime: { sec: 1_700_000_000, nsec: 0 } });
    expect(Math.abs(Number(stat(node).bytes.readBigInt64LE(73)) - Date.now() / 1000)).toBeLessThan(2);
    expect(stat(node).bytes.readBigInt64LE(89)).toBe(1_700_000_000n);
  });
});

describe('what a tree in memory tells of itself', () => {
  it('is the whole type and mode it was asked to make', () => {
    const { tree, by, stat } = newTree();
    const node = tree.make(
      by,
      tree.root,
      n('r'),
      { type: 'special', mode: S_IFREG | 0o6755, rdev: 0, gid: 7 },
      new Attr(),
    );
    expect(stat(node).mode).toBe(S_IFREG | 0o6755);
    expect([stat(node).uid, stat(node).gid]).toEqual([1000, 7]);
  });

  it('is not looked into any more when it is a removed directory, by a rename of what held it', () => {
    const { tree, by, mkdir } = newTree();
    const a = mkdir('a');
    const b = mkdir('b', a);
    tree.unlink(by, a, n('b'), 'directory');
    expect(thrown(() => tree.rename(by, tree.root, n('a'), b, n('x')))).toBe(ENOENT);
  });

  it('counts the names of directories as links', () => {
    const { tree, by, mkdir, stat } = newTree();
    const a = mkdir('a');
    const b = mkdir('b', a);
    expect([tree.root, a, b].map(node => stat(node).nlink)).toEqual([3, 3, 2]);
    tree.rename(by, a, n('b'), tree.root, n('b'));
    expect([tree.root, a, b].map(node => stat(node).nlink)).toEqual([4, 2, 2]);
    expect(thrown(() => tree.rename(by, tree.root, n('b'), b, n('c')))).toBe(EINVAL);
    mkdir('c', b);
    expect(thrown(() => tree.rename(by, tree.root, n('a'), tree.root, n('b')))).toBe(ENOTEMPTY);
    tree.rename(by, b, n('c'), tree.root, n('a'));
    expect([tree.root, a, b].map(node => stat(node).nlink)).toEqual([4, 0, 2]);
  });
});
