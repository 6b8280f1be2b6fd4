import { describe, expect, it } from 'vitest';
import { Malformed } from '#protocol/codec.ts';
import { DT_DIR, DT_REG } from '#protocol/constants.ts';
import { type Dirent, parseDirents } from '#protocol/dirent.ts';
import { packDirents } from '../../support/pack-dirents.ts';
import { listing } from './vectors.ts';

const packed = Buffer.from(listing, 'latin1');
const entries: Dirent[] = [
  {
    qid: { type: 0x80, version: 7, pathLow: 0x10, pathHigh: 0 },
    offset: { low: 1, high: 0 },
    type: DT_DIR,
    name: '.',
  },
  {
    qid: { type: 0, version: 8, pathLow: 0x11, pathHigh: 0 },
    offset: { low: 2, high: 0 },
    type: DT_REG,
    name: 'bc',
  },
];

describe('directory entries', () => {
  it('are decoded from the data of Rreaddir', () => {
    expect(parseDirents(packed)).toEqual(entries);
    expect(parseDirents(Buffer.alloc(0))).toEqual([]);
  });

  it('are encoded as they are decoded', () => {
    expect(packDirents(entries)).toEqual(packed);
  });

  it('keep names of any bytes and cookies of 63 bits', () => {
    const entry = { ...entries[0]!, name: '\xff\xfe\x80', offset: { low: 0xffff_ffff, high: 0x7fff_ffff } };
    const data = packDirents([entry]);
    expect(data.toString('hex', 24)).toBe('fffe80');
    expect(parseDirents(data)).toEqual([entry]);
  });

  it('are malformed if truncated anywhere', () => {
    for (let bytes = 1; bytes < packed.length; bytes++) {
      if (bytes === 25) continue;
      expect(() => parseDirents(packed.subarray(0, bytes))).toThrow(Malformed);
    }
  });
});
