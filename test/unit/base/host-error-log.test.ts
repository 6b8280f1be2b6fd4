import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { EIO, ENOSPC } from '#base/errno.ts';
import { HostErrorLog } from '#base/host-error-log.ts';

const tenMinutesMs = 600_000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('the host’s faults are said once, and again after ten minutes, each kind for itself', () => {
  const said: string[] = [];
  const trouble = new HostErrorLog(text => void said.push(text));
  const meetAll = () => {
    const before = said.length;
    for (let i = 0; i < 100; i++) {
      trouble.report(EIO, () => `request ${i}`);
      trouble.report(ENOSPC, () => `request ${i}`);
      trouble.rootRemoved();
      trouble.badRecord('user.virtfs.uid has 3 bytes instead of 4: ignored');
      trouble.badRecord('user.virtfs.mode has 3 bytes instead of 4: ignored');
    }
    return said.length - before;
  };
  expect(meetAll()).toBe(5);
  expect(said[0]).toBe(
    'EIO: the disk or the way to it fails: the log of the kernel says more; it was in answer to request 0',
  );
  vi.advanceTimersByTime(tenMinutesMs - 1);
  expect(meetAll()).toBe(0);
  vi.advanceTimersByTime(1);
  expect(meetAll()).toBe(5);
});
