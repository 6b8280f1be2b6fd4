import { E2BIG, ECANCELED, ENAMETOOLONG, Errno } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { poolCallsPerSessionMax, poolThreadsPerVolumeMax } from '#quota/limits.ts';
import { addon, layoutOf as at, type GroupList } from './addon.ts';
import type { Credentials, IdRange, Submitter } from './syscalls.ts';

/**
 * The control block (native-shims/call.h): memory in which a call's credentials, numbers and texts are passed to the addon.
 * Writing it costs a tenth of passing arguments. It is filled and read without anything running in between, so one serves all
 * calls.
 */
const block = new ArrayBuffer(at('bytes'));
const shim = new Uint32Array(block, at('shim'), 1);
const slotOfCall = new Uint32Array(block, at('slot'), 1);
const threadGroupOfCall = new Uint32Array(block, at('pool'), 1);
const queueOfCall = new Uint32Array(block, at('queue'), 1);
const trustUsOfCall = new Uint32Array(block, at('trustUs'), 1);
const textBytes = new Uint32Array(block, at('textBytes'), 2);
const numbers = new Int32Array(block, at('number'), 4);
const asServer = new Uint32Array(block, at('server'), 1);
/** file_caps, uid_ranges, gid_ranges. */
const fileCaps = new Uint32Array(block, at('fileCaps'), 3);
const rangesMax = at('rangesMax');
const ranges = new Uint32Array(block, at('ranges'), 4 * rangesMax);
const ids = new Uint32Array(block, at('uid'), 3);
const groups = new Uint32Array(block, at('groups'), at('groupsMax'));
const texts = new Uint8Array(block, at('texts'), at('textsBytesMax'));
const blockedMsOfCall = new Uint32Array(block, at('blockedMs'), 1);
const done = new Int32Array(block, at('done'));
const doneWords = at('doneWords');

/** Offsets, lengths and seconds, exact up to 2^53. Set between `beginCall` and the call. */
export const wide = new Float64Array(block, at('wide'), 4);

/** PATH_MAX, NUL included: the longest text. The block has room for two. */
const textBytesMax = 4096;

/** Index of a shim in the addon's table (native-shims/table.c). */
export function shimOf(name: string): number {
  const index = addon.shims.indexOf(name);
  if (index < 0) throw new Error(`The native addon has no ${name}: rebuild it.`);
  return index;
}

/** Calls that release something. */
const closing = shimOf('close');
const detaching = shimOf('detach');

/** Describes a call. Ids and flags are signed or unsigned 32-bit numbers. Throws ENAMETOOLONG, E2BIG. */
export function beginCall(
  op: number,
  creds: Credentials,
  a = 0,
  b = 0,
  c = 0,
  first: Bytes = '',
  second: Bytes = '',
): void {
  shim[0] = op;
  numbers[0] = a;
  numbers[1] = b;
  numbers[2] = c;
  writeCreds(creds);
  writeText(0, 0, first);
  writeText(1, first.length + 1, second);
}

let written: Credentials | undefined;

/** Credentials are immutable: those of the last call are in the block. */
function writeCreds(creds: Credentials): void {
  if (creds === written) return;
  written = undefined;
  // −1 only: 4294967295 is NONUNAME from a guest, and the shim refuses it.
  asServer[0] = creds.uid === -1 ? 1 : 0;
  writeFileCaps(creds.fileCaps);
  const count = creds.groups.length;
  ids[0] = creds.uid;
  ids[1] = creds.gid;
  ids[2] = count;
  if (count > groups.length) useGroups(listOf(creds.groups));
  else for (let i = 0; i < count; i++) groups[i] = creds.groups[i]!;
  written = creds;
}

/** FILE_CAPS_NONE, FILE_CAPS_ALL or FILE_CAPS_RANGES of call.h. */
function writeFileCaps(over: Credentials['fileCaps']): void {
  fileCaps[0] = over === undefined ? 0 : over === 'all' ? 1 : 2;
  if (over === undefined || over === 'all') return;
  fileCaps[1] = writeRanges(0, over.uids);
  fileCaps[2] = writeRanges(2 * rangesMax, over.gids);
}

function writeRanges(start: number, of: readonly IdRange[]): number {
  if (of.length > rangesMax) throw E2BIG;
  for (const [i, { first, count }] of of.entries()) ranges.set([first, count], start + 2 * i);
  return of.length;
}

/** Copies in the addon, each freed after its array was collected. */
const lists = new WeakMap<readonly number[], GroupList>();

function listOf(many: readonly number[]): GroupList {
  const known = lists.get(many);
  if (known) return known;
  const list = addon.groupList(new Uint8Array(Uint32Array.from(many).buffer));
  if (!list) throw E2BIG;
  lists.set(many, list);
  return list;
}

function writeText(which: 0 | 1, start: number, text: Bytes): void {
  const { length } = text;
  if (length >= textBytesMax) throw ENAMETOOLONG;
  let seen = 0;
  for (let i = 0; i < length; i++) {
    const byte = text.charCodeAt(i);
    seen |= byte;
    texts[start + i] = byte;
  }
  if (seen > 0xff) throw new RangeError('Text for a host call must be bytes (latin1).');
  texts[start + length] = 0;
  textBytes[which] = length;
}

/** Memory that a call reads or fills. */
export type CallData = Uint8Array | readonly Uint8Array[];
/** Turns a result (0 or more, or −errno) into the call's value; may throw an Errno. */
export type Finish<T> = (result: number) => T;
/** Makes the call that `beginCall` described. */
export type Perform = <T>(finish: Finish<T>, data?: CallData) => MaybePromise<T>;
/** As `Perform`; makes the call before it returns. */
export type PerformInline = <T>(finish: Finish<T>, data?: CallData) => T;

/** Called when a call waited for a disk, with the milliseconds. */
export type OnBlocked = (ms: number) => void;

interface Pending {
  readonly finish: Finish<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: unknown) => void;
  /** Keeps the memory of a running call alive. */
  readonly data: CallData | undefined;
  readonly onBlocked: OnBlocked | undefined;
}

const pending: (Pending | undefined)[] = [];
const freeSlots: number[] = [];

function finished(count: number): void {
  for (let i = 0; i < count * doneWords; i += doneWords) {
    const { finish, resolve, reject, onBlocked } = takeSlot(done[i]!);
    const result = done[i + 1]!;
    const ms = done[i + 2]!;
    try {
      if (ms > 0) onBlocked?.(ms);
      resolve(finish(result));
    } catch (reason) {
      reject(reason);
    }
  }
}

function takeSlot(slot: number): Pending {
  const one = pending[slot]!;
  pending[slot] = undefined;
  freeSlots.push(slot);
  return one;
}

const binding = addon.attach(block, finished);
if (!binding) throw new Error('The native addon does not take the control block: rebuild it.');
const { submit, handOff, withdraw, useGroups } = binding;
addon.setPoolBounds(poolThreadsPerVolumeMax, poolCallsPerSessionMax);

/** Makes the call that `beginCall` described on this thread. Returns 0 or more, or −errno. */
export const { run } = binding;

export const runInline: PerformInline = (finish, data) => finish(data === undefined ? run() : run(data));

/** Milliseconds that the last `run` or `handOff` waited for a disk; 0 if less than one. */
export function blockedMs(): number {
  return blockedMsOfCall[0]!;
}

/** A group of pool threads (`struct pool` of native-shims/pool.c), with a queue for each session. */
export type ThreadGroup = number;
/** For calls on no file system. */
export const commonThreads: ThreadGroup = 0;
/** For file systems of unknown type. */
export const unknownFsThreads: ThreadGroup = at('poolUnkillable');

const groupOfDevice = new Map<number, ThreadGroup>();

/**
 * The thread group of a file system, by device number: all exports share it. `mayHang`: in a group whose threads may never
 * return. With more file systems than groups, some share one.
 */
export function threadsFor(dev: number, mayHang: boolean): ThreadGroup {
  const known = groupOfDevice.get(dev);
  if (known !== undefined) return known;
  const first = mayHang ? unknownFsThreads : commonThreads;
  const group = first + 1 + (groupOfDevice.size % (at('poolUnkillable') - 1));
  groupOfDevice.set(dev, group);
  return group;
}

/** Makes calls on pool threads. Errors reject. */
export function onThreads(group: ThreadGroup, submitter: Submitter, onBlocked?: OnBlocked): Perform {
  return <T>(finish: Finish<T>, data?: CallData) => {
    const slot = freeSlots.pop() ?? pending.length;
    // A close is made even if its request is withdrawn, and does not queue behind calls of the session that hang.
    const closes = shim[0] === closing || shim[0] === detaching;
    slotOfCall[0] = slot;
    threadGroupOfCall[0] = group;
    queueOfCall[0] = closes ? 0 : submitter.queue;
    const failed = data === undefined ? submit() : submit(data);
    const promise = new Promise<unknown>((resolve, reject) => {
      pending[slot] = { finish, resolve, reject, data, onBlocked };
    });
    if (failed !== 0) {
      const call = takeSlot(slot);
      if (closes) call.resolve(finish(run()));
      else call.reject(Errno.of(-failed));
    } else if (!closes) submitter.submitted?.(withdrawal(slot, pending[slot]!));
    return promise as Promise<T>;
  };
}

/** Most bytes of data of a call that is handed off. */
export const handOffBytesMax = at('handOffBytesMax');
/** Result of a call that takes longer. */
const isLate = at('late') | 0;

/** Called with a call that takes longer than the event loop waits. */
export type OnLate = (ended: Promise<unknown>) => void;

/**
 * Makes calls on a helper thread that the event loop waits 4 ms for; a call that takes longer returns a promise, and has then
 * copied its data (native-shims/handoff.h). If the last change ended less than `trustUs` µs ago, the call is made on this
 * thread.
 */
export function handedOffAt(
  group: ThreadGroup,
  trustUs: number,
  onBlocked: OnBlocked,
  onLate: OnLate,
): Perform {
  return <T>(finish: Finish<T>, data?: CallData) => {
    const slot = freeSlots.at(-1) ?? pending.length;
    slotOfCall[0] = slot;
    threadGroupOfCall[0] = group;
    trustUsOfCall[0] = trustUs;
    const result = data === undefined ? handOff() : handOff(data);
    if (result !== isLate) {
      if (blockedMsOfCall[0]! > 0) onBlocked(blockedMsOfCall[0]!);
      return finish(result);
    }
    freeSlots.pop();
    const promise = new Promise<unknown>((resolve, reject) => {
      pending[slot] = { finish, resolve, reject, data: undefined, onBlocked };
    });
    onLate(promise);
    return promise as Promise<T>;
  };
}

/** Slots are reused, so the call is identified by its `Pending`. */
function withdrawal(slot: number, call: Pending): () => boolean {
  return () => {
    if (pending[slot] !== call || !withdraw(slot)) return false;
    takeSlot(slot).reject(ECANCELED);
    return true;
  };
}

/** Throws the Errno of a failure. */
export function expectVoid(result: number): void {
  if (result < 0) throw Errno.of(-result);
}

/** The result; throws the Errno of a failure. */
export function expectCount(result: number): number {
  if (result < 0) throw Errno.of(-result);
  return result;
}

/** The result, −errno included: for calls that fail often. */
export function raw(result: number): number {
  return result;
}
