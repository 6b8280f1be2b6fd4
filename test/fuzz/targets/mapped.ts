/** The sequences of `session` on a host directory with `mapped`, which must behave like the memory tree. */
import { mapped } from '../../../src/security/mapped.ts';
import { assert, Choices } from '../choices.ts';
import { objectsBelow, withDirectory } from '../host-directory.ts';
import { mappedOptions } from '../model/options.ts';
import { runSequence } from '../sequences.ts';

export async function fuzz(data: Buffer): Promise<void> {
  const model = mapped({ fmode: 0o600, dmode: 0o700 }, text => assert(false, () => `a complaint: ${text}`));
  await withDirectory(model, async (tree, directory) => {
    await runSequence(new Choices(data), tree, mappedOptions, 0o755);
    // Whatever guests create, the host has only files and directories of the server, and nothing incomplete.
    for (const { path, mode, uid, gid } of objectsBelow(directory)) {
      assert(mode === 0o100600 || mode === 0o040700, () => `${path} has the mode ${mode.toString(8)}`);
      assert(
        uid === process.getuid!() && gid === process.getgid!(),
        () => `${path} belongs to ${uid}:${gid}`,
      );
      assert(!path.includes('.ninepd-new-'), () => `${path} is left`);
    }
  });
}
