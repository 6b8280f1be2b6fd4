import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { Server } from '#server.ts';

const dirs = 100;
const filesPerDir = 1000;
const fidsPerFile = 10;
/** Descriptors of the server, whatever the machine's limit is. */
const descriptorsMax = 20_000;

/** A million fids on a hundred thousand objects, many more than descriptors. */
export function describeMillionFids(title: string, securityModel: 'mapped' | 'passthrough'): void {
  describe(`a million fids, ${title}`, () => {
    let dir: string;
    let server: Server;
    let client: Client;
    let root: number;

    beforeAll(async () => {
      dir = mkdtempSync(join(tmpdir(), 'ninepd-million-'));
      for (let d = 0; d < dirs; d++) {
        mkdirSync(join(dir, `d${d}`));
        for (let f = 0; f < filesPerDir; f++) writeFileSync(join(dir, `d${d}`, `f${f}`), '');
      }
      server = await Server.open({ exports: [{ path: dir, securityModel }] });
      await server.listen(`unix://${join(dir, 'socket')}`);
      client = await Client.connect({ path: join(dir, 'socket') });
      root = await client.attach('', 0);
    }, 400_000);
    afterAll(async () => {
      await client.close();
      await server.close();
      rmSync(dir, { recursive: true });
    });

    it('are all held, answer for their own object, and are let go of', { timeout: 600_000 }, async () => {
      const fids: number[] = [];
      for (let d = 0; d < dirs; d++) {
        const parent = await client.walk(root, `d${d}`);
        for (let round = 0; round < fidsPerFile; round++) {
          const batch: Promise<number>[] = [];
          for (let f = 0; f < filesPerDir; f++) batch.push(client.walk(parent, [`f${f}`]));
          fids.push(...(await Promise.all(batch)));
        }
        await client.clunk(parent);
      }
      expect(fids.length).toBe(1_000_000);
      expect(readdirSync('/proc/self/fd').length).toBeLessThan(descriptorsMax);
      // One in a thousand, oldest first: their descriptors were evicted long ago.
      const paths = new Set<string>();
      for (let i = 0; i < fids.length; i += 1009) {
        const attr = await client.getattr(fids[i]!);
        expect(attr.nlink).toBe(1);
        paths.add(`${attr.qid.pathHigh}:${attr.qid.pathLow}`);
      }
      expect(paths.size).toBeGreaterThan(900);
      const file = await client.walk(fids[0]!);
      await client.lopen(file, 2);
      await client.writeAll(file, Buffer.from('still here'));
      expect((await client.getattr(fids[0]!)).size).toBe(10);
      await client.clunk(file);
      for (let i = 0; i < fids.length; i += 1000) await client.clunk(...fids.slice(i, i + 1000));
      expect(readdirSync('/proc/self/fd').length).toBeLessThan(200);
    });
  });
}
