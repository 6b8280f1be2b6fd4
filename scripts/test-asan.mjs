// Runs the tests that reach the addon with the address and undefined-behaviour sanitizers in it, and looks for leaks.
// A report of a sanitizer is a failure, also when the test that caused it passed. Arguments name other tests to run.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildShimsReplay } from './fuzz-shims.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const reports = join(root, '.cache/asan');
const addon = join(root, 'native-shims/build/asan/native-shims.node');
const given = process.argv.slice(2);
const suites = given.length > 0 ? given : ['test/program/host', 'test/program/tree', 'test/conformance'];

function fail(line) {
  console.error(`test:asan: ${line}`);
  process.exit(1);
}

const compiler =
  [process.env.CC, 'gcc', 'cc'].find(name => name && spawnSync(name, ['--version']).status === 0) ?? 'gcc';

function runtime() {
  const { stdout } = spawnSync(compiler, ['-print-file-name=libasan.so'], { encoding: 'utf8' });
  const path = stdout?.trim();
  if (!path?.startsWith('/')) fail('libasan was not found (Debian, Ubuntu: apt-get install gcc)');
  return realpathSync(path);
}

/** Starts Node with the sanitizers; options are those of the sanitizers' run-time flags. */
function sanitized(args, options, stdio) {
  // What was freed is kept for a while, so that its use is seen. 16 MiB of that leave the tests their bounds on memory.
  const flags = { log_path: join(reports, 'report'), quarantine_size_mb: 16, ...options };
  const asan = Object.entries(flags).map(([name, value]) => `${name}=${value}`);
  const env = { ...process.env, NINEPD_ADDON: addon, LD_PRELOAD: library, ASAN_OPTIONS: asan.join(':') };
  env.UBSAN_OPTIONS = 'print_stacktrace=1';
  return spawnSync(process.execPath, args, { cwd: root, env, stdio, encoding: 'utf8' });
}

function reported() {
  return readdirSync(reports).map(name => readFileSync(join(reports, name), 'utf8'));
}

const built = spawnSync(process.execPath, ['native-shims/build.mjs', '--sanitize'], {
  cwd: root,
  stdio: 'inherit',
});
if (built.status !== 0) process.exit(1);
const library = runtime();
rmSync(reports, { recursive: true, force: true });
mkdirSync(reports, { recursive: true });

// Node and V8 never free some of what they have at exit, so that leaks are looked for apart, below.
const vitest = join(root, 'node_modules/vitest/vitest.mjs');
const tests = sanitized([vitest, 'run', '--project', 'program', ...suites], { detect_leaks: 0 }, 'inherit');
for (const report of reported()) console.error(report);
if (reported().length > 0) fail('a sanitizer reported an error');
if (tests.status !== 0) fail('tests failed under the sanitizers');

// Leaks: only those count whose memory the addon itself asked for, in the first frames above malloc (a later
// Node may have leaks of its own).
const leaks = sanitized(
  [join(root, 'scripts/asan-leaks.cjs'), addon],
  { detect_leaks: 1, exitcode: 0 },
  'pipe',
);
const own = reported()
  .flatMap(report => report.split('\n\n'))
  .filter(leak => /^ *#[1-3] .*native-shims/m.test(leak));
if (leaks.status !== 0) fail(`the search for leaks failed: ${leaks.stderr}`);
if (reported().some(report => report.includes('fatal error'))) fail(reported().join('\n'));
if (own.length > 0) fail(`the addon leaks:\n${own.join('\n\n')}`);

// What the fuzzer of the shims has found worth keeping (test/fuzz/shims).
const replay = join(root, '.cache/shims-replay');
const corpus = join(root, 'test/fuzz/corpus/shims');
buildShimsReplay(compiler, replay);
const inputs = readdirSync(corpus).map(name => join(corpus, name));
if (spawnSync(replay, inputs, { stdio: 'inherit' }).status !== 0) fail('the corpus of the shims failed');
console.error('test:asan: no report, no leak');
