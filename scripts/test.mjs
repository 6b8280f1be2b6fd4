// `npm test`: runs missing setup steps, then every stage or the named ones: npm test -- lint unit. The last line is `N passed,
// N failed`; the exit status is 0 only if nothing failed.
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { installNode } from './install-node.mjs';
import { installPackage } from './install-package.mjs';
import { prepareRelease } from './release.mjs';
import { ensureS3Server, ensureTestPackages, root, run, SetupFault, say, setUp } from './setup.mjs';

const program = (...names) => join(root, 'node_modules', ...names);
const biome = program('@biomejs', 'biome', 'bin', 'biome');
const tsc = program('typescript', 'bin', 'tsc');
const vitest = program('vitest', 'vitest.mjs');
const results = join(root, '.cache', 'results');

/** A stage that counts as one test. */
function check(command, ...args) {
  return run(command, args) ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

/** Runs vitest projects with a given Node.js. An aborted run counts as one more failure. */
function tests(stage, projects, node = process.execPath, ...options) {
  const report = join(results, `${stage}.json`);
  mkdirSync(results, { recursive: true });
  rmSync(report, { force: true });
  const named = projects.flatMap(project => ['--project', project]);
  const args = [vitest, 'run', ...named, '--reporter=default', '--reporter=json', ...options];
  const ok = run(node, [...args, `--outputFile.json=${report}`]);
  if (!existsSync(report)) return { passed: 0, failed: 1 };
  const { numPassedTests: passed, numFailedTests: failed } = JSON.parse(readFileSync(report, 'utf8'));
  return { passed, failed: ok ? failed : Math.max(failed, 1) };
}

/** Another major version of Node.js. The addon file is the same and must work in both. */
function otherNode() {
  return installNode(process.versions.node.startsWith('24.') ? '22' : '24');
}

// Without the million fids and the fuzzer's corpus, which do not depend on Node.js.
const nodeTests = [
  ...['test/conformance', 'test/program', 'test/unit/client', 'test/unit/transport'],
  ...['--exclude=**/million-fids*', '--exclude=**/fuzz.test.ts', '--exclude=**/tree*.test.ts'],
  // posix is compiled for one version of Node.js.
  '--exclude=**/user-database.test.ts',
];

function inEnvironments(names, files) {
  process.env.NINEPD_ENVIRONMENTS = names;
  try {
    return tests('environments', ['environments'], process.execPath, files);
  } finally {
    delete process.env.NINEPD_ENVIRONMENTS;
  }
}

const sum = (...results) => ({
  passed: results.reduce((all, { passed }) => all + passed, 0),
  failed: results.reduce((all, { failed }) => all + failed, 0),
});

/** Guests mount what the installed tarball serves. */
function guestTests() {
  if (!run(process.execPath, [join(root, 'scripts', 'guest-image.mjs')])) {
    throw new SetupFault('the guests could not be made: see above');
  }
  process.env.NINEPD_PROGRAM = installPackage().program;
  try {
    return tests('guest', ['guest']);
  } finally {
    delete process.env.NINEPD_PROGRAM;
  }
}

/** All that is published: needs cross compilers and emulators, which it installs. */
async function releaseTests() {
  await prepareRelease();
  process.env.NINEPD_RELEASE = '1';
  return tests('release', ['package'], process.execPath, 'test/release');
}

const stages = {
  lint: () => check(process.execPath, biome, 'check', '.'),
  types: () => check(process.execPath, tsc, '-p', 'tsconfig.json'),
  docs: () => check(process.execPath, join(root, 'scripts', 'api-docs', 'build.mjs')),
  unit: () => tests('unit', ['unit']),
  program: () => {
    ensureS3Server();
    return tests('program', ['program']);
  },
  // Tests that depend on Node.js: the addon, sockets, processes, and the program.
  'other-node': () => {
    ensureS3Server();
    return tests('other-node', ['unit', 'program'], otherNode(), ...nodeTests);
  },
  asan: () => check(process.execPath, join(root, 'scripts', 'test-asan.mjs')),
  // A part of `npm run test:environments` and `npm run random`: conformance with few descriptors and with calls that wait from
  // the middle of a request on, random operations in more environments.
  environments: () =>
    sum(
      inEnvironments('short-fds-straining', 'test/conformance'),
      inEnvironments('short-fds-straining,mount-below,users,overlay,fuse,two-trees', 'test/environments'),
    ),
  stress: () => tests('stress', ['stress']),
  package: () => tests('package', ['package'], process.execPath, 'test/package'),
  guest: guestTests,
};
/** Run only by name. */
const namedStages = { release: releaseTests };
const allStages = { ...stages, ...namedStages };

async function runStage(name) {
  const began = Date.now();
  say(`${name} …`);
  let result;
  try {
    result = await allStages[name]();
  } catch (error) {
    if (!(error instanceof SetupFault)) throw error;
    say(error.message);
    result = { passed: 0, failed: 1 };
  }
  return { name, ...result, seconds: ((Date.now() - began) / 1000).toFixed(1) };
}

const wanted = process.argv.slice(2);
const unknown = wanted.filter(name => !Object.hasOwn(allStages, name));
if (unknown.length > 0) {
  say(`there is no stage ${unknown.join(', ')}: the stages are ${Object.keys(allStages).join(', ')}`);
  process.exit(2);
}
process.chdir(root);
const outcomes = [];
try {
  setUp();
  ensureTestPackages();
  for (const name of wanted.length > 0 ? wanted : Object.keys(stages)) outcomes.push(await runStage(name));
} catch (error) {
  if (!(error instanceof SetupFault)) throw error;
  say(error.message);
  outcomes.push({ name: 'set-up', passed: 0, failed: 1, seconds: '0' });
}
const total = key => outcomes.reduce((sum, one) => sum + one[key], 0);
process.stdout.write('\n');
for (const { name, passed, failed, seconds } of outcomes) {
  process.stdout.write(
    `${name.padEnd(12)} ${String(passed).padStart(5)} passed ${String(failed).padStart(5)} failed ${seconds.padStart(8)} s\n`,
  );
}
process.stdout.write(`${total('passed')} passed, ${total('failed')} failed\n`);
process.exit(total('failed') > 0 ? 1 : 0);
