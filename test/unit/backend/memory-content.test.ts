import { describe, expect, it } from 'vitest';
import type { MemoryNode } from '#backend/memory/memory-node.ts';
import type { MemoryTree } from '#backend/memory/memory-tree.ts';
import { Attr } from '#base/attr.ts';
import { E2BIG, EEXIST, EINVAL, ENODATA, ENOSPC, EOPNOTSUPP, EPERM } from '#base/errno.ts';
import { random } from '../../support/namespace-oracle.ts';
import { actor, MiB, n, newTree, root, thrown, user } from './memory-fixture.ts';

describe('content in memory', () => {
  it('is sparse far beyond 4 GiB', () => {
    const { tree, by, create, stat } = newTree(MiB);
    const { node, file } = create('f');
    const far = 2 ** 52 + 4097;
    expect(tree.write(by, file, [Buffer.from('ab'), Buffer.from('cd')], far)).toBe(4);
    expect(stat(node).size).toBe(far + 4);
    expect(stat(node).bytes.readBigUInt64LE(65)).toBe(8n);
    const bytes = Buffer.alloc(8, 0xff);
    expect(tree.read(by, file, [bytes], far - 2)).toBe(6);
    expect(bytes.toString('latin1')).toBe('\0\0abcd\xff\xff');
    expect(tree.read(by, file, [bytes], far + 4)).toBe(0);
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
      const count = tree.read(by, file, into, offset);
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
    const by = actor();
    const open = tree.openDir(by, dir);
    const into = Buffer.alloc(room);
    const names: string[] = [];
    for (let cookie = 0; ; ) {
      const bytes = tree.readdir(by, open, cookie, 0, into);
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
    const by = actor();
    const open = tree.openDir(by, tree.root);
    expect(thrown(() => tree.readdir(by, open, 0, 0, Buffer.alloc(24)))).toBe(EINVAL);
    expect(tree.readdir(by, open, 0, 0, Buffer.alloc(60))).toBe(51);
    expect(thrown(() => tree.readdir(by, open, 2, 0, Buffer.alloc(36)))).toBe(EINVAL);
    expect(tree.readdir(by, open, 2, 0, Buffer.alloc(37))).toBe(37);
    expect(tree.readdir(by, open, 3, 0, Buffer.alloc(37))).toBe(0);
  });
});

describe('xattrs in memory', () => {
  it('follow setxattr(2) and xattr(7)', () => {
    const { tree, by, create } = newTree();
    const { node } = create('f');
    const get = (name: string, as = user) =>
      Buffer.from(tree.getXattr(actor(as), node, name) as Uint8Array).toString();
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
    const names = (as: typeof user) => Buffer.from(tree.listXattr(actor(as), node) as Uint8Array).toString();
    expect(names(user)).toBe('user.a\0user.empty\0');
    expect(names(root)).toBe('user.a\0user.empty\0trusted.a\0');
    tree.removeXattr(by, node, 'user.a');
    expect(thrown(() => tree.removeXattr(by, node, 'user.a'))).toBe(ENODATA);
    const link = tree.make(by, tree.root, n('l'), { type: 'symlink', target: 'f', gid: 0 }, new Attr());
    expect(thrown(() => tree.getXattr(actor(user), link, 'user.a'))).toBe(ENODATA);
    expect(thrown(() => tree.setXattr(by, link, 'user.a', Buffer.from('1'), 0))).toBe(EPERM);
    expect(thrown(() => tree.getXattr(actor(user), link, 'system.posix_acl_access'))).toBe(EOPNOTSUPP);
  });
});
