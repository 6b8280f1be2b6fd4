import { type ChildProcess, spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { addonPath } from './addon.ts';
import { capabilityWords, type MountEntry, mountRows, type Rule, ruleRows } from './sandbox.ts';

/** The program that confines itself and executes another: native-shims/launch. */
const launchProgram: string = join(dirname(addonPath), 'ninepd-launch');

/** Exit status of `ninepd-launch` when a step failed. */
export const launchFailed = 125;

/** CLONE_NEW* of clone(2). */
const cloneFlags = {
  user: 0x1000_0000,
  pid: 0x2000_0000,
  network: 0x4000_0000,
  ipc: 0x0800_0000,
  uts: 0x0400_0000,
} as const;
export type LinuxNamespace = keyof typeof cloneFlags;

/** RLIMIT_* of setrlimit(2); the same numbers on x86 and arm64. */
const rlimits = { core: 4 } as const;

/** How a process is confined. Steps that are absent are left out; they are taken in the order of the members. */
export interface Confinement {
  readonly namespaces?: readonly LinuxNamespace[];
  /** A private root with these entries: `enterPrivateRoot`. */
  readonly root?: readonly MountEntry[];
  readonly limits?: { readonly [name in keyof typeof rlimits]?: number };
  /** Capabilities that stay in the bounding set; only root can restrict it. */
  readonly bound?: readonly string[];
  readonly user?: { readonly uid: number; readonly gid: number; readonly groups: readonly number[] };
  /** Capabilities to keep; also sets no_new_privs. */
  readonly capabilities?: readonly string[];
  /** Landlock rules. */
  readonly landlock?: readonly Rule[];
  readonly directory?: string;
}

export interface Command {
  readonly path: string;
  /** With argv[0]. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Become descriptors 3, 4, … of the program. */
  readonly descriptors: readonly number[];
}

const words = (values: readonly number[]) => Buffer.from(Int32Array.from(values).buffer);
const texts = (values: readonly string[]) => Buffer.from(values.map(text => `${text}\0`).join(''));

function planOf(to: Confinement, command: Command | undefined): Buffer {
  const { namespaces, root, limits, bound, user, capabilities, landlock, directory } = to;
  const steps: [name: string, operand: Buffer][] = [];
  if (namespaces) steps.push(['namespaces', words([flagsOf(namespaces), 0])]);
  if (root) steps.push(['root', mountRows(root)]);
  for (const [name, value] of Object.entries(limits ?? {}))
    steps.push(['limit', words([rlimits[name as keyof typeof rlimits], value])]);
  if (bound) steps.push(['bound', words(capabilityWords(bound))]);
  if (user) steps.push(['user', words([user.uid, user.gid, ...user.groups])]);
  if (capabilities) steps.push(['capabilities', words(capabilityWords(capabilities))]);
  if (landlock) steps.push(['landlock', ruleRows(landlock)]);
  if (directory !== undefined) steps.push(['directory', Buffer.from(directory)]);
  steps.push(command ? ['execute', executeOperand(command)] : ['succeed', Buffer.alloc(0)]);
  return Buffer.concat(
    steps.flatMap(([name, operand]) => [Buffer.from(`${name} ${operand.length}\n`), operand]),
  );
}

function executeOperand({ path, args, env }: Command): Buffer {
  const settings = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : `${name}=${value}`,
  );
  return texts([path, String(args.length), ...args, ...settings]);
}

const flagsOf = (namespaces: readonly LinuxNamespace[]) =>
  namespaces.reduce((flags, name) => flags | cloneFlags[name], 0);

/**
 * Starts a program in its confinement. The child process is `ninepd-launch`, which with a process id namespace stays and ends
 * as the program does. Errors of a step go to standard error, with exit status `launchFailed`.
 */
export function launch(to: Confinement, command: Command): ChildProcess {
  const child = spawn(launchProgram, {
    stdio: ['pipe', 'inherit', 'inherit', ...command.descriptors],
    env: {},
  });
  // EPIPE: it has failed, which its exit status tells.
  child.stdin!.on('error', () => undefined);
  child.stdin!.end(planOf(to, command));
  return child;
}

/** Whether a process can be confined so. */
export async function canLaunch(to: Confinement): Promise<boolean> {
  const child = spawn(launchProgram, { stdio: ['pipe', 'ignore', 'ignore'], env: {} });
  child.stdin.on('error', () => undefined);
  child.stdin.end(planOf(to, undefined));
  return new Promise(resolve => {
    child.on('error', () => resolve(false));
    child.on('exit', code => resolve(code === 0));
  });
}
