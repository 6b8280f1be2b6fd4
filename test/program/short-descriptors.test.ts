import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { Client } from '#client/client.ts';
import { Ninepd } from '../support/ninepd.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests mount file systems: run them as root (sudo npm test).');
}

const P9_RDWR = 2;
const filesPerClient = 150;
/** Number of files kept open; the others are opened in each round. Two clients together stay below the shared descriptors. */
const openPerClient = 30;
const bytesPerFile = 2000;
const rounds = 3;

/** Content that names its file at every offset. */
const content = (client: number, file: number, round: number) =>
  Buffer.from(`<client ${client} file ${file} round ${round}>`.padEnd(50, '.').repeat(bytesPerFile / 50));

interface Guest {
  readonly client: Client;
  readonly number: number;
  /** Fids of all files that are not open, and open ones of the first. */
  readonly held: number[];
  readonly open: number[];
}

/** Few, so that running calls have descriptors. */
const batch = 16;

/** Runs `act` with an open fid of each file. */
async function withEach(
  { client, held, open }: Guest,
  act: (fid: number, i: number) => Promise<void>,
): Promise<void> {
  const one = async (fid: number, i: number) => {
    if (i < open.length) return act(open[i]!, i);
    const own = await client.walk(fid, []);
    await client.lopen(own, P9_RDWR);
    await act(own, i);
    await client.clunk(own);
  };
  for (let from = 0; from < held.length; from += batch)
    await Promise.all(held.slice(from, from + batch).map((fid, i) => one(fid, from + i)));
}

// Without file handles an object is found again by name, and a name in another file system is looked up by a thread: requests for an
// object whose descriptor was closed wait, while the buffers that they arrived in are used for others.
describe('a server with fewer descriptors than objects that are held, below whose export another file system is mounted', () => {
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
    const guests = await Promise.all(
      [0, 1].map(async (number): Promise<Guest> => {
        const client = await Client.connect({ port: server.port });
        const root = await client.attach('files', 0);
        const [held, open]: [number[], number[]] = [[], []];
        for (let i = 0; i < filesPerClient; i++) {
          const fid = await client.walk(root, 'sub');
          const name = `f${number}-${i}`;
          await client.wire.request('lcreate', { fid, name, flags: P9_RDWR, mode: 0o644, gid: 0 });
          if (i < openPerClient) open.push(fid);
          else await client.clunk(fid);
          held.push(await client.walk(root, ['sub', name]));
        }
        return { client, number, held, open };
      }),
    );
    for (let round = 0; round < rounds; round++) {
      await Promise.all(
        guests.map(guest =>
          withEach(guest, async (fid, i) =>
            expect(await guest.client.write(fid, 0, content(guest.number, i, round))).toBe(bytesPerFile),
          ),
        ),
      );
      for (const { number, held } of guests) {
        for (const i of held.keys()) {
          expect(`${readFileSync(join(sub, `f${number}-${i}`))}`).toBe(`${content(number, i, round)}`);
        }
      }
      await Promise.all(
        guests.map(guest =>
          withEach(guest, async (fid, i) =>
            expect(`${await guest.client.read(fid, 0, bytesPerFile)}`).toBe(
              `${content(guest.number, i, round)}`,
            ),
          ),
        ),
      );
    }
    const listings = await Promise.all(
      guests.map(async ({ client }) => {
        const fid = await client.walk(await client.attach('files', 0), 'sub');
        await client.lopen(fid, 0);
        return client.readdir(fid);
      }),
    );
    for (const listing of listings) expect(listing).toHaveLength(2 + 2 * filesPerClient);
    for (const { client } of guests) await client.wire.close();
  });
});

describe('two workers with few descriptors', () => {
  const opened = 20;
  const held = 600;
  let top: string;
  let server: Ninepd;

  beforeAll(async () => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-short-'));
    chmodSync(top, 0o777);
    for (let i = 0; i < held; i++) writeFileSync(join(top, `held${i}`), '');
    server = await Ninepd.start({
      exports: [{ path: top, name: 'files', securityModel: 'mapped' }],
      openFilesMax: 300,
      // Log level that names the worker of each connection.
      args: ['--workers', '2', '--log-level', 'debug'],
    });
  });
  afterAll(async () => {
    await server.stop();
    rmSync(top, { recursive: true });
  });

  it('keep what is open when a guest of the other renames and removes it', async () => {
    const [a, b] = [await Client.connect({ port: server.port }), await Client.connect({ port: server.port })];
    const [rootOfA, rootOfB] = [await a.attach('files', 0), await b.attach('files', 0)];
    await vi.waitFor(() =>
      expect([...server.log().matchAll(/worker (\d): .*: connected/g)].map(([, one]) => one).sort()).toEqual([
        '1',
        '2',
      ]),
    );
    await a.mkdir(rootOfA, 'dir');
    const fids: number[] = [];
    for (let i = 0; i < opened; i++) {
      const fid = await a.walk(rootOfA, 'dir');
      await a.wire.request('lcreate', { fid, name: `f${i}`, flags: P9_RDWR, mode: 0o644, gid: 0 });
      await a.writeAll(fid, content(0, i, 0));
      fids.push(fid);
    }
    for (let i = 0; i < held; i++) await a.walk(rootOfA, `held${i}`);
    const dirOfB = await b.walk(rootOfB, 'dir');
    for (let i = 0; i < opened; i++) {
      const [olddirfid, newdirfid] = [dirOfB, i % 2 ? rootOfB : dirOfB];
      if (i % 3 === 0) await b.wire.request('unlinkat', { dirfid: dirOfB, name: `f${i}`, flags: 0 });
      else await b.wire.request('renameat', { olddirfid, oldname: `f${i}`, newdirfid, newname: `g${i}` });
    }
    await b.wire.request('renameat', {
      ...{ olddirfid: rootOfB, oldname: 'dir', newdirfid: rootOfB, newname: 'moved' },
    });
    for (const [i, fid] of fids.entries()) {
      expect(`${await a.read(fid, 0, bytesPerFile)}`).toBe(`${content(0, i, 0)}`);
      expect(await a.write(fid, 0, content(0, i, 1))).toBe(bytesPerFile);
      expect((await a.getattr(fid)).nlink).toBe(i % 3 === 0 ? 0 : 1);
    }
    for (const client of [a, b]) await client.wire.close();
  });
});
