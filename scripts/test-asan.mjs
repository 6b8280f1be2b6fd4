// Runs the addon's tests with the address and undefined-behaviour sanitizers, and checks for leaks. A sanitizer's report is a
// failure even if the test passes. Arguments select other tests.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildShimsReplay } from './fuzz-shims.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const reports = join(root, '.cache/asan');
const addon = join(root, 'native-shims/build/asan/native-shims.node');
const given = process.argv.slice(2);
const suites =
  given.length > 0
    ? given
    : ['test/program/host', 'test/program/tree.', 'test/program/tree-unprivileged', 'test/conformance'];

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

/** Starts Node with the sanitizers and their run-time flags. */
function sanitized(args, options, stdio) {
  // Quarantine for freed memory, which detects use after free. 16 MiB keep the tests' memory bounds.
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

// Node and V8 do not free everything at exit, so leaks are checked separately below.
const vitest = join(root, 'node_modules/vitest/vitest.mjs');
const tests = sanitized([vitest, 'run', '--project', 'program', ...suites], { detect_leaks: 0 }, 'inherit');
for (const report of reported()) console.error(report);
if (reported().length > 0) fail('a sanitizer reported an error');
if (tests.status !== 0) fail('tests failed under the sanitizers');

// Leaks count only if the addon allocated the memory, in the first frames above malloc (Node may have leaks).
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

// The corpus of the shims' fuzzer (test/fuzz/shims).
const replay = join(root, '.cache/shims-replay');
const corpus = join(root, 'test/fuzz/corpus/shims');
buildShimsReplay(compiler, replay);
const inputs = readdirSync(corpus).map(name => join(corpus, name));
if (spawnSync(replay, inputs, { stdio: 'inherit' }).status !== 0) fail('the corpus of the shims failed');
console.error('test:asan: no report, no leak');
