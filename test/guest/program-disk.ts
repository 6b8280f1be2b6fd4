import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = fileURLToPath(new URL('../..', import.meta.url));

interface Lock {
  packages: Record<string, { dev?: boolean; link?: boolean }>;
}

/** Run-time dependencies of the program from package-lock.json: paths below the checkout. */
function packages(): string[] {
  const { packages: all } = JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as Lock;
  return Object.keys(all).filter(
    path => path.startsWith('node_modules/') && !all[path]?.dev && !all[path]?.link,
  );
}

/**
 * Creates a disk with ninepd as installed and this Node.js: `node` and `ninepd/dist/cli/main.js`. The guest has Node's
 * libraries.
 */
export function makeProgramDisk(path: string): void {
  const tree = `${path}.tree`;
  const installed = join(tree, 'ninepd');
  mkdirSync(installed, { recursive: true });
  copyFileSync(process.execPath, join(tree, 'node'));
  for (const name of ['package.json', 'dist', ...packages()]) {
    mkdirSync(dirname(join(installed, name)), { recursive: true });
    cpSync(join(repository, name), join(installed, name), { recursive: true });
  }
  const addon = join(installed, 'node_modules/native-shims');
  mkdirSync(join(addon, 'build'), { recursive: true });
  for (const name of ['package.json', 'build/native-shims.node'])
    copyFileSync(join(repository, 'native-shims', name), join(addon, name));
  const mke2fs = process.env.PATH?.includes('/sbin') ? 'mke2fs' : '/usr/sbin/mke2fs';
  execFileSync(mke2fs, ['-q', '-F', '-t', 'ext4', '-O', '^has_journal', '-m', '0', '-d', tree, path, '256M']);
  rmSync(tree, { recursive: true });
}
