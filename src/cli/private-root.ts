import { existsSync, lstatSync, readFileSync, readlinkSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import type { MountEntry, Rule } from '#host/sandbox.ts';

/**
 * The entries of a private root that contains only the paths of `rules`, reachable by the same symlinks as outside, and an
 * empty directory at the path of the working directory. Undefined if one of the paths is the root itself, since nothing could
 * be hidden. /proc is the host's, or a new one for a process in its own process id namespace.
 */
export function mountsFor(
  rules: readonly Rule[],
  directory: string,
  proc: 'host' | 'own' = 'host',
): MountEntry[] | undefined {
  const entries = new Map<string, MountEntry>();
  const processes: Rule = { path: '/proc', may: 'read' };
  const wanted = [...rules, processes].flatMap(({ path, may }) => {
    const found = resolved(path, entries);
    return found === undefined ? [] : [{ path: found, may }];
  });
  if (wanted.some(({ path }) => path === '/')) return undefined;
  addDirectory(directory, entries);
  return [
    ...entries.values(),
    ...mountRules(wanted).map(({ path, may }): MountEntry => {
      if (path === '/proc' && proc === 'own') return { path, is: 'proc' };
      return { path, is: writable(may) ? 'writable' : 'read-only' };
    }),
  ];
}

/**
 * The rules that need a mount of their own, outer ones first. No mount is within an export: rename(2) and link(2) cannot
 * cross it.
 */
function mountRules(rules: readonly Rule[]): Rule[] {
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
 * Resolves all symlinks of a path: path_resolution(7). Adds to `entries` what the resolution needs besides the result's parents:
 * the symlinks, and the directories that `..` leaves. Undefined if the path does not exist.
 */
function resolved(path: string, entries: Map<string, MountEntry>): string | undefined {
  if (!existsSync(path)) return undefined;
  const left = path.split('/');
  let at = isAbsolute(path) ? '/' : process.cwd();
  for (let name = left.shift(); name !== undefined; name = left.shift()) {
    if (name === '..') addDirectory(at, entries);
    const next = join(at, name);
    if (!lstatSync(next).isSymbolicLink()) {
      at = next;
      continue;
    }
    const target = readlinkSync(next);
    entries.set(next, { path: next, is: 'link', target });
    left.unshift(...target.split('/'));
    if (isAbsolute(target)) at = '/';
  }
  return at;
}

function addDirectory(path: string, entries: Map<string, MountEntry>): void {
  if (path !== '/') entries.set(path, { path, is: 'directory' });
}

/**
 * The paths whose mount is private (mount_namespaces(7)): later mounts and unmounts of the host there do not propagate to a copy.
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
