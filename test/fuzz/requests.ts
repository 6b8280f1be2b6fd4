import { type Draft, type Op, operations } from '../../src/protocol/operations.ts';
import type { Choices } from './choices.ts';
import type { Fid, ModelSession } from './model/session.ts';

/** Few names, so that requests collide. */
const goodNames = ['a', 'b', 'c', 'd', '\xe9\xff', 'L'.repeat(255)];
/** Including invalid names. */
const names = [
  'a',
  'b',
  'c',
  'd',
  'a',
  'b',
  'c',
  '\xe9\xff',
  'L'.repeat(255),
  '..',
  '.',
  '',
  'a/b',
  'a\0b',
  'M'.repeat(256),
];
const fids = [0, 1, 2, 3, 4, 5, 1, 2, 3, 0xffff_ffff];
const modes = [0o644, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o2644, 0o1777, 0];
const gids = [0, 1000, 5, 0xffff_ffff];
const types = [0, 0o100000, 0o010000, 0o140000, 0o020000, 0o060000, 0o040000, 0o120000, 0o170000];
const openFlags = [
  0, 1, 2, 3, 0o1000, 0o1001, 0o1002, 0o2001, 0o2002, 0o200000, 0o200, 0o202, 0o1202, 0o4000001, 0o10002,
  0o100100,
];
/** Beyond exact numbers, and negative for the kernel. */
const far = [
  { low: 0, high: 0x20_0000 },
  { low: 0xffff_ffff, high: 0xffff_ffff },
];
const positions = [0, 1, 3, 10, 4095, 4096, 5000];
const counts = [0, 1, 10, 100, 300, 4096, 8192, 70_000, 0xffff_ffff];
const ranges = [0, 1, 2, 3, 5, 8, 10];
const targets = ['a', '../b', 'no/where', '/etc/passwd', '', 't'.repeat(4095), 't'.repeat(4096), 'n\0n'];

const weighted: readonly Op[] = [
  ...([
    'walk',
    'walk',
    'walk',
    'walk',
    'lcreate',
    'lcreate',
    'lopen',
    'lopen',
    'lopen',
    'clunk',
    'clunk',
  ] as const),
  ...([
    'mkdir',
    'mkdir',
    'mknod',
    'symlink',
    'link',
    'rename',
    'renameat',
    'renameat',
    'unlinkat',
    'unlinkat',
  ] as const),
  ...([
    'remove',
    'getattr',
    'getattr',
    'setattr',
    'setattr',
    'statfs',
    'readlink',
    'read',
    'read',
    'write',
  ] as const),
  ...([
    'write',
    'fsync',
    'readdir',
    'readdir',
    'xattrwalk',
    'xattrcreate',
    'lock',
    'lock',
    'lock',
    'getlock',
  ] as const),
  ...([
    'attach',
    'auth',
    'flush',
    'version',
    'xattrwalk',
    'xattrcreate',
    'write',
    'clunk',
    'walk',
    'getattr',
  ] as const),
];

/** The state of a fid in which a request can succeed. */
const useful: Partial<Record<Op, (fid: Fid) => boolean>> = {
  lopen: ({ open }) => !open,
  lcreate: ({ open, node }) => !open && node.isDirectory,
  xattrcreate: ({ open }) => !open,
  read: ({ open }) => open?.kind === 'xattr-read' || (open?.kind === 'file' && open.reads),
  write: ({ open }) => open?.kind === 'xattr-write' || (open?.kind === 'file' && open.writes),
  readdir: ({ open }) => open?.kind === 'dir',
  fsync: ({ open }) => open?.kind === 'dir' || open?.kind === 'file',
  lock: ({ open }) => open?.kind === 'file',
  getlock: ({ open }) => open?.kind === 'file',
  readlink: ({ node }) => node.target !== '',
  clunk: () => true,
};
const isObject = ({ open }: Fid) => open === undefined || open.kind === 'file' || open.kind === 'dir';
const isDirectory = (fid: Fid) => isObject(fid) && fid.node.isDirectory;

function fidFor(field: string, op: Op, choices: Choices, { fids: known }: ModelSession): number {
  if (choices.rarely(10)) return choices.of(fids);
  if (field === 'newfid' || op === 'attach') {
    const free = [1, 2, 3, 4, 5, 6, 7].filter(number => !known.has(number));
    return free.length > 0 ? choices.of(free) : choices.of(fids);
  }
  const good = /dfid|dirfid/.test(field) ? isDirectory : (useful[op] ?? isObject);
  const pool = [...known].filter(([, fid]) => good(fid)).map(([number]) => number);
  return pool.length > 0 ? choices.of(pool) : choices.of(fids);
}

/** An existing name, a possible one, or any. */
function nameFor(number: unknown, choices: Choices, { fids: known }: ModelSession): string {
  const there = [...(known.get(number as number)?.node.entries?.keys() ?? [])];
  if (there.length > 0 && choices.rarely(2)) return choices.of(there);
  return choices.rarely(8) ? choices.of(names) : choices.of(goodNames);
}

function stepsFor(number: number, choices: Choices, modelSession: ModelSession): string[] {
  if (choices.rarely(40)) return Array.from({ length: 17 }, () => 'a');
  const steps: string[] = [];
  let node = modelSession.fids.get(number)?.node;
  for (let count = choices.of([0, 1, 1, 1, 2, 3]); count > 0; count--) {
    const there = [...(node?.entries?.keys() ?? [])];
    const step = there.length > 0 && !choices.rarely(6) ? choices.of(there) : choices.of(['..', ...names]);
    steps.push(step);
    node = step === '..' ? node?.parent : node?.entries?.get(step);
  }
  return steps;
}

/** A value for a field with this name. */
function fieldOf(field: string, op: Op, choices: Choices, modelSession: ModelSession, asked: Asked): unknown {
  const { modelOptions } = modelSession.world.files;
  if (/fid$/.test(field) && field !== 'afid') return fidFor(field, op, choices, modelSession);
  if (op === 'xattrwalk' || op === 'xattrcreate') {
    if (field === 'name') return choices.of(modelOptions.xattrNames);
    if (field === 'attr_size') return choices.of([0, 1, 5, 20, 300, 65_537, far[1]]);
    return choices.of([0, 0, 1, 2, 3, 4]);
  }
  switch (field) {
    case 'afid':
      return choices.rarely(12) ? 1 : 0xffff_ffff;
    case 'name':
    case 'oldname':
    case 'newname':
      return nameFor(
        asked.newdirfid ?? asked.olddirfid ?? asked.dfid ?? asked.dirfid ?? asked.fid,
        choices,
        modelSession,
      );
    case 'wname':
      return stepsFor(asked.fid as number, choices, modelSession);
    case 'symtgt':
      return choices.of(targets);
    case 'mode':
      return choices.of(modes) | (op === 'mknod' ? choices.of(types) : 0);
    case 'uid':
    case 'gid':
      return choices.of(gids);
    case 'major':
    case 'minor':
      return choices.of([0, 1, 8, 255, 256, 4095, 4096, 0xfffff, 0x100000]);
    case 'flags':
      if (op === 'lopen' || op === 'lcreate') return choices.of(openFlags);
      return op === 'unlinkat' ? choices.of([0, 0, 0x200, 0x200, 1]) : choices.of([0, 0, 2, 4]);
    case 'valid':
      return choices.rarely(8)
        ? choices.u32()
        : choices.of([1, 2, 4, 6, 7, 8, 0x30, 0x1b0, 0x40, 0x1ff, 9, 0]);
    case 'size':
      return choices.rarely(4) ? choices.of(far) : { low: choices.of(positions), high: 0 };
    case 'atime_sec':
    case 'mtime_sec':
      return choices.rarely(8) ? 2 ** 60 : choices.of([0, 1, 1_700_000_000, 2 ** 31 - 1]);
    case 'atime_nsec':
    case 'mtime_nsec':
      return choices.of([0, 1, 999_999_999, 1e9, -1]);
    case 'offset':
      return offsetFor(op, choices, modelSession.fids.get(asked.fid as number));
    case 'count':
      return choices.of(counts);
    case 'data': {
      const open = modelSession.fids.get(asked.fid as number)?.open;
      if (open?.kind === 'xattr-write' && !choices.rarely(4))
        return dataOf(choices.bytes(open.size - open.written.length));
      const bytes = choices.bytes(choices.of([0, 1, 5, 20, 20, 200]));
      return dataOf(bytes);
    }
    case 'datasync':
      return choices.below(2);
    case 'type':
      return choices.of([0, 1, 1, 2, 2, 3]);
    case 'start':
      return choices.of(ranges);
    case 'length':
      return choices.of(ranges);
    case 'proc_id':
      return choices.below(3);
    case 'client_id':
      return choices.of(['host', 'host', 'other', 'x'.repeat(300)]);
    case 'msize':
      return choices.of([65_536, 8192, 4096, 4095, 0, 0xffff_ffff]);
    case 'version':
      return choices.of(['9P2000.L', '9P2000.L', '9P2000', '9P2000.Lx', '']);
    case 'aname':
      return choices.of(['', 'ro', '/', 'none']);
    case 'uname':
      return 'who';
    case 'n_uname':
      return choices.of(modelOptions.users);
    case 'oldtag':
      return choices.below(4);
    case 'request_mask':
      return 0;
    default:
      throw new Error(`nothing is known to ask ${op} with as ${field}`);
  }
}

type Asked = Record<string, unknown>;

function dataOf(bytes: Buffer): { count: number; bytes: Buffer } {
  return { count: bytes.length, bytes };
}

function offsetFor(op: Op, choices: Choices, fid: Fid | undefined): unknown {
  const open = fid?.open;
  if (op === 'readdir')
    return open?.kind === 'dir' && open.listed.cookie && !choices.rarely(3)
      ? open.listed.cookie
      : { low: 0, high: 0 };
  if (open?.kind === 'xattr-write' && !choices.rarely(4)) return open.written.length;
  return choices.rarely(8) ? 2 ** 53 - 1 : choices.of(positions);
}

export interface Request {
  readonly op: Op;
  readonly asked: Draft<Op>;
}

function opFor(choices: Choices, { msize, fids: known }: ModelSession): Op {
  if (msize === 0 && !choices.rarely(4)) return 'version';
  if (known.size === 0 && !choices.rarely(4)) return 'attach';
  const op = choices.of(weighted);
  return (op === 'version' || op === 'auth' || op === 'flush') && !choices.rarely(6) ? 'walk' : op;
}

/** A request that makes sense in the session's state; sometimes any. */
export function anyRequest(choices: Choices, modelSession: ModelSession): Request {
  const op = opFor(choices, modelSession);
  const asked: Asked = {};
  for (const field of Object.keys(operations[op].T))
    asked[field] = fieldOf(field, op, choices, modelSession, asked);
  return { op, asked: asked as Draft<Op> };
}
