// `npm run fuzz -- [--minutes N] [--target NAME]…`: fuzzes all targets of test/fuzz, or those named, in turns. What fails is
// kept below .cache/fuzz/found, and the command that repeats it is printed: npm run fuzz -- --target NAME --input FILE
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { buildShimsFuzzer } from './fuzz-shims.mjs';
import { ensureTestPackages, root, run, runProgram, SetupFault, say, setUp } from './setup.mjs';

const here = join(root, 'test', 'fuzz');
const cache = join(root, '.cache', 'fuzz');
const built = join(cache, 'build');
const shimsFuzzer = join(cache, 'shims');
const jazzer = join(here, 'node_modules', '@jazzer.js', 'core', 'dist', 'cli.js');

/** Seconds of a target's turn, and after which it counts as hanging. */
const turnSecondsMax = 60;
const graceSeconds = 60;
const inputBytesMax = 2048;

const modified = path => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;

function ensureFuzzer() {
  const stamp = join(here, 'node_modules', '.package-lock.json');
  if (modified(stamp) > modified(join(here, 'package-lock.json'))) return;
  say('installing the fuzzer (npm ci)');
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error', '--prefix', here];
  if (!run('npm', args)) throw new SetupFault('npm ci in test/fuzz failed: see above');
}

/** Compiles sources and targets to JavaScript, which the fuzzer instruments. */
function build() {
  rmSync(built, { recursive: true, force: true });
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const args = ['-p', 'tsconfig.json', '--noEmit', 'false', '--rootDir', '.', '--outDir', built];
  if (!run(process.execPath, [tsc, ...args]))
    throw new SetupFault('the targets could not be compiled: see above');
}

/** Directories of inputs: the growing corpus of earlier runs, and the repository's. */
function corpora(name) {
  const places = [join(cache, 'corpus', name), join(here, 'corpus', name)];
  mkdirSync(places[0], { recursive: true });
  return places.filter(place => existsSync(place));
}

/** The command for a target and its corpora; both kinds accept libFuzzer's flags. */
function commandOf({ name, kind }, seconds) {
  const found = join(cache, 'found', name);
  mkdirSync(found, { recursive: true });
  const flags = [
    ...[`-max_total_time=${seconds}`, `-max_len=${inputBytesMax}`, `-artifact_prefix=${found}/`],
    ...['-timeout=20', '-rss_limit_mb=4096', '-print_final_stats=1'],
  ];
  if (kind === 'native') return [shimsFuzzer, [...corpora(name), ...flags]];
  const module = relative(root, join(built, 'test', 'fuzz', 'targets', name));
  const options = ['-i', relative(root, join(built, 'src')), '--disableBugDetectors', '.*'];
  if (kind === 'sync') options.push('--sync');
  return [process.execPath, [jazzer, module, ...corpora(name), ...options, '--', ...flags]];
}

/** `#4096 NEW cov: 71 ft: 95 corp: 43/803b exec/s: 22141` */
function readProgress(line, progress) {
  const found = /^#(\d+)\s.*\bcov: (\d+) ft: (\d+) corp: (\d+)/.exec(line);
  if (!found) return false;
  [progress.runs, progress.covered, progress.features, progress.corpus] = found.slice(1).map(Number);
  return true;
}

function show({ name, before }, progress, left) {
  const text = `${name.padEnd(12)} ${before + progress.runs} runs, ${progress.covered} places covered, ${progress.corpus} inputs kept, ${left} s left`;
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

/** One turn. Resolves to the path of a failing input, or undefined. */
async function turn(target, seconds, left) {
  const known = new Set(readdirOrNone(join(cache, 'found', target.name)));
  const scratch = mkdtempSync(join(tmpdir(), 'ninepd-fuzz-'));
  const [command, args] = commandOf(target, seconds);
  const child = spawn(command, args, {
    cwd: root,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, TMPDIR: scratch },
  });
  const progress = { runs: 0, covered: 0, features: 0, corpus: 0 };
  const last = [];
  createInterface({ input: child.stderr }).on('line', line => {
    if (readProgress(line, progress)) show(target, progress, Math.round(left));
    else if (last.push(line) > 60) last.shift();
  });
  let hung = false;
  const watchdog = setTimeout(
    () => {
      hung = true;
      child.kill('SIGKILL');
    },
    (seconds + graceSeconds) * 1000,
  );
  const status = await new Promise(done => child.on('close', done));
  clearTimeout(watchdog);
  rmSync(scratch, { recursive: true, force: true });
  Object.assign(target, progress, { before: target.before + progress.runs });
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  say(
    `${target.name}: ${target.before} runs, ${target.covered} places covered, ${target.corpus} inputs kept`,
  );
  if (status === 0) return undefined;
  const input = readdirOrNone(join(cache, 'found', target.name)).find(name => !known.has(name));
  process.stderr.write(`${last.join('\n')}\n`);
  return { input: input && join(cache, 'found', target.name, input), hung };
}

function readdirOrNone(place) {
  return existsSync(place) ? readdirSync(place) : [];
}

function repeat({ name, kind }, input) {
  if (kind === 'native') return run(shimsFuzzer, [resolve(input)]);
  return run(process.execPath, [join(built, 'test', 'fuzz', 'repeat.js'), name, resolve(input)]);
}

function report(target, { input, hung }) {
  if (!input) {
    say(`${target.name}: ${hung ? 'it hung' : 'it ended'} without leaving an input; see above`);
    return;
  }
  // Also shortens it.
  repeat(target, input);
  const small = relative(root, existsSync(`${input}.small`) ? `${input}.small` : input);
  say(`${target.name} failed. To repeat it:\n  npm run fuzz -- --target ${target.name} --input ${small}`);
  say(`to keep it as a test, once it is repaired: cp ${small} test/fuzz/corpus/${target.name}/`);
}

/** Takes turns until the minutes are spent, without start-up times. */
async function fuzz(targets, minutes) {
  let left = minutes * 60;
  const seconds = Math.max(1, Math.min(turnSecondsMax, Math.floor(left / targets.length)));
  let playing = targets;
  while (playing.length > 0 && left >= 1) {
    for (const target of playing) {
      if (left < 1) break;
      const failed = await turn(target, Math.min(seconds, Math.ceil(left)), left);
      left -= seconds;
      if (!failed) continue;
      target.failed = true;
      report(target, failed);
    }
    playing = playing.filter(target => !target.failed);
  }
  return targets.filter(target => target.failed).length;
}

async function allTargets() {
  const { targets } = await import(join(built, 'test', 'fuzz', 'targets.js'));
  const kinds = Object.entries(targets).map(([name, target]) => [
    name,
    target.constructor.name === 'AsyncFunction' ? 'async' : 'sync',
  ]);
  return [...kinds, ['shims', 'native']].map(([name, kind]) => ({ name, kind, before: 0 }));
}

async function main() {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '10' },
      target: { type: 'string', multiple: true, default: [] },
      input: { type: 'string', multiple: true, default: [] },
    },
  });
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) throw new SetupFault('--minutes is a number above 0');
  setUp();
  ensureTestPackages();
  build();
  const targets = await allTargets();
  const unknown = values.target.filter(name => !targets.some(target => target.name === name));
  if (unknown.length > 0)
    throw new SetupFault(
      `there is no target ${unknown}: they are ${targets.map(({ name }) => name).join(', ')}`,
    );
  const chosen = targets.filter(({ name }) => values.target.length === 0 || values.target.includes(name));
  if (values.input.length > 0) {
    if (chosen.length !== 1) throw new SetupFault('--input needs the --target that it is for');
    if (chosen[0].kind === 'native') buildShimsFuzzer(shimsFuzzer);
    return values.input.map(input => repeat(chosen[0], input)).every(stood => stood) ? 0 : 1;
  }
  if (chosen.some(({ kind }) => kind !== 'native')) ensureFuzzer();
  if (chosen.some(({ kind }) => kind === 'native')) buildShimsFuzzer(shimsFuzzer);
  return (await fuzz(chosen, minutes)) > 0 ? 1 : 0;
}

await runProgram(async () => process.exit(await main()));
