import { type Draft, type Op, operations } from '#protocol/operations.ts';

/** Deterministic random numbers (mulberry32), for reproducible failures. */
export function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return below => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000) * below);
  };
}

type Random = (below: number) => number;
type Values = Record<string, unknown>;

const u32 = (random: Random) => random(0x1_0000_0000);
const bytes = (random: Random, length: number) =>
  String.fromCharCode(...Array.from({ length }, () => random(256)));
const nameBytes = (random: Random) => `n${bytes(random, random(20)).replace(/[/\0]/g, '_')}`;
const qid = (random: Random) => ({
  type: random(256),
  version: u32(random),
  pathLow: u32(random),
  pathHigh: u32(random),
});
const some = <T>(random: Random, make: () => T) => Array.from({ length: random(17) }, make);

/** A random valid value for a field name, by the manual; independent of kinds.ts. */
function value(field: string, random: Random, side: 'T' | 'R'): unknown {
  if (field === 'wname') return some(random, () => (random(4) === 0 ? '..' : nameBytes(random)));
  if (field === 'wqid') return some(random, () => qid(random));
  if (/^a?qid$/.test(field)) return qid(random);
  if (field === 'data') {
    const content = Buffer.from(bytes(random, random(100)), 'latin1');
    return { count: content.length, bytes: content };
  }
  if (field === 'attr') return Buffer.from(bytes(random, 153), 'latin1');
  if (field === 'statfs') return Buffer.from(bytes(random, 60), 'latin1');
  if (/^(old|new)?name$/.test(field)) return nameBytes(random);
  if (/^(uname|aname|version|symtgt|target|client_id)$/.test(field)) return bytes(random, random(300));
  if (/_sec$/.test(field)) return (random(2) ? 1 : -1) * (random(0x20_0000) * 0x1_0000_0000 + u32(random));
  if (/_nsec$/.test(field)) return random(1e9);
  if (/^(start|length)$/.test(field)) return random(0x20_0000) * 0x1_0000_0000 + u32(random);
  if (field === 'request_mask' || field === 'attr_size') return { low: u32(random), high: u32(random) };
  if (field === 'size') return side === 'R' ? u32(random) * 8192 : { low: u32(random), high: u32(random) };
  if (field === 'type' || field === 'status') return random(256);
  if (field === 'oldtag') return random(65536);
  return u32(random);
}

function fill(op: Op, side: 'T' | 'R', random: Random): Values {
  const values: Values = {};
  for (const field of Object.keys(operations[op][side])) values[field] = value(field, random, side);
  if (op === 'readdir' && side === 'T') values.offset = { low: u32(random), high: u32(random) };
  if ((op === 'read' || op === 'write') && side === 'T')
    values.offset = random(0x20_0000) * 0x1_0000_0000 + u32(random);
  return values;
}

export function sampleRequest<O extends Op>(op: O, random: Random): Draft<O> {
  return fill(op, 'T', random) as Draft<O>;
}

export function sampleReply(op: Op, random: Random): Values {
  return fill(op, 'R', random);
}
