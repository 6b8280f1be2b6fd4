// `npm run docs`: pages of everything that the package exports, in docs/api. Fails on a comment's link that leads nowhere.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { root, run, runProgram, SetupFault, say } from '../setup.mjs';

const here = join(root, 'scripts', 'api-docs');
const modified = path => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;

function ensurePackages() {
  const installed = join(here, 'node_modules', '.package-lock.json');
  if (modified(installed) > modified(join(here, 'package-lock.json'))) return;
  say('installing TypeDoc (npm ci)');
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error', '--prefix', here];
  if (!run('npm', args)) throw new SetupFault('npm ci in scripts/api-docs failed: see above');
}

await runProgram(() => {
  ensurePackages();
  const typedoc = join(here, 'node_modules', 'typedoc', 'bin', 'typedoc');
  if (!run(process.execPath, [typedoc, '--options', join(here, 'typedoc.json')]))
    throw new SetupFault('the pages could not be built: see above');
});
