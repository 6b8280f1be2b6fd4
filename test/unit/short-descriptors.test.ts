import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Client } from '../../src/client/client.ts';
import { Ninepd } from '../support/ninepd.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests mount file systems: run them as root (sudo npm test).');
}

const P9_RDWR = 2;
const filesPerClient = 150;
const bytesPerFile = 2000;
const rounds = 3;

/** Content that tells whose it is, wherever one looks. */
const content = (client: number, file: number, round: number) =>
  Buffer.from(`<client ${client} file ${file} round ${round}>`.padEnd(50, '.').repeat(bytesPerFile / 50));

/** Few enough that the descriptors of running calls are there. */
const batch = 16;

async function inBatches(fids: number[], act: (fid: number, i: number) => Promise<void>): Promise<void> {
  for (let from = 0; from < fids.length; from += batch)
    await Promise.all(fids.slice(from, from + batch).map((fid, i) => act(fid, from + i)));
}

// Without file handles an object is found again by name, and a name in another file system is looked up by a thread: requests for a file
// whose descriptor was closed wait, while the buffers that they arrived in are used for others.
describe('a server with fewer descriptors than open files, below whose export another file system is mounted', () => {
  let top: string;
  let sub: string;
  let server: Ninepd;

  beforeAll(async () => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-short-'));
    chmodSync(top, 0o777);
    sub = join(top, 'sub');
    mkdirSync(sub);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=777', 'none', sub]);
    server = await Ninepd.start({
      exports: [{ path: top, name: 'files', securityModel: 'mapped' }],
      openFilesMax: 300,
    });
  });
  afterAll(async () => {
    await server.stop();
    execFileSync('umount', ['-l', sub]);
    rmSync(top, { recursive: true });
  });

  it('gives every reader its own bytes and writes none but those of the request', async () => {
    const clients = await Promise.all(
      [0, 1].map(async number => {
        const client = await Client.connect({ port: server.port });
        const root = await client.attach('files', 0);
        const fids: number[] = [];
        for (let i = 0; i < filesPerClient; i++) {
          const fid = await client.walk(root, 'sub');
          const name = `f${number}-${i}`;
          await client.wire.request('lcreate', { fid, name, flags: P9_RDWR, mode: 0o644, gid: 0 });
          fids.push(fid);
        }
        return { client, fids, number };
      }),
    );
    for (let round = 0; round < rounds; round++) {
      await Promise.all(
        clients.map(({ client, fids, number }) =>
          inBatches(fids, async (fid, i) =>
            expect(await client.write(fid, 0, content(number, i, round))).toBe(bytesPerFile),
          ),
        ),
      );
      for (const { fids, number } of clients) {
        for (const i of fids.keys()) {
          expect(`${readFileSync(join(sub, `f${number}-${i}`))}`).toBe(`${content(number, i, round)}`);
        }
      }
      await Promise.all(
        clients.map(({ client, fids, number }) =>
          inBatches(fids, async (fid, i) =>
            expect(`${await client.read(fid, 0, bytesPerFile)}`).toBe(`${content(number, i, round)}`),
          ),
        ),
      );
    }
    const listings = await Promise.all(
      clients.map(async ({ client }) => {
        const fid = await client.walk(await client.attach('files', 0), 'sub');
        await client.lopen(fid, 0);
        return client.readdir(fid);
      }),
    );
    for (const listing of listings) expect(listing).toHaveLength(2 + 2 * filesPerClient);
    for (const { client } of clients) await client.wire.close();
  });
});
