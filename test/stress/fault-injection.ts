import { EEXIST, EINTR, type Errno } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import { type Address, Disconnected } from '#client/wire.ts';
import { encodeRequest } from '#protocol/codec.ts';
import { Frontend } from '../support/vhost-frontend.ts';
import type { Random } from './random.ts';

const O_RDWR = 2;
const F_WRLCK = 1;
const LOCK_BLOCK = 1;
const lingerMs = 300;

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));

/** Address of a server, name of an export, and socket of its virtio-9p device. */
export interface Targets {
  readonly address: Address;
  readonly aname: string;
  readonly vhostUser?: string;
}

/** Awaits all requests; throws any error that is not allowed. */
async function settle(requests: readonly Promise<unknown>[], ...allowed: readonly Errno[]): Promise<void> {
  for (const result of await Promise.allSettled(requests)) {
    if (result.status === 'fulfilled' || allowed.includes(result.reason as Errno)) continue;
    throw result.reason;
  }
}

async function scratch(client: Client, aname: string): Promise<{ root: number; fid: number }> {
  const root = await client.attach(aname, 0);
  const fid = await client.walk(root);
  try {
    await client.lcreate(fid, 'scratch', O_RDWR);
  } catch (error) {
    if (error !== EEXIST) throw error;
    await client.walk(root, ['scratch'], fid);
    await client.lopen(fid, O_RDWR);
  }
  return { root, fid };
}

const lockOf = (client_id: string) => ({
  type: F_WRLCK,
  flags: LOCK_BLOCK,
  start: 0,
  length: 0,
  proc_id: 1,
  client_id,
});

/** Reads, writes, walks and waiting locks, flushed in another order. */
export async function flushStorm({ address, aname }: Targets, random: Random): Promise<void> {
  const client = await Client.connect(address);
  const { root, fid } = await scratch(client, aname);
  await client.lock(fid, lockOf('holder'));
  const { wire } = client;
  const running: { tag: number; reply: Promise<unknown> }[] = [];
  for (let i = 0; i < 64; i++) {
    const tag = wire.freeTag();
    const kind = random.below(4);
    const bytes = random.bytes(random.below(20_000));
    const reply =
      kind === 0
        ? wire.request('read', { fid, offset: random.below(50_000), count: 20_000 }, tag)
        : kind === 1
          ? wire.request(
              'write',
              { fid, offset: random.below(50_000), data: { count: bytes.length, bytes } },
              tag,
            )
          : kind === 2
            ? wire.request('lock', { fid, ...lockOf(`waiter ${i}`) }, tag)
            : wire.request('walk', { fid: root, newfid: client.newFid(), wname: [] }, tag);
    reply.catch(() => undefined);
    running.push({ tag, reply });
  }
  const order = [...running].sort(() => random.below(3) - 1);
  await settle(order.map(({ tag }) => wire.flush(tag)));
  await settle(
    running.map(({ reply }) => reply),
    EINTR,
  );
  if (random.oneIn(2)) await client.version(65_536);
  await client.close();
}

/** Disconnects with many fids, locks and running requests. */
export async function abandon({ address, aname }: Targets, random: Random): Promise<void> {
  const client = await Client.connect(address);
  const { root, fid } = await scratch(client, aname);
  const many = Array.from({ length: 200 }, () => client.walk(root));
  await settle(many);
  const requests: Promise<unknown>[] = [
    client.lock(fid, lockOf('one')),
    client.lock(fid, lockOf('two')),
    ...Array.from({ length: 40 }, () => client.write(fid, random.below(100_000), random.bytes(30_000))),
    ...Array.from({ length: 40 }, () => client.read(fid, random.below(100_000), 100_000)),
    client.fsync(fid),
  ];
  for (const one of requests) one.catch(() => undefined);
  await pause(random.below(8));
  client.wire.socket.destroy();
  await client.wire.closed;
}

/** Sends random bytes, an incomplete frame, or nothing. */
export async function sendGarbage({ address }: Targets, random: Random): Promise<void> {
  const client = await Client.connect(address);
  const kind = random.below(3);
  if (kind === 0) client.wire.send(random.bytes(2000));
  if (kind === 1) client.wire.send(Buffer.from([0, 0, 1, 0, 100, 1, 0, 9]));
  await pause(random.below(lingerMs));
  await client.close();
}

/** A monitor that dies with requests in the ring. */
export async function dyingMonitor({ vhostUser, aname }: Targets, random: Random): Promise<void> {
  if (vhostUser === undefined) return;
  const guest = await Frontend.connect(vhostUser);
  try {
    if (random.oneIn(4)) return;
    await guest.start();
    if (random.oneIn(4)) return;
    await guest.attach(aname);
    for (let i = 0; i < 30; i++) {
      await guest.request('walk', { fid: 0, newfid: 1 + i, wname: [] });
    }
    for (let i = 0; i < 20; i++) {
      const frame = encodeRequest('walk', 100 + i, { fid: 0, newfid: 100 + i, wname: [] });
      guest.chain(
        [{ address: guest.put(frame), length: frame.length }],
        [{ address: guest.room(512), length: 512 }],
      );
    }
    guest.kick();
    if (random.oneIn(2)) await pause(random.below(3));
  } finally {
    guest.close();
  }
}

/** Increments a number in a file under a lock. */
export async function countUnderLock(client: Client, fid: number, me: string): Promise<void> {
  while ((await client.lock(fid, lockOf(me))) !== 0) await pause(5);
  const count = (await client.read(fid, 0, 8)).toString('latin1') || '00000000';
  await client.writeAll(fid, Buffer.from(String(Number(count) + 1).padStart(8, '0'), 'latin1'));
  await client.lock(fid, { ...lockOf(me), type: 2 });
}

export const isCut = (error: unknown) => error instanceof Disconnected;
