import { spawnSync } from 'node:child_process';
import { mkdirSync, renameSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const place = fileURLToPath(new URL('../../.cache/programs', import.meta.url));
const flags = ['-std=c11', '-D_GNU_SOURCE', '-O1', '-Wall', '-Wextra', '-Werror', '-pthread'];

/** Runs a command that must succeed; returns its output. */
export function command(name: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(name, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${error?.message ?? stderr}`);
  return stdout.trim();
}

/** The path of a test program, compiled if its source is newer. Safe for concurrent calls of several processes. */
export function compiled(source: string): string {
  const program = join(place, basename(source, '.c'));
  const built = statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (built > statSync(source).mtimeMs) return program;
  mkdirSync(place, { recursive: true });
  const unfinished = `${program}.${process.pid}`;
  command(process.env.CC ?? 'cc', ...flags, '-o', unfinished, source);
  renameSync(unfinished, program);
  return program;
}
