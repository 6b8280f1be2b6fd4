/**
 * Messages of the fast path, valid or not, sent to two sessions: one uses the fast path, the other, traced, only the generic
 * path. Their replies must be equal.
 */

import { MemoryTree } from '../../../src/backend/memory/memory-tree.ts';
import { encodeRequest } from '../../../src/protocol/codec.ts';
import { type Draft, type Op, operations } from '../../../src/protocol/operations.ts';
import { assert, Choices } from '../choices.ts';
import { FuzzClient } from '../fuzz-client.ts';

const hot: readonly Op[] = ['getattr', 'walk', 'clunk', 'read', 'write', 'lopen'];
const names = ['a', 'b', '..', '.', '', 'no', 'x/y', '\xff\xfe', 'L'.repeat(255), 'M'.repeat(256)];

function say<O extends Op>(op: O, asked: Draft<O>): Buffer {
  return encodeRequest(op, op === 'version' ? 0xffff : 9, asked);
}

/** A directory with a file, and fids of every kind. */
const prelude: readonly Buffer[] = [
  say('version', { msize: 8192, version: '9P2000.L' }),
  say('attach', { fid: 0, afid: 0xffff_ffff, uname: '', aname: '', n_uname: 0 }),
  say('walk', { fid: 0, newfid: 1, wname: [] }),
  say('lcreate', { fid: 1, name: 'a', flags: 2, mode: 0o644, gid: 0 }),
  say('write', { fid: 1, offset: 0, data: { count: 7, bytes: Buffer.from('content') } }),
  say('mkdir', { dfid: 0, name: 'b', mode: 0o755, gid: 0 }),
  say('walk', { fid: 0, newfid: 2, wname: ['b'] }),
  say('lopen', { fid: 2, flags: 0 }),
  say('walk', { fid: 0, newfid: 3, wname: ['a'] }),
  say('attach', { fid: 4, afid: 0xffff_ffff, uname: '', aname: 'ro', n_uname: 0 }),
  say('walk', { fid: 4, newfid: 5, wname: ['a'] }),
  say('walk', { fid: 0, newfid: 6, wname: ['a'] }),
  say('xattrcreate', { fid: 6, name: 'user.x', attr_size: 4, flags: 0 }),
  say('xattrwalk', { fid: 0, newfid: 7, name: '' }),
];

function drafted(op: Op, choices: Choices): Buffer {
  const fid = choices.of([0, 1, 2, 3, 4, 5, 6, 7, 8, 0xffff_ffff]);
  const newfid = choices.of([8, 9, 10, 3, 0, 0xffff_ffff]);
  const offset = choices.of([0, 3, 4096, 2 ** 32, 2 ** 53 - 1]);
  const bytes = choices.bytes(choices.of([0, 1, 4, 30]));
  switch (op) {
    case 'walk':
      return say(op, {
        fid,
        newfid,
        wname: Array.from({ length: choices.below(3) }, () => choices.of(names)),
      });
    case 'read':
      return say(op, { fid, offset, count: choices.of([0, 1, 100, 8192, 0xffff_ffff]) });
    case 'write':
      return say(op, { fid, offset: offset > 4096 ? 0 : offset, data: { count: bytes.length, bytes } });
    case 'lopen':
      return say(op, { fid, flags: choices.of([0, 1, 2, 3, 0o1001, 0o2001, 0o200000]) });
    case 'getattr':
      return say(op, { fid, request_mask: choices.below(0x4000) });
    default:
      return say('clunk', { fid });
  }
}

/** The frame, or an invalid one; its size field is correct, which the transport guarantees. */
function bent(frame: Buffer, choices: Choices): Buffer {
  const how = choices.below(8);
  let other = Buffer.from(frame);
  if (how === 0) other = other.subarray(0, 7 + choices.below(frame.length - 6));
  else if (how === 1) other = Buffer.concat([other, choices.bytes(1 + choices.below(20))]);
  else if (how < 4)
    for (let i = choices.below(4); i >= 0; i--) other[7 + choices.below(frame.length - 7)] = choices.byte();
  const whole = Buffer.from(other);
  whole.writeUInt32LE(whole.length, 0);
  return whole;
}

const withQid = new Set(['lopen', 'attach', 'mkdir', 'lcreate'].map(op => operations[op as Op].type + 1));

/** A reply without qid.version and times, which differ between two trees. */
function plain(reply: Buffer): string {
  const copy = Buffer.from(reply);
  const type = copy[4]!;
  if (withQid.has(type)) copy.fill(0, 8, 12);
  if (type === operations.walk.type + 1)
    for (let at = 9; at < copy.length; at += 13) copy.fill(0, at + 1, at + 5);
  if (type === operations.getattr.type + 1) copy.fill(0, 16, 20).fill(0, 80, 144);
  return copy.toString('hex');
}

export async function fuzz(data: Buffer): Promise<void> {
  const choices = new Choices(data);
  const clients = ['by hand', 'traced'].map(how => {
    const tree = new MemoryTree({ bytesMax: 1 << 20 });
    const find = { find: (aname: string) => ({ name: 'x', tree, readonly: aname === 'ro' }) };
    return new FuzzClient(find, how === 'traced');
  });
  try {
    for (const frame of prelude) for (const client of clients) await client.request(frame);
    while (!choices.done) {
      const frame = bent(drafted(choices.of(hot), choices), choices);
      const [fast, generic] = [await clients[0]!.request(frame), await clients[1]!.request(frame)].map(plain);
      assert(fast === generic, () => `${frame.toString('hex')}: fast path ${fast}, generic path ${generic}`);
    }
  } finally {
    for (const client of clients) await client.close();
  }
}
