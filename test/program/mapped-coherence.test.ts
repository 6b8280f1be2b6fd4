import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setAttributeSync } from 'fs-xattr';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { Ninepd } from '../support/ninepd.ts';

/** Granularity of the kernel's clock for ctime (HZ=250). */
const tickMs = 4;
const rounds = 300;

// A server reuses cached attributes while ctime is unchanged. They can be stale only after a change within the clock tick in
// which the server read them, which leaves ctime the same.
let dir: string;
const servers: Ninepd[] = [];
const clients: { client: Client; fid: number }[] = [];

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'ninepd-coherence-'));
  writeFileSync(join(dir, 'file'), '', { mode: 0o600 });
  record(0o644, 1000);
  for (let i = 0; i < 2; i++) {
    const server = await Ninepd.start({ exports: [{ path: dir, name: 'tree', securityModel: 'mapped' }] });
    servers.push(server);
    const client = await Client.connect({ host: '127.0.0.1', port: server.port });
    clients.push({ client, fid: await client.walk(await client.attach('tree', 0), ['file']) });
  }
}, 60_000);

afterAll(async () => {
  for (const { client } of clients) await client.close();
  for (const server of servers) await server.stop();
  rmSync(dir, { recursive: true });
}, 60_000);

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** Changes the record as a program on the host would, without a server. */
function record(permissions: number, uid: number): void {
  setAttributeSync(join(dir, 'file'), 'user.virtfs.mode', word(0o100000 | permissions));
  setAttributeSync(join(dir, 'file'), 'user.virtfs.uid', word(uid));
}

async function shown(): Promise<[string, number][]> {
  const all = await Promise.all(clients.map(({ client, fid }) => client.getattr(fid)));
  return all.map(({ mode, uid }) => [(mode & 0o7777).toString(8), uid]);
}

it('shows a change by the host or another server at once, also within the clock tick of its last read', async () => {
  let withinTick = 0;
  for (let round = 0; round < rounds; round++) {
    const permissions = round % 0o1000;
    const began = performance.now();
    record(permissions, round);
    const seen: [string, number] = [permissions.toString(8), round];
    expect(await shown()).toEqual([seen, seen]);
    const { client, fid } = clients[round % 2]!;
    await client.setattr(fid, { mode: permissions ^ 0o111, uid: round + 1 });
    const changed: [string, number] = [(permissions ^ 0o111).toString(8), round + 1];
    expect(await shown()).toEqual([changed, changed]);
    if (performance.now() - began < tickMs) withinTick++;
  }
  expect(withinTick).toBeGreaterThan(0);
}, 60_000);

it('shows at once what a program on the host does to a file without a record', async () => {
  const plain = join(dir, 'plain');
  writeFileSync(plain, '');
  const fids = await Promise.all(
    clients.map(async ({ client }) => client.walk(await client.attach('tree', 0), ['plain'])),
  );
  for (let round = 0; round < rounds; round++) {
    const permissions = 0o400 | (round % 0o100);
    chmodSync(plain, permissions);
    const modes = await Promise.all(
      clients.map(async ({ client }, i) => (await client.getattr(fids[i]!)).mode & 0o7777),
    );
    expect(modes).toEqual([permissions, permissions]);
  }
}, 60_000);
