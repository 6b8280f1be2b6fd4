import type { MemoryNode } from '#backend/memory/memory-node.ts';
import { MemoryTree } from '#backend/memory/memory-tree.ts';
import type { ChangeObserver } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { type Name, nameOf } from '#base/name.ts';
import { contextOf } from '../../support/context.ts';

export const MiB = 1024 * 1024;
export const user = { uid: 1000, gid: 1000, groups: [] };
export const root = { uid: 0, gid: 0, groups: [] };

/** A context whose observer records the stamps. */
export function actor(creds = user) {
  const told: (readonly [string, unknown, number])[] = [];
  const observer: ChangeObserver = {
    before: (node, stamp) => void told.push(['before', node, stamp]),
    after: (node, stamp) => void told.push(['after', node, stamp]),
  };
  return { ...contextOf(creds, observer), told };
}

export const n = (text: string): Name => nameOf(text);
export const readWrite = { read: true, write: true, truncate: false, sync: 'none' } as const;

export function newTree(bytesMax = 64 * MiB) {
  const tree = new MemoryTree({ bytesMax });
  const by = actor();
  const stat = (node: MemoryNode) => {
    const attr = new Attr();
    tree.stat(by, node, attr);
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
      tree.statfs(by, tree.root, record);
      return { bytes: Number(record.readBigUInt64LE(16)), files: Number(record.readBigUInt64LE(40)) };
    },
  };
}

export function thrown(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    return error;
  }
}
