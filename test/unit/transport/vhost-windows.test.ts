/** How much of the host one monitor can use up with the memory that it shares. */
import { readFileSync } from 'node:fs';
import { constants, PerformanceObserver } from 'node:perf_hooks';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd } from '#host/fd.ts';
import { Frontend, memoryFile, regionBytes, request, u32, u64 } from '../../support/vhost-frontend.ts';
import { Monitor, type Region } from '../../support/vhost-monitor.ts';
import { type Served, serveDirectory } from '../../support/vhost-served.ts';

const gibibyte = 2 ** 30;

let served: Served;
let monitor: Monitor;
let file: number;

beforeEach(async () => {
  served = await serveDirectory();
  monitor = await Monitor.connect(served.path);
  await monitor.order(request.setProtocolFeatures, u64(1 << 3)).catch(() => undefined);
  file = memoryFile(2048 * gibibyte);
});
afterEach(async () => {
  closeFd(file);
  monitor.close();
  await served.close();
});

const region = (at: number, bytes: number): Region => ({
  guestAddress: at,
  bytes,
  monitorAddress: at,
  fileOffset: at,
});
const add = (one: Region) => Buffer.concat([u64(0), regionBytes(one)]);

describe('the memory that a monitor shares', () => {
  it('is not counted as memory of the heap, so that much of it costs no collections of garbage', async () => {
    let collections = 0;
    const observer = new PerformanceObserver(list => {
      for (const one of list.getEntries())
        if (
          (one as unknown as { detail: { kind: number } }).detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR
        )
          collections++;
    });
    observer.observe({ entryTypes: ['gc'] });
    await monitor.order(request.addMemReg, add(region(0, 100 * gibibyte)), [file]);
    await new Promise(resolve => setTimeout(resolve, 50));
    observer.disconnect();
    expect(collections).toBeLessThan(5);
  });

  it('has a bound for each device, and what is refused leaves another device its own', async () => {
    monitor.tell(request.addMemReg, add(region(0, 2000 * gibibyte)), [file]);
    await monitor.closed();
    expect(served.complaints.join()).toMatch(/more than 1536 windows/);
    monitor.close();
    const guest = await Frontend.connect(served.path);
    await guest.start();
    await guest.attach();
    guest.close();
    monitor = await Monitor.connect(served.path);
  });

  it('takes no more address space however often it is changed', async () => {
    const maps = () => readFileSync('/proc/self/maps', 'latin1').split('\n').length;
    const table = (turn: number) => {
      const regions = Array.from({ length: 8 }, (_, i) =>
        region(i * gibibyte, 4096 * (1 + ((turn * 8 + i) % 500))),
      );
      return Buffer.concat([u32(regions.length, 0), ...regions.map(regionBytes)]);
    };
    const change = (turn: number) =>
      monitor.order(request.setMemTable, table(turn), Array<number>(8).fill(file));
    for (let turn = 0; turn < 100; turn++) await change(turn);
    const before = maps();
    for (let turn = 100; turn < 900; turn++) await change(turn);
    // Under load the pool is behind, up to the limit of windows.
    expect(maps()).toBeLessThan(before + 2 * 1536);
  });
});
