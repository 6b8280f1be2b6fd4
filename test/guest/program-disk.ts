import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { installPackage } from '../../scripts/install-package.mjs';

/**
 * Creates a disk with ninepd as installed and this Node.js: `node` and `node_modules/ninepd/dist/cli/main.js`. The guest has Node's
 * libraries.
 */
export function makeProgramDisk(path: string): void {
  const tree = `${path}.tree`;
  mkdirSync(tree);
  copyFileSync(process.execPath, join(tree, 'node'));
  cpSync(join(installPackage().installed, 'node_modules'), join(tree, 'node_modules'), { recursive: true });
  const mke2fs = process.env.PATH?.includes('/sbin') ? 'mke2fs' : '/usr/sbin/mke2fs';
  execFileSync(mke2fs, ['-q', '-F', '-t', 'ext4', '-O', '^has_journal', '-m', '0', '-d', tree, path, '256M']);
  rmSync(tree, { recursive: true });
}
