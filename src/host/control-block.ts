import { E2BIG, ECANCELED, ENAMETOOLONG, Errno } from '#base/errno.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { poolCallsPerSessionMax, poolThreadsPerVolumeMax } from '#quota/limits.ts';
import { addon, type GroupList } from './addon.ts';
import type { Credentials, Submitter } from './syscalls.ts';

/**
 * The control block: the one piece of memory through which a call's caller, numbers and texts reach the addon, since
 * writing into it costs a tenth of passing arguments. It is filled and used within one turn, so one is enough for all.
 */
const { layout } = addon;
const at = (field: string): number => layout[field]!;
const block = new ArrayBuffer(at('bytes'));
const shim = new Uint32Array(block, at('shim'), 1);
const slotOfCall = new Uint32Array(block, at('slot'), 1);
const placeOfCall = new Uint32Array(block, at('place'), 1);
const queueOfCall = new Uint32Array(block, at('queue'), 1);
const trustUsOfCall = new Uint32Array(block, at('trustUs'), 1);
const textBytes = new Uint32Array(block, at('textBytes'), 2);
const numbers = new Int32Array(block, at('number'), 4);
const asServer = new Uint32Array(block, at('server'), 1);
const ids = new Uint32Array(block, at('uid'), 3);
const groups = new Uint32Array(block, at('groups'), at('groupsMax'));
const texts = new Uint8Array(block, at('texts'), at('textsBytesMax'));
const blockedMsOfCall = new Uint32Array(block, at('took'), 1);
const done = new Int32Array(block, at('done'));
const doneWords = 3;

/** What does not fit into 32 bits: offsets, lengths and seconds, exact up to 2^53. Set between `begin` and the call. */
export const wide = new Float64Array(block, at('wide'), 4);

/** PATH_MAX with its NUL: no text of a call may be longer, and the block has room for two. */
const textBytesMax = 4096;

/** The number of a shim in the addon's table. */
export function shimOf(name: string): number {
  const index = addon.shims.indexOf(name);
  if (index < 0) throw new Error(`The native addon has no ${name}: rebuild it.`);
  return index;
}

const closing = shimOf('close');

/** Describes a call. Ids and flags may be given as signed or unsigned 32-bit numbers. */
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
  writeCaller(creds);
  writeText(0, 0, first);
  writeText(1, first.length + 1, second);
}

let written: Credentials | undefined;

/** Callers do not change, so the one that is in the block already needs no writing. */
function writeCaller(creds: Credentials): void {
  if (creds === written) return;
  written = undefined;
  // Only the number −1: 4294967295 is what a guest without a uid sends (P9_NONUNAME), and the shim refuses it.
  asServer[0] = creds.uid === -1 ? 1 : 0;
  const count = creds.groups.length;
  ids[0] = creds.uid;
  ids[1] = creds.gid;
  ids[2] = count;
  if (count > groups.length) useGroups(listOf(creds.groups));
  else for (let i = 0; i < count; i++) groups[i] = creds.groups[i]!;
  written = creds;
}

/** The addon's copies; each is freed some time after its array. */
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

/** What a call works on. One segment is passed as it is. */
export type CallData = Uint8Array | readonly Uint8Array[];
/** Makes the answer of a result (0 or more, or −errno); may throw an Errno. */
export type Finish<T> = (result: number) => T;
/** Makes the call that `begin` described. */
export type Perform = <T>(finish: Finish<T>, data?: CallData) => MaybePromise<T>;
/** Makes it before it returns. */
export type PerformInline = <T>(finish: Finish<T>, data?: CallData) => T;

/** Told that a call had to wait for a disk, for so many milliseconds. */
export type OnBlocked = (ms: number) => void;

interface Pending {
  readonly finish: Finish<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: unknown) => void;
  /** Keeps the memory alive that the pool's thread works on. */
  readonly data: CallData | undefined;
  readonly waited: OnBlocked | undefined;
}

const pending: (Pending | undefined)[] = [];
const freeSlots: number[] = [];

function finished(count: number): void {
  for (let i = 0; i < count * doneWords; i += doneWords) {
    const { finish, resolve, reject, waited } = settle(done[i]!);
    const result = done[i + 1]!;
    const ms = done[i + 2]!;
    try {
      if (ms > 0) waited?.(ms);
      resolve(finish(result));
    } catch (reason) {
      reject(reason);
    }
  }
}

function settle(slot: number): Pending {
  const one = pending[slot]!;
  pending[slot] = undefined;
  freeSlots.push(slot);
  return one;
}

const binding = addon.attach(block, finished);
if (!binding) throw new Error('The native addon does not take the control block: rebuild it.');
const { submit, handOff, withdraw, useGroups } = binding;
addon.setPoolBounds(poolThreadsPerVolumeMax, poolCallsPerSessionMax);

/** Makes the call that `begin` described on this thread, at once: 0 or more, or −errno. */
export const { run } = binding;

/** As `run`. */
export const runInline: PerformInline = (finish, data) => finish(data === undefined ? run() : run(data));

/** The milliseconds for which the last call that was run had to wait for a disk; 0 when it had not, or was a moment. */
export function blockedMs(): number {
  return blockedMsOfCall[0]!;
}

/** A place of the pool: threads of its own, and the queues of all sessions. */
export type ThreadGroup = number;
/** For what belongs to no file system. */
export const commonThreads: ThreadGroup = 0;
/** For file systems of which nothing is known yet. */
export const unknownFsThreads: ThreadGroup = at('placeApart');

const placeOfDevice = new Map<number, ThreadGroup>();
let places = 0;

/**
 * The place of a file system, by its device number: all exports share it. In a place that is `apart`, threads may hang for
 * ever. When there are more file systems than places, some share one.
 */
export function threadsFor(dev: number, apart: boolean): ThreadGroup {
  const known = placeOfDevice.get(dev);
  if (known !== undefined) return known;
  const first = apart ? unknownFsThreads : commonThreads;
  const place = first + 1 + (places++ % (at('placeApart') - 1));
  placeOfDevice.set(dev, place);
  return place;
}

/** On a thread of the pool. */
export function onThreads(place: ThreadGroup, submitter: Submitter, waited?: OnBlocked): Perform {
  return <T>(finish: Finish<T>, data?: CallData) => {
    const slot = freeSlots.pop() ?? pending.length;
    // What is to be closed is closed, whatever becomes of the request, and does not wait behind what hangs.
    const closes = shim[0] === closing;
    slotOfCall[0] = slot;
    placeOfCall[0] = place;
    queueOfCall[0] = closes ? 0 : submitter.queue;
    const failed = data === undefined ? submit() : submit(data);
    const promise = new Promise<unknown>((resolve, reject) => {
      pending[slot] = { finish, resolve, reject, data, waited };
    });
    if (failed !== 0) {
      const call = settle(slot);
      if (closes) call.resolve(finish(run()));
      else call.reject(Errno.of(-failed));
    } else if (!closes) submitter.submitted?.(withdrawal(slot, pending[slot]!));
    return promise as Promise<T>;
  };
}

/** Bytes of data that a call may have which is handed off. */
export const handOffBytesMax = at('handOffBytesMax');
const isLate = at('late') | 0;

/** Told of a call that the event loop waits for no longer. */
export type Late = (over: Promise<unknown>) => void;

/**
 * By a thread beside the event loop, which waits for it for a moment; a call that takes longer is answered with a promise. The call
 * is made on this thread where another change has gone through less than `trustUs` ago (native-shims/handoff.h). Data is
 * copied, unless it has been used when this returns.
 */
export function handedOffAt(place: ThreadGroup, trustUs: number, waited: OnBlocked, late: Late): Perform {
  return <T>(finish: Finish<T>, data?: CallData) => {
    const slot = freeSlots.at(-1) ?? pending.length;
    slotOfCall[0] = slot;
    placeOfCall[0] = place;
    trustUsOfCall[0] = trustUs;
    const result = data === undefined ? handOff() : handOff(data);
    if (result !== isLate) {
      if (blockedMsOfCall[0]! > 0) waited(blockedMsOfCall[0]!);
      return finish(result);
    }
    freeSlots.pop();
    const promise = new Promise<unknown>((resolve, reject) => {
      pending[slot] = { finish, resolve, reject, data: undefined, waited };
    });
    late(promise);
    return promise as Promise<T>;
  };
}

/** A slot is used again, so the call is known by what waits for it. */
function withdrawal(slot: number, call: Pending): () => boolean {
  return () => {
    if (pending[slot] !== call || !withdraw(slot)) return false;
    settle(slot).reject(ECANCELED);
    return true;
  };
}

/** For calls that return nothing. */
export function expectVoid(result: number): void {
  if (result < 0) throw Errno.of(-result);
}

/** For calls that return a number or fail. */
export function expectCount(result: number): number {
  if (result < 0) throw Errno.of(-result);
  return result;
}

/** For calls whose failures are everyday answers: −errno comes back as it is. */
export function raw(result: number): number {
  return result;
}
