// Prepares the program and its tests: the packages of package-lock.json, the native addon, and the JavaScript of src. A step
// that is up to date does nothing and needs no network. Progress goes to standard error.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ownTarget } from '../native-shims/targets.mjs';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const inRoot = (...names) => join(root, ...names);

export function say(text) {
  process.stderr.write(`ninepd: ${text}\n`);
}

/** A step failed; the text says what to do. */
export class SetupFault extends Error {}

/** Runs the main function of a script. A `SetupFault` or an invalid option ends it with status 2 and a message. */
export async function runProgram(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof SetupFault) && !error.code?.startsWith?.('ERR_PARSE_ARGS')) throw error;
    say(error.message);
    process.exitCode = 2;
  }
}

/** Runs a program to its end with its output on standard error. */
export function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], ...options });
  if (error) throw new SetupFault(`${command} cannot be run: ${error.message}`);
  return status === 0;
}

const modified = path => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;

function newest(directory) {
  let time = modified(directory);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    time = Math.max(time, entry.isDirectory() ? newest(path) : modified(path));
  }
  return time;
}

function ensureNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  throw new SetupFault(`Node.js 20.19 or later is needed; this is ${process.versions.node}`);
}

// Install scripts are not run: the program needs none, and only the tests need fs-xattr and posix, whose build takes a C++ compiler and
// Python.
function ensurePackages() {
  const lock = readFileSync(inRoot('package-lock.json'));
  const hash = createHash('sha256').update(lock).digest('hex');
  const stamp = inRoot('node_modules', '.ninepd-lock');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return;
  // npm writes this file last, so a manual npm run since the last change of the lock counts.
  if (modified(inRoot('node_modules', '.package-lock.json')) < modified(inRoot('package-lock.json'))) {
    say('installing packages (npm ci)');
    if (!run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'])) {
      throw new SetupFault('npm ci failed: see above. It needs the network, or a filled npm cache, once');
    }
  }
  writeFileSync(stamp, hash);
}

// Whether a C program can be compiled.
function hasCompiler() {
  const compiler = [process.env.CC, 'cc', 'gcc', 'clang'].find(
    name => name && spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0,
  );
  const input = '#include <stdio.h>\n#include <linux/openat2.h>\n';
  return (
    compiler && spawnSync(compiler, ['-E', '-'], { input, stdio: ['pipe', 'ignore', 'ignore'] }).status === 0
  );
}

/** Installs Debian packages if that is possible without a prompt; otherwise fails with their names. */
export function installDebianPackages(names, what) {
  const debian = existsSync('/usr/bin/apt-get');
  if (!debian || process.getuid() !== 0) {
    const how = debian
      ? `sudo apt-get install ${names.join(' ')}`
      : `install what Debian calls ${names.join(', ')}`;
    throw new SetupFault(`${what} is missing: ${how}`);
  }
  say(`installing ${names.join(' ')} (apt-get)`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const install = () =>
    run('apt-get', ['install', '-qq', '-y', '--no-install-recommends', ...names], { env });
  if (install() || (run('apt-get', ['update', '-qq'], { env }) && install())) return;
  throw new SetupFault(`${what} is missing, and apt-get could not install ${names.join(' ')}: see above`);
}

function ensureAddon() {
  const shims = inRoot('native-shims');
  const sources = ['.', 'compat', 'groups'].flatMap(name =>
    readdirSync(join(shims, name)).map(file => join(shims, name, file)),
  );
  const built = modified(join(shims, 'build', ownTarget(), 'native-shims.node'));
  if (sources.filter(path => /\.(c|h|mjs)$/.test(path)).every(path => modified(path) < built)) return;
  if (!hasCompiler()) installDebianPackages(['gcc', 'libc6-dev'], 'a C compiler with the headers of Linux');
  say('compiling the native addon');
  if (!run(process.execPath, [inRoot('native-shims', 'build.mjs')])) {
    throw new SetupFault('the native addon could not be compiled: see above');
  }
}

function ensureBuild() {
  const stamp = inRoot('dist', '.built');
  const inputs = ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json'].map(name =>
    modified(inRoot(name)),
  );
  const began = Date.now();
  if (Math.max(newest(inRoot('src')), ...inputs) < modified(stamp)) return;
  say('compiling the sources (tsc)');
  if (
    !run(process.execPath, [inRoot('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json'])
  ) {
    throw new SetupFault('the sources could not be compiled: see above');
  }
  // The start time, so that sources changed meanwhile are compiled next time.
  writeFileSync(stamp, `${new Date(began).toISOString()}\n`);
}

/** Packages with native code that tests compare the server with, and what their build makes. */
const testPackages = { 'fs-xattr': 'build/Release/xattr.node', posix: 'build/Release/posix.node' };

/** Builds them. */
export function ensureTestPackages() {
  const unbuilt = Object.entries(testPackages).flatMap(([name, file]) =>
    existsSync(inRoot('node_modules', name, file)) ? [] : [name],
  );
  if (unbuilt.length === 0) return;
  const names = unbuilt.join(' and ');
  const missing = ['g++', 'make', 'python3'].filter(
    name => spawnSync(name, ['--version'], { stdio: 'ignore' }).error,
  );
  if (missing.length > 0) installDebianPackages(missing, `what ${names} is compiled with`);
  say(`compiling ${names}, which the tests use`);
  // Node's installed headers save a download.
  const nodedir = resolve(process.execPath, '..', '..');
  const env = { ...process.env };
  if (existsSync(join(nodedir, 'include', 'node', 'node_api.h')))
    env.npm_package_config_node_gyp_nodedir = nodedir;
  if (!run('npm', ['rebuild', ...unbuilt, '--foreground-scripts', '--loglevel=error'], { env })) {
    throw new SetupFault(`${names} could not be compiled: see above`);
  }
}

/** Installs moto, a server of S3 for tests, which a test of the examples starts. */
export function ensureS3Server() {
  if (existsSync('/usr/bin/moto_server')) return;
  installDebianPackages(
    ['python3-moto', 'python3-flask', 'python3-flask-cors'],
    'the S3 server of the tests, moto',
  );
}

/** Runs all steps for the program. Throws `SetupFault`. */
export function setUp() {
  ensureNode();
  ensurePackages();
  ensureAddon();
  ensureBuild();
}
