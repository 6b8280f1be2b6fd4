import * as kinds from '#protocol/kinds.ts';
import { type Op, operations } from '#protocol/operations.ts';
import { random } from '../support/namespace-oracle.ts';
import type { Loose } from './raw-connection.ts';

/** The fids of a hostile client, one in each state. */
export const states = {
  root: 0,
  dir: 1,
  openDir: 2,
  file: 3,
  openFile: 4,
  xattrRead: 5,
  xattrWrite: 6,
} as const;
export type State = keyof typeof states;

export type Fields = Readonly<Record<string, Loose>>;

const names: readonly unknown[] = [kinds.name, kinds.renameName, kinds.unlinkName];

/** For each message the fields of one kind. */
export function fieldsOf(kind: unknown): [Op, string][] {
  return (Object.keys(operations) as Op[]).flatMap(op =>
    Object.entries(operations[op].T)
      .filter(([, one]) => one === kind)
      .map(([field]): [Op, string] => [op, field]),
  );
}

export const nameFields: readonly [Op, string][] = names.flatMap(fieldsOf);

/** A valid message, in which a test then makes one field invalid; `fid` is used for every fid. */
export function rightBody(op: Op, fid: number): Fields {
  const entries = Object.entries(operations[op].T).map(([field, kind]): [string, Loose] => {
    if (kind === kinds.fid) return [field, fid];
    if (kind === kinds.newfid) return [field, 900];
    if (names.includes(kind)) return [field, 'absent'];
    if (kind === kinds.data) return [field, Buffer.from('data')];
    if (field === 'wname') return [field, ['absent']];
    if (field === 'oldtag') return [field, 60_000];
    if (field === 'version') return [field, '9P2000.L'];
    if (field === 'msize') return [field, 131_072];
    if (field === 'afid') return [field, 0xffff_ffff];
    if (kind.notation === '[s]') return [field, 'user.text'];
    return [field, 0];
  });
  return Object.fromEntries(entries);
}

const needOpen: readonly Op[] = ['read', 'write', 'readdir', 'fsync', 'lock', 'getlock'];
const needUnopened: readonly Op[] = ['lopen', 'lcreate', 'xattrcreate'];
/** Messages that end a fid work in every state. */
const endings: readonly Op[] = ['clunk', 'remove'];

/** The errnos allowed for a message on a fid in this state; undefined if it may succeed. */
export function refusalsIn(state: State, op: Op, field: string): readonly string[] | undefined {
  if (endings.includes(op)) return undefined;
  if (state === 'xattrRead') return op === 'read' ? undefined : ['EBADF', 'EINVAL'];
  if (state === 'xattrWrite') return op === 'write' ? undefined : ['EBADF', 'EINVAL'];
  const open = state === 'openDir' || state === 'openFile';
  const file = state === 'file' || state === 'openFile';
  if (needUnopened.includes(op) && open) return ['EBADF', 'EINVAL'];
  if (needOpen.includes(op) && !open) return ['EBADF'];
  if (state === 'openDir') {
    if (op === 'read') return ['EISDIR'];
    if (op === 'write') return ['EBADF', 'EISDIR'];
    if (op === 'lock' || op === 'getlock') return ['EBADF', 'EINVAL', 'EISDIR'];
  }
  if (state === 'openFile' && op === 'readdir') return ['ENOTDIR'];
  if (op === 'readlink') return ['EINVAL'];
  const directory = /^(dfid|dirfid|olddirfid|newdirfid)$/.test(field) || op === 'lcreate';
  return directory && file ? ['ENOTDIR'] : undefined;
}

/** Numbers that have broken servers, and numbers of existing fids. */
const numbers: readonly (number | bigint)[] = [
  ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 900, 24, 4096, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff],
  ...[
    2n ** 31n,
    2n ** 32n,
    2n ** 32n - 1n,
    2n ** 53n,
    2n ** 53n + 1n,
    2n ** 63n - 1n,
    2n ** 63n,
    2n ** 64n - 1n,
  ],
];
const texts: readonly string[] = [
  ...['a', 'b', 'f', '', '.', '..', 'a/b', 'a\0b', '\xff\xfe', 'user.a', 'user.', 'trusted.a', 'security.a'],
  ...['system.posix_acl_access', 'n'.repeat(255), 'n'.repeat(256), 'x'.repeat(4096), '/', '9P2000.L'],
];

/**
 * A message with arbitrary fields. It does not wait for a lock, so that it is answered at once, does not negotiate a version,
 * and does not clunk the fids that the other messages use.
 */
export function randomBody(op: Op, seed: number): Fields {
  const next = random(seed);
  const pick = <T>(from: readonly T[]): T => from[next(from.length)]!;
  const entries = Object.entries(operations[op].T).map(([field, kind]): [string, Loose] => {
    if (endings.includes(op)) return [field, pick([900, 901, 902, 903])];
    if (kind === kinds.fid) return [field, pick([0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 900, 901, 902, 903])];
    if (kind === kinds.newfid) return [field, pick([900, 901, 902, 903, 3, 0xffff_ffff])];
    if (kind === kinds.data) return [field, Buffer.alloc(next(300), next(256))];
    if (field === 'wname') return [field, Array.from({ length: next(18) }, () => pick(texts.slice(0, 9)))];
    if (field === 'flags' && op === 'lock') return [field, pick([0, 2])];
    if (field === 'version') return [field, '9P2000'];
    if (kind.notation === '[s]') return [field, pick(texts)];
    return [field, pick(numbers)];
  });
  return Object.fromEntries(entries);
}

/** Bytes that are not a message. */
export function randomBytes(seed: number): Buffer {
  const next = random(seed);
  return Buffer.from(Array.from({ length: next(80) }, () => next(256)));
}
