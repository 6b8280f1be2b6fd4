import { ENOENT, Errno } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import { addon } from './addon.ts';
import {
  beginCall,
  commonThreads,
  expectCount,
  expectVoid,
  onThreads,
  raw,
  runInline,
  shimOf,
} from './control-block.ts';
import { type Submitter, serverCreds } from './syscalls.ts';

const op = {
  effectiveCapabilities: shimOf('effectiveCapabilities'),
  groupsOf: shimOf('groupsOf'),
  userNamed: shimOf('userNamed'),
  groupNamed: shimOf('groupNamed'),
  peerCredentials: shimOf('peerCredentials'),
  descriptorLimit: shimOf('descriptorLimit'),
  stopThreads: shimOf('stopThreads'),
  exitNow: shimOf('exitNow'),
};

/** For users in more groups the user database is asked twice. */
const groupsUsual = 1024;
/** A child process that hangs in a call cannot be waited for. */
const stopMsMax = 1000;

/** The effective capabilities of this thread by their names in capabilities(7), of those that the server uses. */
export function effectiveCapabilities(): ReadonlySet<string> {
  const bits = Buffer.alloc(8);
  beginCall(op.effectiveCapabilities, serverCreds);
  runInline(expectVoid, bits);
  const names = Object.entries(addon.constants).filter(([name]) => name.startsWith('CAP_'));
  return new Set(names.filter(([, bit]) => (bits[bit >> 3]! >> (bit & 7)) & 1).map(([name]) => name));
}

/** A user's primary group, and all groups, of which it is one. */
export interface UserGroups {
  readonly gid: number;
  readonly groups: readonly number[];
}

/**
 * The groups of a uid in the host's user database; undefined for an unknown uid. E2BIG for a user in more than NGROUPS_MAX
 * groups. Runs on the pool, since name services may use the network.
 */
export function groupsOf(uid: number, submitter: Submitter): MaybePromise<UserGroups | undefined> {
  return ask(uid, submitter, groupsUsual);
}

function ask(uid: number, submitter: Submitter, room: number): MaybePromise<UserGroups | undefined> {
  const words = new Uint32Array(1 + room);
  beginCall(op.groupsOf, serverCreds, uid);
  return andThen(onThreads(commonThreads, submitter)(raw, new Uint8Array(words.buffer)), result => {
    if (result === -ENOENT.code) return undefined;
    const found = expectCount(result);
    if (found > room) return ask(uid, submitter, found);
    return { gid: words[0]!, groups: Array.from(words.subarray(1, 1 + found)) };
  });
}

/** The named user in the host's user database; undefined if there is none. */
export function userNamed(name: string): { uid: number; gid: number } | undefined {
  const words = new Uint32Array(2);
  beginCall(op.userNamed, serverCreds, 0, 0, 0, Buffer.from(name).toString('latin1'));
  const result = runInline(raw, new Uint8Array(words.buffer)) as number;
  if (result < 0 && Errno.of(-result) !== ENOENT) throw Errno.of(-result);
  return result < 0 ? undefined : { uid: words[0]!, gid: words[1]! };
}

/** The gid of the named group in the host's user database; undefined if there is none. */
export function groupNamed(name: string): number | undefined {
  beginCall(op.groupNamed, serverCreds, 0, 0, 0, Buffer.from(name).toString('latin1'));
  const result = runInline(raw) as number;
  if (result < 0 && Errno.of(-result) !== ENOENT) throw Errno.of(-result);
  return result < 0 ? undefined : result;
}

/** SO_PEERCRED of a connected Unix socket (unix(7)): the peer when it connected. */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const words = new Uint32Array(3);
  beginCall(op.peerCredentials, serverCreds, fd);
  runInline(expectVoid, new Uint8Array(words.buffer));
  return { pid: words[0]!, uid: words[1]!, gid: words[2]! };
}

/** The soft RLIMIT_NOFILE: how many descriptors this process may have. */
export function descriptorLimit(): number {
  beginCall(op.descriptorLimit, serverCreds);
  return runInline(expectCount) as number;
}

/**
 * Ends the process with status 0 when all requests are answered. Its child processes (native-shims/child.h) have ended before, so
 * nothing keeps file systems and mount namespaces in use.
 */
export function exitInOrder(): never {
  // Added last, so it runs after other listeners.
  process.on('exit', () => {
    beginCall(op.stopThreads, serverCreds, stopMsMax);
    runInline(raw);
  });
  process.exit(0);
}

/**
 * Ends the process with status 1 while calls run. A child process or thread that hangs may outlive it, but keeps no socket,
 * pipe or terminal open.
 */
export function exitUnfinished(): never {
  process.on('exit', () => {
    beginCall(op.exitNow, serverCreds, 1);
    runInline(raw);
  });
  process.exit(1);
}
