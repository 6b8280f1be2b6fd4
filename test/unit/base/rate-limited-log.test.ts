import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { peerKey } from '#base/peer.ts';
import { countersMax, linesMax, minuteMs, RateLimitedLog } from '#base/rate-limited-log.ts';
import { logTo } from '../../support/line-log.ts';

describe('the rate-limited log', () => {
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

  /** Logs numbered lines for a peer; returns how many were written at once. */
  function write(count: number, what = 'tcp 10.0.0.1', level: 'info' | 'warn' | 'error' = 'warn'): number {
    const before = lines.length;
    for (let i = 1; i <= count; i++) log.for(what)[level](`${what}: line ${i}`);
    return lines.length - before;
  }
  /** The lines written during the next minute. */
  function nextMinute(): string[] {
    const before = lines.length;
    vi.advanceTimersByTime(minuteMs);
    return lines.slice(before);
  }
  const more = (count: number, last: number, what = 'tcp 10.0.0.1') =>
    `${what}: ${count} more of this within a minute, the last: ${what}: line ${last}`;

  it('writes the first lines of each peer, and no summary for a peer within the limit', () => {
    for (let minute = 0; minute < 3; minute++) {
      expect(write(linesMax)).toBe(linesMax);
      expect(nextMinute()).toEqual([]);
    }
  });

  it('writes a summary once a minute until nothing was suppressed for a minute', () => {
    expect(write(linesMax + 1)).toBe(linesMax);
    expect(write(99)).toBe(0);
    expect(nextMinute()).toEqual([more(100, 99)]);
    expect(write(7)).toBe(0);
    expect(nextMinute()).toEqual([more(7, 7)]);
    expect(nextMinute()).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
    expect(write(linesMax + 5)).toBe(linesMax);
  });

  it('counts peers and levels separately', () => {
    write(1000);
    expect(write(1000, 'tcp 10.0.0.1', 'error')).toBe(linesMax);
    expect(write(1000, 'tcp 10.0.0.1', 'info')).toBe(linesMax);
    expect(write(1000, 'vsock cid 5')).toBe(linesMax);
    expect(nextMinute()).toHaveLength(4);
  });

  it('has a bounded number of counters, and one for all other peers', () => {
    const peers = Array.from({ length: countersMax }, (_, i) => `vsock cid ${i}`);
    for (const peer of peers) expect(write(1, peer)).toBe(1);
    const further = Array.from({ length: 100_000 }, (_, i) =>
      write(1, `tcp 10.${i >> 16}.${i >> 8}.${i & 255}`),
    );
    expect(further.reduce((sum, one) => sum + one)).toBe(linesMax);
    // A peer with a counter keeps it.
    expect(write(linesMax, peers[0])).toBe(linesMax - 1);
    expect(nextMinute().sort()).toEqual([
      expect.stringMatching(/^others: 99980 more of this within a minute, the last: tcp 10\.1\./),
      more(1, linesMax, peers[0]),
    ]);
    expect(write(1, 'tcp 10.0.0.9')).toBe(1);
  });

  it('has a counter for each source from the settings, whatever peers do', () => {
    for (let i = 0; i < 2 * countersMax; i++) write(1, `vsock cid ${i}`);
    log.for('listeners', 'settings').warn('no descriptors');
    expect(lines.at(-1)).toBe('no descriptors');
  });

  it('writes the remaining summaries when it is closed', () => {
    write(linesMax + 3);
    log.close();
    expect(lines.at(-1)).toBe(more(3, linesMax + 3));
    expect(vi.getTimerCount()).toBe(0);
  });

  it('suppresses nothing at level debug, and does not count lines of a disabled level', () => {
    log = new RateLimitedLog({ ...logTo(lines), isLevelEnabled: () => true });
    expect(write(1000)).toBe(1000);
    expect(nextMinute()).toEqual([]);
    log = new RateLimitedLog({ ...logTo(lines), isLevelEnabled: () => false });
    expect(write(1000, 'tcp 10.0.0.1', 'info')).toBe(0);
    expect(nextMinute()).toEqual([]);
  });
});

describe('the key of a peer', () => {
  it('is a CID, a uid, an IPv4 address or an IPv6 /64', () => {
    const tcp = (address: string) => peerKey({ kind: 'tcp', address, port: 4711 });
    expect(tcp('10.0.0.1')).toBe('tcp 10.0.0.1');
    expect(tcp('::ffff:10.0.0.1')).toBe('tcp ::ffff:10.0.0.1');
    expect(tcp('fd00:1:2:3:4:5:6:7')).toBe('tcp fd00:1:2:3::/64');
    expect(tcp('fd00:1:2:3::9')).toBe('tcp fd00:1:2:3::/64');
    expect(tcp('::1')).toBe('tcp 0:0:0:0::/64');
    expect(peerKey({ kind: 'vsock', cid: 5, port: 1030 })).toBe('vsock cid 5');
    expect(peerKey({ kind: 'unix', uid: 107, gid: 107 })).toBe('unix uid 107');
    expect(peerKey(undefined)).toBe('peers that disconnected at once');
  });
});
