/** The sequences of `session` on a directory of the host with the model `passthrough`, as root. */
import { passthrough } from '../../../src/security/passthrough.ts';
import { Choices } from '../choices.ts';
import { withDirectory } from '../host-directory.ts';
import type { Manner } from '../model/things.ts';
import { runSequence } from '../sequences.ts';

const manner: Manner = {
  setGidInherits: true,
  // The kernel itself looks into ACLs and capabilities.
  xattrNames: ['user.a', 'user.b', '', 'trusted.t', 'user.c', 'user.a\0b'],
  users: [0],
  directorySize: undefined,
};

export async function fuzz(data: Buffer): Promise<void> {
  const model = passthrough(() => undefined);
  await withDirectory(model, tree => runSequence(new Choices(data), tree, manner, 0o755));
}
