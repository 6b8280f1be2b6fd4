import { E2BIG, ENOENT, Errno } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import { addon } from './addon.ts';
import { NGROUPS_MAX } from './constants.ts';
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
  end: shimOf('end'),
};

/** Those who are in more are asked about twice. */
const groupsUsual = 1024;

/** The effective capabilities of this thread by their names in capabilities(7), of those the server has a use for. */
export function effectiveCapabilities(): ReadonlySet<string> {
  const bits = Buffer.alloc(8);
  beginCall(op.effectiveCapabilities, serverCreds);
  runInline(expectVoid, bits);
  const names = Object.entries(addon.constants).filter(([name]) => name.startsWith('CAP_'));
  return new Set(names.filter(([, bit]) => (bits[bit >> 3]! >> (bit & 7)) & 1).map(([name]) => name));
}

/** A user's primary group, and all groups with it among them. */
export interface UserGroups {
  readonly gid: number;
  readonly groups: readonly number[];
}

/**
 * What the host's user database knows of a uid; undefined when the uid is not known. E2BIG when the user is in more than
 * NGROUPS_MAX groups. Runs on the pool, since name services may ask the network.
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
    if (found > NGROUPS_MAX) throw E2BIG;
    if (found > room) return ask(uid, submitter, found);
    return { gid: words[0]!, groups: Array.from(words.subarray(1, 1 + found)) };
  });
}

/** The user of that name in the host's user database; undefined when there is none. */
export function userNamed(name: string): { uid: number; gid: number } | undefined {
  const words = new Uint32Array(2);
  beginCall(op.userNamed, serverCreds, 0, 0, 0, Buffer.from(name).toString('latin1'));
  const result = runInline(raw, new Uint8Array(words.buffer)) as number;
  if (result < 0 && Errno.of(-result) !== ENOENT) throw Errno.of(-result);
  return result < 0 ? undefined : { uid: words[0]!, gid: words[1]! };
}

/** The gid of the group of that name in the host's user database; undefined when there is none. */
export function groupNamed(name: string): number | undefined {
  beginCall(op.groupNamed, serverCreds, 0, 0, 0, Buffer.from(name).toString('latin1'));
  const result = runInline(raw) as number;
  if (result < 0 && Errno.of(-result) !== ENOENT) throw Errno.of(-result);
  return result < 0 ? undefined : result;
}

/** Who is at the other end of a connected Unix socket: SO_PEERCRED of unix(7), as of when it connected. */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const words = new Uint32Array(3);
  beginCall(op.peerCredentials, serverCreds, fd);
  runInline(expectVoid, new Uint8Array(words.buffer));
  return { pid: words[0]!, uid: words[1]!, gid: words[2]! };
}

/** How many descriptors this process may have open: RLIMIT_NOFILE of getrlimit(2). */
export function descriptorLimit(): number {
  beginCall(op.descriptorLimit, serverCreds);
  return runInline(expectCount) as number;
}

/**
 * Ends the process though calls still run. What hangs may outlive it (native-shims/apart.c), but shall keep no socket and no
 * standard output open, for which somebody waits.
 */
export function endUnfinished(): never {
  // The last of those that are told.
  process.on('exit', () => {
    beginCall(op.end, serverCreds, 1);
    runInline(raw);
  });
  process.exit(1);
}
