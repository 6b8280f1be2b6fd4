// npm's `prepack`: makes dist anew, since it may have files whose source is gone, and the addons. `npm pack` packs those that this
// machine can compile and says which are left out; `npm publish` needs all.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { publishedTargets } from '../native-shims/targets.mjs';
import { root, runProgram, SetupFault, say, setUp } from './setup.mjs';
import { buildTarget, ensureCompilers } from './targets.mjs';

await runProgram(async () => {
  const publishing = process.env.npm_command === 'publish';
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  setUp();
  if (publishing) await ensureCompilers();
  const missing = publishedTargets.filter(target => !buildTarget(target));
  if (missing.length === 0) return;
  if (publishing) throw new SetupFault(`no compiler for ${missing.join(', ')}`);
  say('');
  say(`THIS PACKAGE IS NOT COMPLETE: it has no addon for ${missing.join(', ')}.`);
  say('npm publish makes them all; so does npm pack after: node scripts/targets.mjs');
  say('');
});
