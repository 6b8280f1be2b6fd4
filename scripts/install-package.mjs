// ninepd as who installs it has it: `npm pack` in a copy of the repository as git has it, and `npm install` of the tarball in an
// empty folder with no compiler on PATH. Kept below .cache/package until a file changes.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { root, run, SetupFault, say } from './setup.mjs';

const place = join(root, '.cache', 'package');

/** What git has, and what is new and not ignored. */
function files() {
  const args = ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--deduplicate'];
  const names = execFileSync('git', args, { cwd: root, encoding: 'utf8' }).split('\0');
  return names.filter(name => name !== '' && existsSync(join(root, name)));
}

function hashOf(names) {
  const hash = createHash('sha256');
  for (const name of names)
    hash
      .update(`${name}\0`)
      .update(readFileSync(join(root, name)))
      .update('\0');
  return hash.digest('hex').slice(0, 16);
}

/** npm's program, which the `npm` on PATH is a link to. */
function npmProgram() {
  for (const directory of process.env.PATH.split(':')) {
    const link = join(directory, 'npm');
    if (existsSync(link) && realpathSync(link).endsWith('.js')) return realpathSync(link);
  }
  throw new SetupFault('npm is not found on PATH, or is no link to npm-cli.js');
}

/** Installs packages in an empty folder, with nothing but Node.js and a shell on PATH. `node` runs npm and is what there is then. */
export function installIn(folder, packages, node = process.execPath) {
  const bin = join(folder, 'bin');
  mkdirSync(bin, { recursive: true });
  symlinkSync(node, join(bin, 'node'));
  symlinkSync('/bin/sh', join(bin, 'sh'));
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
  const quiet = ['--no-audit', '--no-fund', '--loglevel=error', '--prefer-offline'];
  const env = { ...process.env, PATH: bin };
  const args = [npmProgram(), 'install', ...quiet, ...packages];
  if (!run(node, args, { cwd: folder, env }))
    throw new SetupFault(`npm install ${packages.join(' ')} failed: see above`);
}

/** Returns the paths of the tarball, of the folder where it is installed, and of the program there. */
export function installPackage() {
  const names = files();
  const folder = join(place, hashOf(names));
  const installed = join(folder, 'installed');
  const program = join(installed, 'node_modules', 'ninepd', 'dist', 'cli', 'main.js');
  const result = { tarball: join(folder, 'ninepd.tgz'), installed, program };
  if (existsSync(program)) return result;
  // Another process may be at it.
  const making = join(place, `making-${process.pid}`);
  say('packing and installing ninepd (npm pack, npm install)');
  const clone = join(making, 'clone');
  for (const name of names) cpSync(join(root, name), join(clone, name), { recursive: true });
  if (!run('npm', ['pack', '--loglevel=error'], { cwd: clone }))
    throw new SetupFault('npm pack failed: see above');
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  renameSync(join(clone, `ninepd-${version}.tgz`), join(making, 'ninepd.tgz'));
  rmSync(clone, { recursive: true });
  installIn(join(making, 'installed'), [join(making, 'ninepd.tgz')]);
  if (existsSync(program)) {
    rmSync(making, { recursive: true });
    return result;
  }
  for (const name of readdirSync(place))
    if (!name.startsWith('making-')) rmSync(join(place, name), { recursive: true, force: true });
  renameSync(making, folder);
  return result;
}
