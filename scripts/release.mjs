// What the stage `release` needs: the addon for all targets, the emulator, and Node.js for arm64 and in each supported version.
import { spawnSync } from 'node:child_process';
import { publishedTargets } from '../native-shims/targets.mjs';
import { installNode } from './install-node.mjs';
import { installDebianPackages, setUp } from './setup.mjs';
import { buildTarget, ensureCompilers } from './targets.mjs';

/** The oldest that is supported, and the newest of each later line. */
export const nodeVersions = ['20.19.0', '20', '22', '24', '26'];
const runs = name => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0;

/** On x64: the other architecture is emulated. */
export async function prepareRelease() {
  setUp();
  await ensureCompilers();
  if (!runs('qemu-aarch64')) installDebianPackages(['qemu-user'], 'an emulator for arm64');
  for (const target of publishedTargets) buildTarget(target);
  for (const version of nodeVersions) installNode(version);
  installNode('20', 'arm64');
}
