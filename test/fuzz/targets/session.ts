/** Sequences of requests of several sessions on a memory tree; every reply must be that of the model. */
import { MemoryTree } from '../../../src/backend/memory/memory-tree.ts';
import { heldIn } from '../../support/serve.ts';
import { assert, Choices } from '../choices.ts';
import type { ModelOptions } from '../model/nodes.ts';
import { runSequence } from '../sequences.ts';

const modelOptions: ModelOptions = {
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
  await runSequence(new Choices(data), tree, modelOptions, 0o755);
  tree.root.xattrs.free();
  const held = heldIn(tree);
  assert(held.length === 0, () => `left in the tree: ${held.join(', ')}`);
}
