import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Attr, S_IFIFO, S_IFREG } from '../../src/attr.ts';
import {
  E2BIG,
  EEXIST,
  EINVAL,
  EISDIR,
  ELOOP,
  ENODATA,
  ENOENT,
  ENOSPC,
  ENOTDIR,
  ENOTEMPTY,
  ENXIO,
  EOPNOTSUPP,
  EPERM,
} from '../../src/errno.ts';
import { type Name, nameOf } from '../../src/name.ts';
import type { MemoryNode } from '../../src/tree/memory/memory-node.ts';
import { MemoryTree } from '../../src/tree/memory-tree.ts';
import { type Actor, stampOf } from '../../src/tree/tree.ts';
import { HostDirectory, MemoryDirectory, random, randomSteps } from '../support/namespace-oracle.ts';

const MiB = 1024 * 1024;
const user = { uid: 1000, gid: 1000, groups: [] };
const root = { uid: 0, gid: 0, groups: [] };

/** An actor whose watch notes the stamps it is told of. */
function actor(caller = user) {
  const told: (readonly [string, unknown, number])[] = [];
  const watch: Actor['watch'] = {
    before: (node, stamp) => void told.push(['before', node, stamp]),
    after: (node, stamp) => void told.push(['after', node, stamp]),
  };
  return { caller, watch, told };
}

const n = (text: string): Name => nameOf(text);
const readWrite = { read: true, write: true, truncate: false, sync: 'none' } as const;

function newTree(bytesMax = 64 * MiB) {
  const tree = new MemoryTree({ bytesMax });
  const by = actor();
  const stat = (node: MemoryNode) => {
    const attr = new Attr();
    tree.stat(node, attr);
    return attr;
  };
  return {
    tree,
    by,
    stat,
    create: (name: string, mode = 0o644, dir = tree.root) =>
      tree.create(by, dir, n(name), { ...readWrite, exclusive: true, mode, gid: 1000 }, new Attr()),
    mkdir: (name: string, dir = tree.root) =>
      tree.make(by, dir, n(name), { type: 'directory', mode: 0o755, gid: 1000 }, new Attr()),
    free: () => {
      const record = Buffer.alloc(64);
      tree.statfs(tree.root, record);
      return { bytes: Number(record.readBigUInt64LE(16)), files: Number(record.readBigUInt64LE(40)) };
    },
  };
}

function thrown(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    return error;
  }
}

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
    expect(tree.parent(user, dir)).toBe(tree.root);
    expect(tree.readdir(tree.openDir(user, dir), 0, 0, Buffer.alloc(4096))).toBe(0);
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
    expect(tree.read(again, [bytes], 9999)).toBe(1);
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
    expect(thrown(() => tree.openDir(user, fifo))).toBe(ENOTDIR);
    expect(tree.readlink(user, link)).toBe('x');
    expect(thrown(() => tree.readlink(user, fifo))).toBe(EINVAL);
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
      thrown(() => tree.getXattr(root, node, 'security.capability')) !== ENODATA,
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
    tree.change(by, node, { atime: 'now' });
    expect(Math.abs(Number(stat(node).bytes.readBigInt64LE(73)) - Date.now() / 1000)).toBeLessThan(2);
    expect(stat(node).bytes.readBigInt64LE(89)).toBe(1_700_000_000n);
  });
});

describe('content in memory', () => {
  it('is sparse far beyond 4 GiB', () => {
    const { tree, by, create, stat } = newTree(MiB);
    const { node, file } = create('f');
    const far = 2 ** 52 + 4097;
    expect(tree.write(by, file, [Buffer.from('ab'), Buffer.from('cd')], far)).toBe(4);
    expect(stat(node).size).toBe(far + 4);
    expect(stat(node).bytes.readBigUInt64LE(65)).toBe(8n);
    const bytes = Buffer.alloc(8, 0xff);
    expect(tree.read(file, [bytes], far - 2)).toBe(6);
    expect(bytes.toString('latin1')).toBe('\0\0abcd\xff\xff');
    expect(tree.read(file, [bytes], far + 4)).toBe(0);
  });

  it('reads as it was written, whatever the segments and sizes (against one flat buffer)', () => {
    const { tree, by, create, stat } = newTree();
    const { node, file } = create('f');
    const next = random(7);
    const flat = Buffer.alloc(100_000);
    let size = 0;
    for (let i = 0; i < 400; i++) {
      const offset = next(70_000);
      const segments = Array.from({ length: 1 + next(3) }, () => Buffer.alloc(next(9000), 1 + next(255)));
      const bytes = Buffer.concat(segments);
      if (next(10) === 0) {
        tree.change(by, node, { size: offset });
        if (offset < size) flat.fill(0, offset);
        size = offset;
      } else if (bytes.length > 0) {
        tree.write(by, file, segments, offset);
        bytes.copy(flat, offset);
        size = Math.max(size, offset + bytes.length);
      }
      const into = segments.map(({ length }) => Buffer.alloc(length, 0xee));
      const count = tree.read(file, into, offset);
      expect(count).toBe(Math.max(0, Math.min(bytes.length, size - offset)));
      expect(
        Buffer.concat(into)
          .subarray(0, count)
          .equals(flat.subarray(offset, offset + count)),
      ).toBe(true);
      expect(stat(node).size).toBe(size);
    }
  });

  it('is written as far as there is space, and then ENOSPC', () => {
    const { tree, by, create } = newTree(128 * 1024);
    const { node, file } = create('f');
    const written = tree.write(by, file, [Buffer.alloc(MiB)], 100);
    expect(written).toBeGreaterThan(64 * 1024);
    expect(written).toBeLessThan(128 * 1024);
    expect(thrown(() => tree.write(by, file, [Buffer.alloc(MiB)], 100 + written))).toBe(ENOSPC);
    expect(tree.write(by, file, [Buffer.alloc(10)], 0)).toBe(10);
    tree.change(by, node, { size: 0 });
    expect(tree.write(by, file, [Buffer.alloc(10)], 0)).toBe(10);
  });

  it('is not the only thing that takes space: objects, names and xattrs do', () => {
    const { tree, by, create } = newTree(8192);
    const { node } = create('f');
    expect(thrown(() => tree.setXattr(by, node, 'user.big', Buffer.alloc(8000), 0))).toBe(ENOSPC);
    let made = 0;
    const failure = thrown(() => {
      for (; made < 100; made++) create(`f${made}`);
    });
    expect(failure).toBe(ENOSPC);
    expect(made).toBeLessThan(16);
  });
});

describe('a listing of a directory in memory', () => {
  function list(tree: MemoryTree, dir: MemoryNode, each: (name: string) => void, room = 100): string[] {
    const open = tree.openDir(user, dir);
    const into = Buffer.alloc(room);
    const names: string[] = [];
    for (let cookie = 0; ; ) {
      const bytes = tree.readdir(open, cookie, 0, into);
      if (bytes === 0) break;
      for (let at = 0; at < bytes; at += 24 + into.readUInt16LE(at + 22)) {
        const name = into.toString('latin1', at + 24, at + 24 + into.readUInt16LE(at + 22));
        cookie = into.readUInt32LE(at + 13);
        names.push(name);
        each(name);
      }
    }
    tree.closeDir(open);
    return names;
  }

  it('shows what is there all the while exactly once, whatever comes and goes', () => {
    const { tree, by, create } = newTree();
    const names = Array.from({ length: 500 }, (_, i) => `f${i}`);
    for (const name of names) create(name);
    let count = 0;
    const seen = list(tree, tree.root, name => {
      if (name.startsWith('.')) return;
      const i = Number(name.slice(1));
      if (name.startsWith('f') && i % 3 !== 0) tree.unlink(by, tree.root, n(name), 'file');
      if (count++ < 300) create(`n${count}`);
    });
    const stayed = seen.filter(name => /^f/.test(name));
    expect(stayed).toEqual(names);
    expect(seen.slice(0, 2)).toEqual(['.', '..']);
    expect(new Set(seen).size).toBe(seen.length);
    expect(list(tree, tree.root, () => {}).filter(name => /^f/.test(name))).toHaveLength(167);
  });

  it('says EINVAL rather than nothing when the next entry does not fit', () => {
    const { tree, create } = newTree();
    create('a-longer-name');
    const open = tree.openDir(user, tree.root);
    expect(thrown(() => tree.readdir(open, 0, 0, Buffer.alloc(24)))).toBe(EINVAL);
    expect(tree.readdir(open, 0, 0, Buffer.alloc(60))).toBe(51);
    expect(thrown(() => tree.readdir(open, 2, 0, Buffer.alloc(36)))).toBe(EINVAL);
    expect(tree.readdir(open, 2, 0, Buffer.alloc(37))).toBe(37);
    expect(tree.readdir(open, 3, 0, Buffer.alloc(37))).toBe(0);
  });
});

describe('xattrs in memory', () => {
  it('follow setxattr(2) and xattr(7)', () => {
    const { tree, by, create } = newTree();
    const { node } = create('f');
    const get = (name: string, as = user) =>
      Buffer.from(tree.getXattr(as, node, name) as Uint8Array).toString();
    expect(thrown(() => tree.setXattr(by, node, 'user.a', Buffer.from('1'), 2))).toBe(ENODATA);
    tree.setXattr(by, node, 'user.a', Buffer.from('1'), 1);
    expect(thrown(() => tree.setXattr(by, node, 'user.a', Buffer.from('1'), 1))).toBe(EEXIST);
    tree.setXattr(by, node, 'user.a', Buffer.from('22'), 2);
    expect(get('user.a')).toBe('22');
    tree.setXattr(by, node, 'user.empty', Buffer.alloc(0), 0);
    expect(get('user.empty')).toBe('');
    expect(thrown(() => get('user.none'))).toBe(ENODATA);
    expect(thrown(() => get('strange.name'))).toBe(EOPNOTSUPP);
    expect(thrown(() => tree.setXattr(by, node, 'user.a', Buffer.alloc(65537), 0))).toBe(E2BIG);
    expect(thrown(() => tree.setXattr(by, node, 'trusted.a', Buffer.from('1'), 0))).toBe(EPERM);
    tree.setXattr(actor(root), node, 'trusted.a', Buffer.from('1'), 0);
    expect(thrown(() => get('trusted.a'))).toBe(ENODATA);
    expect(get('trusted.a', root)).toBe('1');
    const names = (as: typeof user) => Buffer.from(tree.listXattr(as, node) as Uint8Array).toString();
    expect(names(user)).toBe('user.a\0user.empty\0');
    expect(names(root)).toBe('user.a\0user.empty\0trusted.a\0');
    tree.removeXattr(by, node, 'user.a');
    expect(thrown(() => tree.removeXattr(by, node, 'user.a'))).toBe(ENODATA);
    const link = tree.make(by, tree.root, n('l'), { type: 'symlink', target: 'f', gid: 0 }, new Attr());
    expect(thrown(() => tree.getXattr(user, link, 'user.a'))).toBe(ENODATA);
    expect(thrown(() => tree.setXattr(by, link, 'user.a', Buffer.from('1'), 0))).toBe(EPERM);
    expect(thrown(() => tree.getXattr(user, link, 'system.posix_acl_access'))).toBe(EOPNOTSUPP);
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
