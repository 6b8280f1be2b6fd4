// Programs of this machine that are needed to build a guest.
import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';
import { say } from './paths.mjs';

const packageOfTool = {
  'apt-get': 'apt',
  'dpkg-deb': 'dpkg',
  flock: 'util-linux',
  tar: 'tar',
  xz: 'xz-utils',
  cpio: 'cpio',
  getfattr: 'attr',
  gcc: 'gcc',
  mke2fs: 'e2fsprogs',
};

const searched = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'].filter(dir => dir !== '');

export function findTool(name) {
  return searched
    .map(dir => join(dir, name))
    .find(path => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

// Installs missing programs if that is possible without a prompt; otherwise exits with the command to run.
export function needTools() {
  const missing = Object.keys(packageOfTool).filter(tool => findTool(tool) === undefined);
  if (missing.length === 0) return;
  const packages = missing.map(tool => packageOfTool[tool]);
  const command = ['apt-get', 'install', '-y', '--no-install-recommends', ...packages];
  if (process.getuid() === 0 && existsSync('/etc/debian_version') && findTool('apt-get') !== undefined) {
    say(`installing ${packages.join(' ')}`);
    execFileSync(command[0], command.slice(1), { stdio: ['ignore', 'ignore', 'inherit'] });
    return;
  }
  say(`needs ${missing.join(', ')}: run  sudo ${command.join(' ')}`);
  process.exit(1);
}
