/** A session that was refused is resumed by everything that frees capacity. */
import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client, Server } from '#index.ts';
import { encodeRequest } from '#protocol/codec.ts';
import { InFlight } from '#quota/in-flight.ts';
import { defaultLimits } from '#quota/limits.ts';
import { ServerShare } from '#quota/server-share.ts';
import { Frontend } from '../../support/vhost-frontend.ts';
import { type Served, serveDirectory } from '../../support/vhost-served.ts';
import { Barrier, TempExport, turns, waiting } from '../session/harness.ts';

const getattr = { fid: 0, request_mask: { low: 0x3fff, high: 0 } };
/** Limit for all sessions; each of three gets four. */
const limits = { ...defaultLimits, requestsInAll: 12 };

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !done(); i++) await new Promise(resolve => setTimeout(resolve, 5));
  expect(done()).toBe(true);
}

describe('a virtqueue', () => {
  const barrier = new Barrier();
  let share: ServerShare;
  let served: Served;
  let guest: Frontend;

  beforeEach(async () => {
    share = new ServerShare(limits);
    served = await serveDirectory({ share, dressed: tree => waiting(tree, barrier, ['stat']) });
    guest = await Frontend.connect(served.path);
    await guest.start();
    await guest.attach();
    barrier.close();
  });
  afterEach(async () => {
    barrier.open();
    guest.close();
    await served.close();
    expect(served.complaints).toEqual([]);
  });

  const offer = (frame: Buffer) =>
    guest.chain(
      [{ address: guest.put(frame), length: frame.length }],
      [{ address: guest.room(256), length: 256 }],
    );
  const ask = (tag: number) => offer(encodeRequest('getattr', tag, getattr));

  it('goes on when the end of other sessions makes room, though none of its own requests ended', async () => {
    const others = [1, 2].map(() => new InFlight(share, () => undefined));
    for (let tag = 0; tag < 12; tag++) ask(tag);
    guest.kick();
    await until(() => barrier.waiting === 4);
    for (const other of others) other.leave();
    await until(() => barrier.waiting === 12);
    barrier.open();
    await guest.usedOf(12);
  });

  it('goes on when others end and then one of its own requests, which no longer was one too many', async () => {
    const others = [1, 2].map(() => new InFlight(share, () => undefined));
    for (let tag = 0; tag < 12; tag++) ask(tag);
    guest.kick();
    await until(() => barrier.waiting === 4);
    for (const other of others) other.leave();
    barrier.open();
    await guest.usedOf(12);
  });

  it('has its flushes read while its session has no room, and nothing else', async () => {
    const others = Array.from({ length: 11 }, () => new InFlight(share, () => undefined));
    const first = ask(1);
    const flush = offer(encodeRequest('flush', 2, { oldtag: 1 }));
    const second = ask(3);
    guest.kick();
    // The flushed request still runs and counts.
    expect((await guest.usedOf(2)).map(({ head }) => head)).toEqual([first, flush]);
    await turns();
    expect([barrier.waiting, guest.takeUsed()]).toEqual([1, []]);
    // It was not taken, and is still first when the queue continues.
    const next = await guest.stopRing();
    expect(next).toBe(4);
    await guest.startRing(next);
    await turns();
    expect([barrier.waiting, guest.takeUsed()]).toEqual([1, []]);
    barrier.open();
    expect((await guest.usedOf(1))[0]!.head).toBe(second);
    for (const other of others) other.leave();
  });
});

describe('a stream', () => {
  it('goes on when the end of other sessions makes room, though none of its own requests ended', async () => {
    const tempExport = new TempExport();
    const barrier = new Barrier();
    writeFileSync(tempExport.path('f'), 'content');
    const tree = waiting(await tempExport.tree(), barrier, ['stat']);
    const server = await Server.open({ exports: [{ name: 'test', tree }], limits: { requestsInAll: 12 } });
    await server.listen(`unix://${tempExport.path('s')}`);
    const clients = await Promise.all([1, 2, 3].map(() => Client.connect({ path: tempExport.path('s') })));
    const [client, ...others] = clients;
    await client!.version(8192);
    await client!.attach('', 0xffff_ffff, 0);
    barrier.close();
    const answers = Array.from({ length: 12 }, () => client!.getattr(0));
    await until(() => barrier.waiting === 4);
    for (const other of others) await other.close();
    await until(() => barrier.waiting === 12);
    barrier.open();
    for (const answer of answers) expect(await answer).toMatchObject({ nlink: 2 });
    await client!.close();
    expect(await server.close()).toBe(true);
    tempExport.close();
  });
});
