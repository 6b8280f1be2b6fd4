// Paths, and progress messages.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const repository = fileURLToPath(new URL('../..', import.meta.url));
export const scriptDir = join(repository, 'scripts/guest');
export const programDir = join(repository, 'test/guest/programs');
export const mountHelper = join(repository, 'tools/mount-9pvsock/mount.9pvsock.c');
export const cacheDir = join(repository, '.cache/guest');

export function say(line) {
  process.stderr.write(`guest-image: ${line}\n`);
}

export function hashOf(inputs) {
  const hash = createHash('sha256');
  for (const input of inputs) {
    hash.update(`${input.length}:`);
    hash.update(input);
  }
  return hash.digest('hex').slice(0, 16);
}
