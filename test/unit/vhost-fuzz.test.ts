import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeDescriptor, eventDescriptor } from '../../src/host/vhost.ts';
import { encodeRequest } from '../../src/protocol/codec.ts';
import { Frontend, INDIRECT, Monitor, NEXT, request, u32, WRITE } from '../support/vhost-frontend.ts';
import { type Served, serveDirectory } from '../support/vhost-served.ts';

/** Of a run that failed, the seed is in the title of its test: it alone brings the run again. */
const seeds = Array.from({ length: 40 }, (_, i) => i + 1);

/** mulberry32: the same numbers for the same seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return below => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const base = 0x100000;
const turn = () => new Promise(resolve => setImmediate(resolve));

let served: Served;
let other: Served;
let neighbour: Frontend;

beforeEach(async () => {
  served = await serveDirectory();
  other = await serveDirectory('other');
  neighbour = await Frontend.connect(other.path);
  await neighbour.start();
  await neighbour.attach();
});
afterEach(async () => {
  await neighbour.request('clunk', { fid: 0 });
  expect(neighbour.errors).toBe(0);
  expect(other.complaints).toEqual([]);
  neighbour.close();
  await other.close();
  await served.close();
  for (const session of served.sessions) expect(session.counts().fids).toBe(0);
});

describe('whatever a guest does with its queue', () => {
  function anyDescriptor(guest: Frontend, random: (below: number) => number): void {
    const addresses = [base, base + random(4 << 20), base + (4 << 20) - random(64), random(2 ** 31), 2 ** 52];
    guest.describe(random(guest.size), {
      address: addresses[random(5)]!,
      length: [0, 1, 7, 16, 32, 64, 4096, 1 << 20, 0xffff_ffff][random(9)]!,
      flags: [0, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT, random(65_536)][random(7)]!,
      next: random(8) === 0 ? random(65_536) : random(guest.size),
    });
  }

  function anyMessage(guest: Frontend, random: (below: number) => number): void {
    const frames = [
      encodeRequest('version', 0xffff, { msize: random(2 ** 20), version: '9P2000.L' }),
      encodeRequest('walk', random(65_535), { fid: random(3), newfid: random(3), wname: [] }),
      encodeRequest('lopen', random(65_535), { fid: random(3), flags: random(4) }),
      encodeRequest('readdir', random(65_535), {
        fid: random(3),
        offset: { low: 0, high: 0 },
        count: random(9000),
      }),
      encodeRequest('write', random(65_535), {
        fid: random(3),
        offset: 0,
        data: { count: 5, bytes: Buffer.from('bytes') },
      }),
    ];
    const frame = Buffer.from(frames[random(frames.length)]!);
    if (random(4) === 0) frame[random(frame.length)] = random(256);
    if (guest.spare < 5) guest.reclaim();
    const cut = 1 + random(frame.length);
    const readable =
      random(2) === 0 ? [frame] : [frame.subarray(0, cut), frame.subarray(cut)].filter(one => one.length > 0);
    const writable = Array.from({ length: random(4) }, () => ({
      address: guest.room(4096),
      length: 1 + random(4096),
    }));
    guest.chain(
      readable.map(bytes => ({ address: guest.put(bytes), length: bytes.length })),
      writable,
      random(2) === 0,
    );
  }

  it.each(seeds)('nobody else notices, and a reset helps (seed %i)', async seed => {
    const random = randomOf(seed);
    const guest = await Frontend.connect(served.path, { size: 2 ** (3 + random(5)) });
    await guest.start();
    for (let round = 0; round < 12; round++) {
      await guest.attach();
      for (let step = 0; step < 30; step++) {
        const what = random(10);
        if (what < 5) anyMessage(guest, random);
        else if (what < 8) anyDescriptor(guest, random);
        else if (what === 8) guest.offer(random(random(2) === 0 ? guest.size : 65_536));
        else guest.memory.fill(random(256), random(1 << 16), random(1 << 16));
        if (random(3) === 0) guest.kick();
        if (random(3) === 0) await turn();
      }
      await guest.stopRing();
      guest.forget();
      await guest.startRing();
    }
    guest.close();
  });
});

describe('whatever a monitor says', () => {
  const requests = [...Object.values(request), 6, 20, 99];

  it.each(seeds)('nobody else notices, and the socket stays usable (seed %i)', async seed => {
    const random = randomOf(seed);
    for (let round = 0; round < 10; round++) {
      const guest = await Frontend.connect(served.path);
      if (random(2) === 0) await guest.start();
      const event = eventDescriptor();
      for (let step = 0; step < 12; step++) {
        const payload = Buffer.alloc([0, 8, 8, 8, 12, 40, 40, 72][random(8)]!);
        for (let i = random(6); i > 0 && payload.length > 0; i--)
          payload[random(payload.length)] = random(256);
        const descriptors = [guest.file, event, guest.monitor.descriptor].slice(0, random(3));
        const bytes = Buffer.concat([
          u32(
            requests[random(requests.length)]!,
            random(20) === 0 ? random(16) : 1 + 8 * random(2),
            payload.length,
          ),
          payload,
        ]);
        guest.monitor.raw(random(30) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes, descriptors);
        if (random(4) === 0) guest.kick();
        if (random(2) === 0) await turn();
      }
      closeDescriptor(event);
      guest.close();
      await turn();
    }
    const monitor = await Monitor.connect(served.path);
    expect((await monitor.ask(request.getQueueNum)).readUInt8(0)).toBe(1);
    monitor.close();
  });
});
