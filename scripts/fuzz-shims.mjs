// The C harness of the shims (test/fuzz/shims): compiled for the fuzzer, or to run the files of its corpus.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { installDebianPackages, root, run, SetupFault } from './setup.mjs';

const harness = join(root, 'test', 'fuzz', 'shims');
const shims = join(root, 'native-shims');
/** Sources that need Node.js. */
const withNode = new Set(['addon.c', 'epoll.c']);
const always = [
  '-g',
  '-O1',
  '-std=c11',
  '-D_GNU_SOURCE',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-pthread',
  '-I',
  shims,
];
const sanitizers = 'address,undefined';

function compile(compiler, flags, drivers, output) {
  mkdirSync(dirname(output), { recursive: true });
  const sources = readdirSync(shims).filter(name => name.endsWith('.c') && !withNode.has(name));
  const files = [...sources.map(name => join(shims, name)), ...drivers.map(name => join(harness, name))];
  const all = [...always, ...flags, '-fno-sanitize-recover=undefined', ...files, '-o', output];
  if (!run(compiler, all)) throw new SetupFault('the harness of the shims could not be compiled: see above');
}

function hasLibFuzzer(compiler) {
  const input = 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return !d && n; }\n';
  const args = [`-fsanitize=fuzzer,${sanitizers}`, '-x', 'c', '-', '-o', '/dev/null'];
  return spawnSync(compiler, args, { input, stdio: ['pipe', 'ignore', 'ignore'] }).status === 0;
}

function clangs() {
  const versioned = readdirSync('/usr/bin').filter(name => /^clang-\d+$/.test(name));
  return [process.env.CLANG, 'clang', ...versioned].filter(name => name);
}

/** A clang with libFuzzer; installed if that is possible without a prompt. */
function clangWithLibFuzzer() {
  const what = 'clang with libFuzzer';
  const found = clangs().find(hasLibFuzzer);
  if (found) return found;
  if (spawnSync('clang', ['--version'], { stdio: 'ignore' }).error) installDebianPackages(['clang'], what);
  const { stdout } = spawnSync('clang', ['-dumpversion'], { encoding: 'utf8' });
  const [major] = stdout.split('.');
  if (!hasLibFuzzer('clang')) installDebianPackages([`libclang-rt-${major}-dev`], what);
  if (!hasLibFuzzer('clang')) throw new SetupFault(`${what} is missing: name one in CLANG`);
  return 'clang';
}

/** Builds the libFuzzer program. */
export function buildShimsFuzzer(output) {
  compile(clangWithLibFuzzer(), [`-fsanitize=fuzzer,${sanitizers}`], ['harness.c'], output);
}

/** Builds a program that runs the harness on given files. */
export function buildShimsReplay(compiler, output) {
  compile(compiler, [`-fsanitize=${sanitizers}`], ['harness.c', 'replay.c'], output);
}
