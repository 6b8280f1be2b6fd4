import { existsSync, lstatSync, readFileSync, readlinkSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import type { MountEntry, Rule } from '#host/sandbox.ts';

/**
 * What has a place in a root directory that is only for these paths: each leads to what it leads to outside, by the same
 * symlinks; and the working directory, without what is in it. Undefined when one of them is the root itself, which leaves
 * nothing to hide.
 */
export function mountsFor(rules: readonly Rule[], directory: string): MountEntry[] | undefined {
  const ways = new Map<string, MountEntry>();
  const processes: Rule = { path: '/proc', may: 'read' };
  const wanted = [...rules, processes].flatMap(({ path, may }) => {
    const found = resolved(path, ways);
    return found === undefined ? [] : [{ path: found, may }];
  });
  if (wanted.some(({ path }) => path === '/')) return undefined;
  stay(directory, ways);
  return [
    ...ways.values(),
    ...bound(wanted).map(
      ({ path, may }) => ({ path, is: writable(may) ? 'writable' : 'read-only' }) as const,
    ),
  ];
}

/** Those that need a mount of their own, outer ones first. An export has none within, where names are moved and linked. */
function bound(rules: readonly Rule[]): Rule[] {
  const kept: Rule[] = [];
  const byPath = ({ path: a }: Rule, { path: b }: Rule) => (a < b ? -1 : a > b ? 1 : 0);
  for (const rule of rules.toSorted(byPath)) {
    const around = kept.findLast(outer => isWithin(rule.path, outer.path));
    const same = around !== undefined && rule.may !== 'all' && writable(around.may) === writable(rule.may);
    if (around?.may !== 'all' && !same) kept.push(rule);
  }
  return kept;
}

const writable = (may: Rule['may']) => may === 'all' || may === 'remove';
const isWithin = (path: string, outer: string) =>
  path === outer || path.startsWith(outer === '/' ? outer : `${outer}/`);

/**
 * The path without symlinks: path_resolution(7). What the way leads over besides its own directories goes into `ways`:
 * symlinks, and what `..` leaves. Undefined where nothing is.
 */
function resolved(path: string, ways: Map<string, MountEntry>): string | undefined {
  if (!existsSync(path)) return undefined;
  const left = path.split('/');
  let at = isAbsolute(path) ? '/' : process.cwd();
  for (let name = left.shift(); name !== undefined; name = left.shift()) {
    if (name === '..') stay(at, ways);
    const next = join(at, name);
    if (!lstatSync(next).isSymbolicLink()) {
      at = next;
      continue;
    }
    const target = readlinkSync(next);
    ways.set(next, { path: next, is: 'link', target });
    left.unshift(...target.split('/'));
    if (isAbsolute(target)) at = '/';
  }
  return at;
}

function stay(path: string, ways: Map<string, MountEntry>): void {
  if (path !== '/') ways.set(path, { path, is: 'directory' });
}

/**
 * Those of the directories whose mount is private: mount_namespaces(7). What the host mounts and unmounts there reaches no copy
 * of it.
 */
export function privateMounts(paths: readonly string[]): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .trim()
    .split('\n')
    .map(line => line.split(' '))
    .map(fields => ({
      at: fields[4]!.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
      // Optional fields, up to a hyphen: proc_pid_mountinfo(5).
      follows: /^(shared|master):/.test(fields[6]!),
    }))
    .sort((a, b) => a.at.length - b.at.length);
  return paths.filter(path => {
    const found = resolved(path, new Map());
    return found !== undefined && !mounts.findLast(({ at }) => isWithin(found, at))?.follows;
  });
}
