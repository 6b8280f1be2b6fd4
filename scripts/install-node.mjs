// Node.js in other versions, and for other architectures, from the npm registry.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { root, run, SetupFault, say } from './setup.mjs';

/** The path of its binary. No download when it is there. */
export function installNode(version, arch = process.arch) {
  const place = join(root, '.cache', arch === process.arch ? `node-${version}` : `node-${version}-${arch}`);
  const name = `node-linux-${arch}`;
  const binary = join(place, 'node_modules', name, 'bin', 'node');
  if (!existsSync(binary)) {
    say(`installing Node.js ${version} (${arch}) for the tests`);
    mkdirSync(place, { recursive: true });
    const options = ['--no-save', '--no-audit', '--no-fund', '--loglevel=error'];
    // Packages for another architecture are refused without.
    if (arch !== process.arch) options.push('--force');
    if (!run('npm', ['install', ...options, '--prefix', place, `${name}@${version}`])) {
      throw new SetupFault(`Node.js ${version} could not be installed: see above`);
    }
  }
  return binary;
}
