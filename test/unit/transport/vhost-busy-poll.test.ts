import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeRequest } from '#protocol/codec.ts';
import { Frontend } from '../../support/vhost-frontend.ts';
import { type Served, serveDirectory } from '../../support/vhost-served.ts';

const microseconds = 10_000;
/** Longer than the polling, also on a busy machine. */
const idle = () => new Promise(resolve => setTimeout(resolve, 300));

describe('a virtqueue that is polled', () => {
  let served: Served;
  let guest: Frontend;

  beforeEach(async () => {
    served = await serveDirectory({ tag: 'share', busyPoll: microseconds });
    guest = await Frontend.connect(served.path);
    await guest.start();
    await guest.attach();
  });
  afterEach(async () => {
    guest.close();
    await served.close();
    expect(served.complaints).toEqual([]);
  });

  /** Offers a request, and kicks if the device asks for it. Resolves to whether it did when the request is answered. */
  async function ask(): Promise<boolean> {
    const frame = encodeRequest('getattr', 3, { fid: 0, request_mask: { low: 0x3fff, high: 0 } });
    const request = { address: guest.put(frame), length: frame.length };
    const head = guest.chain([request], [{ address: guest.room(256), length: 256 }]);
    const { wantsKick } = guest;
    if (wantsKick) guest.kick();
    expect(await guest.usedOf(1)).toEqual([{ head, length: 160 }]);
    guest.release(head);
    return wantsKick;
  }

  /** How many of a series of requests needed a kick. On a busy machine polling may end before the next request. */
  async function kicksOf(requests: number): Promise<number> {
    let kicks = 0;
    for (let i = 0; i < requests; i++) if (await ask()) kicks++;
    return kicks;
  }

  it('takes successive requests without a kick', async () => {
    expect(await kicksOf(50)).toBeLessThan(50);
  });

  it('asks for kicks again after a time without requests', async () => {
    await idle();
    expect(await ask()).toBe(true);
    expect(await kicksOf(50)).toBeLessThan(50);
  });

  it('is not polled while it is stopped, and continues', async () => {
    const next = await guest.stopRing();
    await idle();
    await guest.startRing(next);
    expect(await ask()).toBe(true);
    expect(await kicksOf(50)).toBeLessThan(50);
  });
});
