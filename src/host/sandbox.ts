import { dirname, join } from 'node:path';
import { ENOSYS, Errno } from '#base/errno.ts';
import { addon, addonPath } from './addon.ts';
import { beginCall, expectVoid, raw, runInline, shimOf } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = {
  privateRoot: shimOf('privateRoot'),
  landlockAbi: shimOf('landlockAbi'),
  landlock: shimOf('landlock'),
  boundCapabilities: shimOf('boundCapabilities'),
  keepCapabilities: shimOf('keepCapabilities'),
  execute: shimOf('execute'),
  filterCalls: shimOf('filterCalls'),
};

const asBytes = (text: string) => Buffer.from(text).toString('latin1');
/** Texts one behind the other, each with a NUL after it. */
const joined = (texts: readonly string[]) => Buffer.from(texts.map(text => `${text}\0`).join(''));

/** What may be done with a path and all below it. */
export interface Rule {
  readonly path: string;
  /** `all` is everything but to execute; `remove` is to remove files and nothing else. */
  readonly may: 'read' | 'execute' | 'all' | 'remove';
}

const letters: Readonly<Record<Rule['may'], string>> = { read: 'r', execute: 'x', all: 'w', remove: 'u' };

/** What is at a path, which is absolute and leads through no symlink. What is bound is the host's, with all below it. */
export type MountEntry =
  | { readonly path: string; readonly is: 'directory' | 'read-only' | 'writable' }
  | { readonly path: string; readonly is: 'link'; readonly target: string };

/**
 * Gives this thread, and what it executes, a root directory in which nothing is but these places, and which then is its
 * working directory. Returns why it may not have one, if so; nothing has changed then.
 */
export function enterPrivateRoot(places: readonly MountEntry[]): Errno | undefined {
  const rows = places.flatMap(one => [one.is[0] + one.path, ...(one.is === 'link' ? [one.target] : [])]);
  beginCall(op.privateRoot, serverCreds);
  const failed = runInline(raw, joined(rows)) as number;
  return failed < 0 ? Errno.of(-failed) : undefined;
}

/** The ABI of the kernel's Landlock; undefined when it has none, or one that is too old to be of use. */
export function landlockAbi(): number | undefined {
  beginCall(op.landlockAbi, serverCreds);
  const abi = runInline(raw) as number;
  return abi < 0 ? undefined : abi;
}

/** Shuts this thread, and what it executes, in to these paths: no others, no TCP socket of its own, no signal to others. */
export function landlock(rules: readonly Rule[]): void {
  beginCall(op.landlock, serverCreds);
  runInline(expectVoid, joined(rules.map(({ may, path }) => letters[may] + path)));
}

/** A set of capabilities, by their names in capabilities(7), as two words. */
function wordsOf(names: Iterable<string>): [number, number] {
  const words: [number, number] = [0, 0];
  for (const name of names) {
    const bit = addon.constants[name];
    if (bit === undefined) throw new Error(`The native addon does not know ${name}: rebuild it.`);
    words[bit >> 5]! |= 1 << (bit & 31);
  }
  return words;
}

/** Takes all other capabilities out of what this thread, and what it executes, could ever have: only root can do that. */
export function boundCapabilities(names: Iterable<string>): void {
  beginCall(op.boundCapabilities, serverCreds, ...wordsOf(names));
  runInline(expectVoid);
}

/** Keeps no other capabilities, for this thread and what it executes; from then on none can be gained. */
export function keepCapabilities(names: Iterable<string>): void {
  beginCall(op.keepCapabilities, serverCreds, ...wordsOf(names));
  runInline(expectVoid);
}

/** Becomes another program, which inherits the descriptors named, besides the first three. Returns only by throwing. */
export function execute(
  path: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  descriptors: readonly number[],
): never {
  const settings = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : `${name}=${value}`,
  );
  const words = Int32Array.from(descriptors);
  beginCall(op.execute, serverCreds, 0, 0, 0, asBytes(path));
  runInline(expectVoid, [joined(args), joined(settings), new Uint8Array(words.buffer)]);
  throw new Error('execve(2) has returned');
}

/** In the order of their numbers in seccomp.c. */
const filters = ['server', 'starter', 'next program'] as const;

/** What a server needs that others are refused: threads that become guests' users, descriptors that come over a socket. */
export interface ServerNeeds {
  readonly users?: boolean;
  readonly descriptors?: boolean;
}

/**
 * From now on no thread of this process can call what a `server` has no use for; some calls end the process. A `starter` may start
 * processes, and only those calls that end it are kept from it; `next program` takes no more than io_uring from what is executed.
 * Returns false where this kernel or processor has no filters. Throws an Errno when the filter cannot be installed.
 */
export function installSeccomp(filter: (typeof filters)[number], needs: ServerNeeds = {}): boolean {
  const bits = (needs.users ? 1 : 0) | (needs.descriptors ? 2 : 0);
  beginCall(op.filterCalls, serverCreds, filters.indexOf(filter), bits);
  const failed = runInline(raw) as number;
  if (failed < 0 && failed !== -ENOSYS.code) throw Errno.of(-failed);
  return failed === 0;
}

/** The program that tells groups from outside: native-shims/groups. */
export const groupsProgram: string = join(dirname(addonPath), 'ninepd-groups');
