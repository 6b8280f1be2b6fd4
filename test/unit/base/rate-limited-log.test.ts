import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { peerKey } from '#base/peer.ts';
import { countersMax, linesMax, minuteMs, RateLimitedLog } from '#base/rate-limited-log.ts';
import { logTo } from '../../support/line-log.ts';

describe('a log that peers cannot fill', () => {
  let lines: string[];
  let log: RateLimitedLog;

  beforeEach(() => {
    vi.useFakeTimers();
    lines = [];
    log = new RateLimitedLog(logTo(lines));
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  /** Of a peer, numbered from 1 on; how many of them were said at once. */
  function say(count: number, what = 'tcp 10.0.0.1', level: 'info' | 'warn' | 'error' = 'warn'): number {
    const before = lines.length;
    for (let i = 1; i <= count; i++) log.for(what)[level](`${what}: line ${i}`);
    return lines.length - before;
  }
  /** What is said within the minute to come. */
  function inAMinute(): string[] {
    const before = lines.length;
    vi.advanceTimersByTime(minuteMs);
    return lines.slice(before);
  }
  const more = (count: number, last: number, what = 'tcp 10.0.0.1') =>
    `${what}: ${count} more of this within a minute, the last: ${what}: line ${last}`;

  it('has the first lines of each, and nothing more of who keeps to that', () => {
    for (let minute = 0; minute < 3; minute++) {
      expect(say(linesMax)).toBe(linesMax);
      expect(inAMinute()).toEqual([]);
    }
  });

  it('counts what is more once a minute, until a minute has none', () => {
    expect(say(linesMax + 1)).toBe(linesMax);
    expect(say(99)).toBe(0);
    expect(inAMinute()).toEqual([more(100, 99)]);
    expect(say(7)).toBe(0);
    expect(inAMinute()).toEqual([more(7, 7)]);
    expect(inAMinute()).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
    expect(say(linesMax + 5)).toBe(linesMax);
  });

  it('keeps peers and levels apart', () => {
    say(1000);
    expect(say(1000, 'tcp 10.0.0.1', 'error')).toBe(linesMax);
    expect(say(1000, 'tcp 10.0.0.1', 'info')).toBe(linesMax);
    expect(say(1000, 'vsock cid 5')).toBe(linesMax);
    expect(inAMinute()).toHaveLength(4);
  });

  it('has places for so many at a time, and one for all others', () => {
    const peers = Array.from({ length: countersMax }, (_, i) => `vsock cid ${i}`);
    for (const peer of peers) expect(say(1, peer)).toBe(1);
    const further = Array.from({ length: 100_000 }, (_, i) =>
      say(1, `tcp 10.${i >> 16}.${i >> 8}.${i & 255}`),
    );
    expect(further.reduce((sum, one) => sum + one)).toBe(linesMax);
    // Who has a place keeps it.
    expect(say(linesMax, peers[0])).toBe(linesMax - 1);
    expect(inAMinute().sort()).toEqual([
      expect.stringMatching(/^others: 99980 more of this within a minute, the last: tcp 10\.1\./),
      more(1, linesMax, peers[0]),
    ]);
    expect(say(1, 'tcp 10.0.0.9')).toBe(1);
  });

  it('has a place for what the settings name, whatever peers do', () => {
    for (let i = 0; i < 2 * countersMax; i++) say(1, `vsock cid ${i}`);
    log.for('listeners', 'settings').warn('no descriptors');
    expect(lines.at(-1)).toBe('no descriptors');
  });

  it('says what is left to count when it ends', () => {
    say(linesMax + 3);
    log.close();
    expect(lines.at(-1)).toBe(more(3, linesMax + 3));
    expect(vi.getTimerCount()).toBe(0);
  });

  it('holds nothing back from who asked for everything, and counts nothing that nobody hears', () => {
    log = new RateLimitedLog({ ...logTo(lines), isLevelEnabled: () => true });
    expect(say(1000)).toBe(1000);
    expect(inAMinute()).toEqual([]);
    log = new RateLimitedLog({ ...logTo(lines), isLevelEnabled: () => false });
    expect(say(1000, 'tcp 10.0.0.1', 'info')).toBe(0);
    expect(inAMinute()).toEqual([]);
  });
});

describe('a peer', () => {
  it('is a machine, a user, an address, or a network of IPv6', () => {
    const tcp = (address: string) => peerKey({ kind: 'tcp', address, port: 4711 });
    expect(tcp('10.0.0.1')).toBe('tcp 10.0.0.1');
    expect(tcp('::ffff:10.0.0.1')).toBe('tcp ::ffff:10.0.0.1');
    expect(tcp('fd00:1:2:3:4:5:6:7')).toBe('tcp fd00:1:2:3::/64');
    expect(tcp('fd00:1:2:3::9')).toBe('tcp fd00:1:2:3::/64');
    expect(tcp('::1')).toBe('tcp 0:0:0:0::/64');
    expect(peerKey({ kind: 'vsock', cid: 5, port: 1030 })).toBe('vsock cid 5');
    expect(peerKey({ kind: 'unix', uid: 107, gid: 107 })).toBe('unix uid 107');
    expect(peerKey(undefined)).toBe('peers that were gone at once');
  });
});
