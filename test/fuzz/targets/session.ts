/** Sequences of requests of several sessions on a tree in memory; every reply is the one that a model of 9P gives. */
import { MemoryTree } from '../../../src/backend/memory/memory-tree.ts';
import { heldIn } from '../../support/serve.ts';
import { Choices, must } from '../choices.ts';
import type { Manner } from '../model/things.ts';
import { runSequence } from '../sequences.ts';

const manner: Manner = {
  setGidInherits: false,
  xattrNames: [
    ...['user.a', 'user.b', '', 'trusted.t', 'security.capability', 'security.s', 'system.posix_acl_access'],
    ...['system.other', 'none', `user.${'n'.repeat(250)}`, `user.${'n'.repeat(251)}`, 'user.a\0b'],
  ],
  users: [1000, 0, 0xffff_ffff],
  directorySize: 4096,
};

export async function fuzz(data: Buffer): Promise<void> {
  const tree = new MemoryTree({ bytesMax: 64 * 1024 * 1024 });
  await runSequence(new Choices(data), tree, manner, 0o755);
  tree.root.xattrs.free();
  const held = heldIn(tree);
  must(held.length === 0, () => `left in the tree: ${held.join(', ')}`);
}
