/** The sequences of `session` on a host directory with `passthrough`, as root. */
import { passthrough } from '../../../src/security/passthrough.ts';
import { Choices } from '../choices.ts';
import { withDirectory } from '../host-directory.ts';
import { passthroughOptions } from '../model/options.ts';
import { runSequence } from '../sequences.ts';

export async function fuzz(data: Buffer): Promise<void> {
  const model = passthrough(() => undefined);
  await withDirectory(model, tree => runSequence(new Choices(data), tree, passthroughOptions, 0o755));
}
