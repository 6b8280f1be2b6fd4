// `npm run race|crash|soak`: the tests of test/stress with other durations. Options: docs/testing.md.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ensureTestPackages, root, run, runProgram, SetupFault, say, setUp } from './setup.mjs';

const number = { type: 'string' };
const kinds = {
  race: { minutes: number, seed: number },
  crash: { rounds: number, seed: number, guest: { type: 'boolean' } },
  soak: { hours: number, minutes: number, rate: number, seed: number, guest: { type: 'boolean' } },
};

function read() {
  const [kind, ...args] = process.argv.slice(2);
  if (!Object.hasOwn(kinds, kind))
    throw new SetupFault(`one of ${Object.keys(kinds).join(', ')}, not ${kind}`);
  const { values } = parseArgs({ args, options: kinds[kind] });
  const options = {};
  for (const [name, value] of Object.entries(values)) {
    options[name] = value === true ? value : Number(value);
    if (!(options[name] > 0)) throw new SetupFault(`--${name} ${value}: give a number above 0`);
  }
  const { hours, ...rest } = options;
  return { kind, options: hours === undefined ? rest : { ...rest, minutes: hours * 60 } };
}

/** Plots the samples of a soak. */
async function draw() {
  const json = join(root, '.cache', 'stress', 'soak.json');
  if (!existsSync(json)) return;
  const { ensureBenchPackages } = await import('../bench/setup.mjs');
  ensureBenchPackages();
  const { plotSoak } = await import('../bench/plot-soak.mjs');
  const svg = json.replace(/json$/, 'svg');
  writeFileSync(svg, plotSoak(JSON.parse(readFileSync(json, 'utf8'))));
  say(`written: ${json} and soak.svg`);
}

function testsOf(kind, { guest }) {
  if (kind === 'race') return ['race', 'chaos'];
  return kind === 'crash' && guest ? ['crash-guest'] : [kind];
}

async function main() {
  const { kind, options } = read();
  process.chdir(root);
  setUp();
  ensureTestPackages();
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const env = { ...process.env, NINEPD_STRESS: JSON.stringify(options) };
  if (options.guest && !run(process.execPath, [join(root, 'scripts', 'guest-image.mjs')])) {
    throw new SetupFault('the guests could not be made: see above');
  }
  const files = testsOf(kind, options).map(name => `test/stress/${name}.test.ts`);
  const flags = ['--no-file-parallelism', '--disable-console-intercept'];
  // Files first: the last option would take one as its value.
  const args = [vitest, 'run', '--project', 'stress', ...files, ...flags];
  const ok = run(process.execPath, args, { env });
  if (kind === 'soak') await draw();
  process.exitCode = ok ? 0 : 1;
}

await runProgram(main);
