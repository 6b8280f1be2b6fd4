import { dirname, join } from 'node:path';
import { ENOSYS, Errno } from '#base/errno.ts';
import { addon, addonPath } from './addon.ts';
import {
  SECCOMP_NEEDS_DESCRIPTORS,
  SECCOMP_NEEDS_MODES,
  SECCOMP_NEEDS_USERS,
  SECCOMP_ROLE_CONFINER,
  SECCOMP_ROLE_LAUNCHER,
  SECCOMP_ROLE_PRE_EXEC,
  SECCOMP_ROLE_SERVER,
} from './constants.ts';
import { beginCall, expectVoid, raw, runInline, shimOf } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = {
  privateRoot: shimOf('privateRoot'),
  landlockAbi: shimOf('landlockAbi'),
  landlock: shimOf('landlock'),
  boundCapabilities: shimOf('boundCapabilities'),
  keepCapabilities: shimOf('keepCapabilities'),
  execute: shimOf('execute'),
  installSeccomp: shimOf('installSeccomp'),
};

const asBytes = (text: string) => Buffer.from(text).toString('latin1');
/** NUL-terminated strings. */
const terminated = (texts: readonly string[]) => Buffer.from(texts.map(text => `${text}\0`).join(''));

/** A Landlock rule for a path and everything below it. */
export interface Rule {
  readonly path: string;
  /** `execute` includes reading; `all` is everything but executing; `remove` is removing files only. */
  readonly may: 'read' | 'execute' | 'all' | 'remove';
}

/** As in native-shims/landlock.c. */
const letters: Readonly<Record<Rule['may'], string>> = { read: 'r', execute: 'x', all: 'w', remove: 'u' };

/** Rules as `ninepd-launch` and the shim take them. */
export function ruleRows(rules: readonly Rule[]): Buffer {
  return terminated(rules.map(({ may, path }) => letters[may] + path));
}

/**
 * An entry of a private root. Paths are absolute and without symlinks. `read-only` and `writable` are recursive bind mounts
 * of the host's path; `directory` is an empty one; `proc` is a new proc file system of this process id namespace. The first letter
 * of `is` is that of native-shims/private-root.c.
 */
export type MountEntry =
  | { readonly path: string; readonly is: 'directory' | 'read-only' | 'writable' | 'proc' }
  | { readonly path: string; readonly is: 'link'; readonly target: string };

/** Entries of a private root as `ninepd-launch` and the shim take them. */
export function mountRows(entries: readonly MountEntry[]): Buffer {
  return terminated(
    entries.flatMap(one => [one.is[0] + one.path, ...(one.is === 'link' ? [one.target] : [])]),
  );
}

/**
 * Enters a private root with these entries, for this thread and what it executes; it becomes the working directory. Returns
 * the Errno on failure, when nothing has changed: EPERM without CAP_SYS_ADMIN.
 */
export function enterPrivateRoot(entries: readonly MountEntry[]): Errno | undefined {
  beginCall(op.privateRoot, serverCreds);
  const failed = runInline(raw, mountRows(entries)) as number;
  return failed < 0 ? Errno.of(-failed) : undefined;
}

/** The kernel's Landlock ABI; undefined if it has none, or one below 2, which forbids rename(2) between directories. */
export function landlockAbi(): number | undefined {
  beginCall(op.landlockAbi, serverCreds);
  const abi = runInline(raw) as number;
  return abi < 0 ? undefined : abi;
}

/**
 * Restricts this thread and what it executes to these paths, and denies connect(2) and bind(2) of TCP sockets and signals to
 * other processes, as far as the kernel's ABI has that.
 */
export function landlock(rules: readonly Rule[]): void {
  beginCall(op.landlock, serverCreds);
  runInline(expectVoid, ruleRows(rules));
}

/** A set of capabilities, by their names in capabilities(7), as two 32-bit words. */
export function capabilityWords(names: Iterable<string>): [number, number] {
  const words: [number, number] = [0, 0];
  for (const name of names) {
    const bit = addon.constants[name];
    if (bit === undefined) throw new Error(`The native addon does not know ${name}: rebuild it.`);
    words[bit >> 5]! |= 1 << (bit & 31);
  }
  return words;
}

/** Drops all other capabilities from the bounding set of this thread and what it executes. Without CAP_SETPCAP, does nothing. */
export function boundCapabilities(names: Iterable<string>): void {
  beginCall(op.boundCapabilities, serverCreds, ...capabilityWords(names));
  runInline(expectVoid);
}

/** Drops all other capabilities of this thread and what it executes, and sets no_new_privs. */
export function keepCapabilities(names: Iterable<string>): void {
  beginCall(op.keepCapabilities, serverCreds, ...capabilityWords(names));
  runInline(expectVoid);
}

/** execve(2) in this process. The program inherits the given descriptors besides 0 to 2. Throws the Errno on failure. */
export function execute(
  path: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  descriptors: readonly number[],
): never {
  const variables = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : `${name}=${value}`,
  );
  const words = Int32Array.from(descriptors);
  beginCall(op.execute, serverCreds, 0, 0, 0, asBytes(path));
  runInline(expectVoid, [terminated(args), terminated(variables), new Uint8Array(words.buffer)]);
  throw new Error('execve(2) has returned');
}

const roles = {
  server: SECCOMP_ROLE_SERVER,
  launcher: SECCOMP_ROLE_LAUNCHER,
  confiner: SECCOMP_ROLE_CONFINER,
  'pre-exec': SECCOMP_ROLE_PRE_EXEC,
} as const;

export type SeccompRole = keyof typeof roles;

/**
 * What a server is allowed besides: to take the ids of guests' users, to receive descriptors in messages, to set modes without
 * S_ISUID.
 */
export interface ServerNeeds {
  readonly users?: boolean;
  readonly descriptors?: boolean;
  readonly modes?: boolean;
}

/**
 * Installs a seccomp filter on all threads of this process. A `server` may make the calls that it needs; a `launcher` starts
 * processes, and may make all but fatal calls; a `confiner` may also mount and enter namespaces, for `ninepd-launch`; `pre-exec`
 * denies only io_uring to the program that is executed next. Returns false if the kernel or architecture has no filters. Throws an
 * Errno if the filter cannot be installed.
 */
export function installSeccomp(role: SeccompRole, needs: ServerNeeds = {}): boolean {
  const bits =
    (needs.users ? SECCOMP_NEEDS_USERS : 0) |
    (needs.descriptors ? SECCOMP_NEEDS_DESCRIPTORS : 0) |
    (needs.modes ? SECCOMP_NEEDS_MODES : 0);
  beginCall(op.installSeccomp, serverCreds, roles[role], bits);
  const failed = runInline(raw) as number;
  if (failed < 0 && failed !== -ENOSYS.code) throw Errno.of(-failed);
  return failed === 0;
}

/** The program `ninepd-groups` (native-shims/groups). */
export const groupsProgram: string = join(dirname(addonPath), 'ninepd-groups');
