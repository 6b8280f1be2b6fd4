// Conformance tests and random operations in other environments: few descriptors, waiting calls, other file systems, two
// servers (test/support/environments).
//   npm run test:environments                                  all of them
//   npm run test:environments -- --environment xfs,short-fds   some
//   npm run random -- --minutes 5 --environment short-fds --seed 7 --steps 500

import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ensureTestPackages, root, run, runProgram, setUp } from './setup.mjs';

const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');

await runProgram(() => {
  const [kind, ...args] = process.argv.slice(2);
  const text = { type: 'string' };
  const { values } = parseArgs({
    args,
    options: { environment: text, minutes: text, seed: text, steps: text },
  });
  setUp();
  ensureTestPackages();
  const random = {};
  for (const key of ['minutes', 'seed', 'steps'])
    if (values[key] !== undefined) random[key] = Number(values[key]);
  const env = {
    ...process.env,
    NINEPD_ENVIRONMENTS: values.environment ?? 'all',
    NINEPD_RANDOM: JSON.stringify(random),
  };
  const files = kind === 'random' ? ['test/environments'] : [];
  const command = [vitest, 'run', '--project', 'environments', ...files];
  if (!run(process.execPath, command, { env })) process.exitCode = 1;
});
