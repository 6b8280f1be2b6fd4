import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MemoryTree } from '#backend/memory/memory-tree.ts';
import type { Tree } from '#backend/tree.ts';
import { Errno } from '#base/errno.ts';
import { encodeRequest } from '#protocol/codec.ts';
import { operations } from '#protocol/operations.ts';
import { stepAt } from '#session/name-cache.ts';
import { randomFrom } from '../protocol/samples.ts';
import { Barrier, SessionHarness, turns, waiting } from './harness.ts';

type Random = (below: number) => number;

const names = ['a', 'b', 'dir', 'absent', 'x'.repeat(255), '\xff\x80'];
const invalidNames = ['', '.', '..', 'a/b', 'a\0', 'x'.repeat(256), 'x'.repeat(3000)];
const fastOps = ['getattr', 'walk', 'clunk', 'read', 'write', 'lopen'] as const;
/** Weighted, so that a fid lives long enough to be opened and read. */
const weightedOps = [
  'getattr',
  'walk',
  'walk',
  'clunk',
  'read',
  'read',
  'write',
  'write',
  'lopen',
  'lopen',
] as const;

/** A random request of a fast-path message, mostly valid. */
function someRequest(random: Random): Buffer {
  const fid = random(6);
  const tag = random(0x1_0000);
  const step = () =>
    random(8) === 0 ? invalidNames[random(invalidNames.length)]! : names[random(names.length)]!;
  const offset = random(10) === 0 ? random(2 ** 53) : random(5000);
  switch (weightedOps[random(weightedOps.length)]!) {
    case 'getattr':
      return encodeRequest('getattr', tag, { fid, request_mask: random(0x4000) });
    case 'walk':
      return encodeRequest('walk', tag, {
        fid: random(3),
        newfid: random(20) === 0 ? 0xffff_ffff : random(6),
        wname: Array.from({ length: random(10) === 0 ? random(4) : random(2) }, step),
      });
    case 'clunk':
      // Never clunk fid 0, the root.
      return encodeRequest('clunk', tag, { fid: 1 + random(8) });
    case 'read':
      return encodeRequest('read', tag, {
        fid,
        offset,
        count: random(4) === 0 ? random(2 ** 32) : random(9000),
      });
    case 'write': {
      const count = random(3000);
      return encodeRequest('write', tag, {
        fid,
        offset: offset % 1e6,
        data: { count, bytes: Buffer.alloc(count, tag) },
      });
    }
    case 'lopen':
      return encodeRequest('lopen', tag, { fid, flags: random(4) === 0 ? random(0o10000) : random(3) });
  }
}

/** Corrupts a message except what the transport checks: size[4] is that of the frame. */
function broken(frame: Buffer, random: Random): Buffer {
  const length = random(2) === 0 ? frame.length : 7 + random(frame.length + 4 - 7);
  const other = Buffer.alloc(Math.max(length, 7));
  frame.copy(other);
  for (let changes = random(4); changes > 0 && other.length > 7; changes--)
    other[7 + random(other.length - 7)] = random(3) === 0 ? 0xff : random(256);
  other.writeUInt32LE(other.length, 0);
  // A Twrite may end within its head; a transport does not split such a frame.
  return other;
}

/** Two sessions for the same requests: one uses the fast path, the other, traced, only the generic path. */
class TwoSessions {
  readonly fast: SessionHarness;
  readonly generic: SessionHarness;

  constructor(one: Tree, other: Tree, readonly = false) {
    this.fast = new SessionHarness(one, { readonly });
    this.generic = new SessionHarness(other, { readonly, traced: true });
  }

  async begin(msize: number): Promise<this> {
    await this.fast.begin(msize);
    await this.generic.begin(msize);
    return this;
  }

  /** Sends a frame to both, compares their replies, and returns the reply. */
  async send(frame: Buffer, settle: boolean): Promise<Buffer | undefined> {
    const replies: (Buffer | undefined)[] = [];
    for (const harness of [this.fast, this.generic]) {
      harness.sendFrame(Buffer.from(frame));
      // Messages without a fast path may be answered after `receive`.
      if (settle || harness.replies.length === 0) await turns(3);
      const [first, ...more] = harness.replies.splice(0);
      expect(more).toEqual([]);
      expect(harness.errors).toEqual([]);
      replies.push(first?.frame);
    }
    const [fast, generic] = replies;
    if (!fast || !generic || fast.compare(generic) !== 0) {
      expect(fast?.toString('hex'), frame.toString('hex')).toBe(generic?.toString('hex'));
    }
    expect(this.fast.session.counts()).toEqual(this.generic.session.counts());
    return fast;
  }
}

async function filled(): Promise<MemoryTree> {
  const tree = new MemoryTree({ bytesMax: 2 ** 24 });
  const harness = await new SessionHarness(tree).begin();
  for (const [fid, name] of ['a', 'b', 'x'.repeat(255), '\xff\x80'].entries()) {
    await harness.request('walk', { fid: 0, newfid: 1 + fid, wname: [] });
    await harness.request('lcreate', { fid: 1 + fid, name: name as never, flags: 2, mode: 0o644, gid: 0 });
    await harness.request('write', {
      fid: 1 + fid,
      offset: 0,
      data: { count: 4, bytes: Buffer.from('data') },
    });
  }
  await harness.request('mkdir', { dfid: 0, name: 'dir' as never, mode: 0o755, gid: 0 });
  await harness.session.close();
  return tree;
}

const opOfReply = Object.fromEntries(fastOps.map(op => [operations[op].type + 1, op]));

/** Sends random requests to both sessions; returns the number of replies of each kind. */
async function sendRandom(
  pair: TwoSessions,
  random: Random,
  length: number,
  settle = false,
): Promise<Record<string, number>> {
  const kinds: Record<string, number> = {};
  for (let i = 0; i < length; i++) {
    const frame = someRequest(random);
    const reply = await pair.send(random(6) === 0 ? broken(frame, random) : frame, settle);
    const kind = opOfReply[reply?.[4] ?? 0] ?? 'error';
    kinds[kind] = (kinds[kind] ?? 0) + 1;
  }
  return kinds;
}

describe('the fast path', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['Date'], now: 1_700_000_000_000 });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it('sends the same bytes as the generic path, for valid and invalid requests', async () => {
    const random = randomFrom(1);
    for (const msize of [4096, 65536]) {
      const pair = await new TwoSessions(await filled(), await filled()).begin(msize);
      const kinds = await sendRandom(pair, random, 6000);
      for (const kind of [...fastOps, 'error']) expect(kinds[kind], kind).toBeGreaterThan(50);
    }
  });

  it('sends the same bytes on a read-only export', async () => {
    const pair = await new TwoSessions(await filled(), await filled(), true).begin(8192);
    const kinds = await sendRandom(pair, randomFrom(2), 3000);
    expect(kinds.write ?? 0).toBe(0);
    expect(kinds.read).toBeGreaterThan(10);
  });

  it('sends the same bytes on a file system that blocks', async () => {
    const trees = [await filled(), await filled()].map(tree =>
      waiting(tree, new Barrier(), ['walk', 'stat', 'read', 'write']),
    ) as [Tree, Tree];
    const kinds = await sendRandom(await new TwoSessions(...trees).begin(4096), randomFrom(3), 1200, true);
    for (const kind of [...fastOps, 'error']) expect(kinds[kind], kind).toBeGreaterThan(4);
  });

  it('sends the same bytes before a version is negotiated', async () => {
    const pair = new TwoSessions(await filled(), await filled());
    const kinds = await sendRandom(pair, randomFrom(4), 100);
    expect(kinds).toEqual({ error: 100 });
  });
});

describe('the name cache', () => {
  it('returns the name in the bytes, whatever other names share its slot', () => {
    const random = randomFrom(5);
    const some = Array.from({ length: 3000 }, (_, i) => `${'\xe9n'.repeat(random(3))}${i % 1700}`);
    for (const name of [...some, ...some]) {
      const at = random(9);
      const bytes = Buffer.from(`${'/'.repeat(at)}${name}/`, 'latin1');
      expect(stepAt(bytes, at, name.length)).toBe(name);
    }
    for (const name of invalidNames.filter(one => one !== '..')) {
      expect(() => stepAt(Buffer.from(name, 'latin1'), 0, name.length), name).toThrow(Errno);
    }
  });
});
