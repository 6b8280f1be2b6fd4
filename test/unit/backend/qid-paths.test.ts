import { describe, expect, it } from 'vitest';
import { QidPaths } from '#backend/local/qid-paths.ts';

const fsid = Buffer.from('0102030405060708', 'hex');
const path = ([low, high]: readonly [number, number]) => (BigInt(high) << 32n) | BigInt(low);

describe('qid.path', () => {
  it('is the inode number on the first device, as far as that has 48 bits', () => {
    const paths = new QidPaths();
    const first = paths.deviceIndex(7, fsid);
    expect(path(paths.of(first, 0x9abcdef0, 0x5678))).toBe(0x56789abcdef0n);
    expect(path(paths.of(paths.deviceIndex(8, fsid), 0x9abcdef0, 0x5678)) & 0xffff_ffff_ffffn).toBe(
      0x56789abcdef0n,
    );
  });

  it('differs for larger inode numbers too, of whatever device, and is the same again', () => {
    const paths = new QidPaths();
    const devices = [paths.deviceIndex(7, fsid), paths.deviceIndex(8, fsid)];
    const all = devices.flatMap(index =>
      [0, 1, 0x8000, 0xffff].flatMap(upper =>
        [1, 2, 0xffff_ffff].map(low => path(paths.of(index, low, upper * 0x1_0000 + 3))),
      ),
    );
    expect(new Set(all).size).toBe(24);
    const again = new QidPaths();
    again.deviceIndex(7, fsid);
    // In another order, as after a restart.
    expect(path(again.of(0, 2, 0xffff_0003))).toBe(path(paths.of(0, 2, 0xffff_0003)));
    expect(path(again.of(0, 1, 0x8000_0003))).toBe(path(paths.of(0, 1, 0x8000_0003)));
  });

  it('remembers no more than its upper 16 bits can tell apart, and stays the same beyond', () => {
    const paths = new QidPaths();
    const devices = Array.from({ length: 4 }, (_, dev) => paths.deviceIndex(dev, fsid));
    const seen = new Set<bigint>();
    for (const index of devices) {
      for (let upper = 1; upper < 0x1_0000; upper++) seen.add(path(paths.of(index, 5, upper * 0x1_0000)));
    }
    // The rest is a hash of 48 bits: with 200,000 of them two may be alike, once in 14,000 runs of other numbers.
    expect(seen.size).toBe(4 * 0xffff);
    const [low, high] = paths.of(devices[3]!, 5, 0xffff_0000);
    expect(high >>> 16).toBe(0xffff);
    expect(paths.of(devices[3]!, 5, 0xffff_0000)).toEqual([low, high]);
    expect(paths.deviceIndex(99, fsid)).toBe(0xffff);
  });

  it('is the same in two processes that meet devices and inodes in different orders, as far as hashes differ', () => {
    const order = Array.from({ length: 50 }, (_, i) => i + 1);
    const fsidOf = (one: number) => Buffer.from([one, 0x9e, 0x37, 0x79, 0xb9, one, 0xeb, 0xca]);
    const seen = (devices: readonly number[]) => {
      const paths = new QidPaths();
      paths.deviceIndex(1000, fsid);
      const of = devices.flatMap(one => {
        const index = paths.deviceIndex(1000 + one, fsidOf(one));
        return [0, 1].map(
          upper => [`${one} ${upper}`, path(paths.of(index, one, upper * 0x1_0000 + 7))] as const,
        );
      });
      return new Map(of);
    };
    expect(seen(order)).toEqual(seen(order.toReversed()));
  });
});
