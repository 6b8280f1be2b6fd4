import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { EIO, ENOSPC } from '#base/errno.ts';
import { HostErrorLog } from '#base/host-error-log.ts';

const tenMinutesMs = 600_000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('logs each kind of host error once in ten minutes', () => {
  const lines: string[] = [];
  const hostErrors = new HostErrorLog(text => void lines.push(text));
  const reportAll = () => {
    const before = lines.length;
    for (let i = 0; i < 100; i++) {
      hostErrors.report(EIO, () => `request ${i}`);
      hostErrors.report(ENOSPC, () => `request ${i}`);
      hostErrors.rootRemoved();
      hostErrors.badRecord('user.virtfs.uid has 3 bytes instead of 4: ignored');
      hostErrors.badRecord('user.virtfs.mode has 3 bytes instead of 4: ignored');
    }
    return lines.length - before;
  };
  expect(reportAll()).toBe(5);
  expect(lines[0]).toBe('EIO: the disk or the path to it fails: see the kernel log; request: request 0');
  vi.advanceTimersByTime(tenMinutesMs - 1);
  expect(reportAll()).toBe(0);
  vi.advanceTimersByTime(1);
  expect(reportAll()).toBe(5);
});

it('does not blame the disk alone where a model of the embedding program may have failed', () => {
  const lines: string[] = [];
  new HostErrorLog(text => void lines.push(text), 'mine').report(EIO, () => 'request');
  expect(lines).toEqual([
    'EIO: the disk or the path to it fails: see the kernel log, or the security model "mine" gave this error; request: request',
  ]);
});
