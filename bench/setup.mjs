// Setup of the benchmark: its packages, its two C programs, diod.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { installDebianPackages, root, run, SetupFault, say, setUp } from '../scripts/setup.mjs';

const here = join(root, 'bench');
const built = join(here, 'build');

/** The programs that `setUpBench` compiles. */
export const programs = { load: join(built, 'load'), floor: join(built, 'floor') };

const sources = { load: ['load.c', 'steps.c', 'connection.c'], floor: ['floor.c'] };

const modified = path => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;

function compile(name) {
  const inputs = readdirSync(here).filter(file => /\.[ch]$/.test(file));
  if (inputs.every(file => modified(join(here, file)) < modified(programs[name]))) return;
  say(`compiling bench/${name}`);
  const flags = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror'];
  const files = sources[name].map(file => join(here, file));
  if (!run(process.env.CC ?? 'cc', [...flags, '-o', programs[name], ...files])) {
    throw new SetupFault(`bench/${name} could not be compiled: see above`);
  }
}

/** The path of diod, which Debian installs in a directory of root's PATH. */
export function findDiod() {
  const places = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  return places.map(place => join(place, 'diod')).find(path => existsSync(path));
}

/** The packages of bench/package.json. */
export function ensureBenchPackages() {
  const stamp = join(here, 'node_modules', '.package-lock.json');
  if (modified(stamp) > modified(join(here, 'package-lock.json'))) return;
  say('installing the packages of the benchmark (npm ci)');
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error', '--prefix', here];
  if (!run('npm', args)) throw new SetupFault('npm ci in bench failed: see above');
}

/** Runs all steps; `withDiod` if it is a peer. Throws `SetupFault`. */
export function setUpBench(withDiod) {
  setUp();
  ensureBenchPackages();
  mkdirSync(built, { recursive: true });
  if (spawnSync(process.env.CC ?? 'cc', ['--version'], { stdio: 'ignore' }).error) {
    installDebianPackages(['gcc', 'libc6-dev'], 'a C compiler');
  }
  for (const name of Object.keys(programs)) compile(name);
  if (withDiod && !findDiod()) installDebianPackages(['diod'], 'diod, which is measured beside ninepd');
}
