import { fstatSync } from 'node:fs';
import { Errno } from '#base/errno.ts';
import { addon } from './addon.ts';
import { beginCall, expectCount, expectVoid, raw, runInline, shimOf, wide } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = {
  close: shimOf('close'),
  receiveMessage: shimOf('receiveMessage'),
  sendMessage: shimOf('sendMessage'),
  duplicate: shimOf('duplicate'),
  signal: shimOf('signal'),
  map: shimOf('map'),
  sever: shimOf('sever'),
  faults: shimOf('faults'),
};

/** close(2). Never throws. */
export function closeFd(fd: number): void {
  beginCall(op.close, serverCreds, fd);
  runInline(raw);
}

/** Another descriptor of the same open file. */
export function dupCloexec(fd: number): number {
  beginCall(op.duplicate, serverCreds, fd);
  return runInline(expectCount) as number;
}

/** Adds one to an eventfd; −errno when that fails. */
export function signal(fd: number): number {
  beginCall(op.signal, serverCreds, fd);
  return runInline(raw) as number;
}

/** Descriptors one message may bring; the kernel allows 253. */
const descriptorsMax = 16;
const received = new Uint32Array(1 + descriptorsMax);
const receivedBytes = new Uint8Array(received.buffer);

/**
 * recvmsg(2), without waiting. Descriptors that came with the bytes are appended to `descriptors`: they are close-on-exec,
 * non-blocking and the caller's to close. Returns the bytes, 0 when the other side has gone, or −errno.
 */
export function receiveMessage(fd: number, into: Uint8Array, descriptors: number[]): number {
  received[0] = 0;
  beginCall(op.receiveMessage, serverCreds, fd);
  const result = runInline(raw, [into, receivedBytes]) as number;
  for (let i = 1; i <= received[0]; i++) descriptors.push(received[i]!);
  return result;
}

/** sendmsg(2) with descriptors, without waiting. Returns the bytes that were sent, or −errno. */
export function sendMessage(fd: number, bytes: Uint8Array, descriptors: readonly number[] = []): number {
  const words = Uint32Array.from(descriptors);
  beginCall(op.sendMessage, serverCreds, fd);
  return runInline(raw, [bytes, new Uint8Array(words.buffer)]) as number;
}

/** How many mappings, of whomever, were found without their file so far. */
export function mappingFaults(): number {
  beginCall(op.faults, serverCreds, -1);
  return runInline(expectCount) as number;
}

/**
 * A part of a file, mapped shared. The buffer keeps it mapped, so that memory that is not mapped cannot be reached through
 * any view; and a file that its owner truncates costs the contents and not the process.
 */
export class Mapping {
  readonly buffer: ArrayBuffer;
  readonly #index: number;

  /** Throws the Errno of mmap(2): EACCES for a descriptor that does not allow writing, EINVAL for an odd offset. */
  constructor(fd: number, offset: number, bytes: number) {
    // Mappings of huge pages have a multiple of their size, which is the block size there (hugetlbfs).
    const block = Math.max(4096, fstatSync(fd).blksize);
    beginCall(op.map, serverCreds, fd);
    wide[0] = offset;
    wide[1] = Math.ceil(bytes / block) * block;
    this.#index = runInline(expectCount) as number;
    const buffer = addon.memory(this.#index, bytes);
    if (buffer === undefined) throw new RangeError(`No room for a buffer of ${bytes} bytes.`);
    this.buffer = buffer;
  }

  /**
   * Parts it from its file at once: the file's memory is free, and every view finds other memory there, which is nobody's.
   * System calls that run on a view at the moment end in that memory too.
   */
  sever(): void {
    beginCall(op.sever, serverCreds, this.#index);
    runInline(expectVoid);
  }

  /** Whether an access found no file behind it, and got memory that is nobody's. */
  faulted(): boolean {
    beginCall(op.faults, serverCreds, this.#index);
    return runInline(expectCount) !== 0;
  }
}

type Ready = () => void;
const readyMax = 64;
const ids = new Uint32Array(readyMax);
const watched = new Map<number, { readonly fd: number; readonly ready: Ready }>();
let lastId = 0;

/** What was forgotten by an earlier one of the same round is not called. */
function callReady(count: number): void {
  for (const id of ids.slice(0, count)) watched.get(id)?.ready();
}

const watching = addon.watch(ids.buffer as ArrayBuffer, callReady);

/**
 * Calls `ready` while the descriptor is readable or its other side has gone; with `edge`, once each time that somebody
 * writes to it, and then nobody needs to read it. Returns what stops it; to be stopped before the descriptor is closed.
 * Throws an Errno for what cannot be waited for.
 */
export function watchFd(fd: number, ready: Ready, edge = false): () => void {
  if (watching === undefined) throw new Error('The native addon cannot watch descriptors.');
  lastId = (lastId + 1) >>> 0;
  const id = lastId;
  const failed = watching.add(fd, id, edge);
  if (failed !== 0) throw Errno.of(-failed);
  watched.set(id, { fd, ready });
  return () => {
    if (watched.delete(id)) watching.remove(fd);
  };
}
