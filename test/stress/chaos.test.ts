import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import { MemoryTree } from '#backend/memory/memory-tree.ts';
import { Client } from '#client/client.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { passthrough } from '#security/passthrough.ts';
import { descriptors, type Serving, serveTree } from '../support/serve.ts';
import { blockOf, ChaosClient, chaosBlocks, chaosFiles } from './chaos-client.ts';
import { progress, seed, stress } from './options.ts';
import { Random } from './random.ts';

const chaosClients = 12;
/** Fewer than the clients' fids, so that descriptors are evicted and reopened all the time. */
const descriptorsMax = 24;

const models = {
  mapped: () => mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined),
  passthrough: () => passthrough(() => undefined),
};

const trees = {
  mapped: (path: string) =>
    LocalTree.open(path, {
      descriptors: new FdBudget(descriptorsMax),
      model: models.mapped(),
    }),
  passthrough: (path: string) =>
    LocalTree.open(path, {
      descriptors: new FdBudget(descriptorsMax),
      model: models.passthrough(),
    }),
  memory: async () => new MemoryTree({ bytesMax: 1 << 26 }),
};
const minutes = (stress.minutes ?? 0.08) / 2 / Object.keys(trees).length;

describe.each(Object.entries(trees))('many connections that race with themselves, %s', (name, open) => {
  let top: string;
  let serving: Serving;
  let held: number;
  beforeEach(async () => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-chaos-'));
    held = descriptors();
    serving = await serveTree(await open(top));
  });
  afterEach(async () => {
    rmSync(top, { recursive: true });
  });

  async function withFiles(act: (client: Client, fid: number, file: number) => Promise<void>): Promise<void> {
    const client = await Client.connect({ path: serving.socket });
    for (let file = 0; file < chaosFiles; file++) await act(client, await client.attach('main', 0), file);
    await client.close();
  }

  it(`get right answers or errors, and leave nothing behind (seed ${seed})`, {
    timeout: minutes * 60_000 + 30_000,
  }, async () => {
    const whole = (file: number) =>
      Buffer.concat(Array.from({ length: chaosBlocks }, (_, block) => blockOf(file, block)));
    await withFiles(async (client, fid, file) => {
      await client.lcreate(fid, `file${file}`, 2, 0o644);
      await client.writeAll(fid, whole(file));
    });
    const random = new Random(seed);
    const address = { path: serving.socket };
    const racing = Array.from(
      { length: chaosClients },
      () => new ChaosClient(address, new Random(random.below(2 ** 31))),
    );
    const end = Date.now() + minutes * 60_000;
    let failed = false;
    const running = () => !failed && Date.now() < end;
    await Promise.all(
      racing.map(one =>
        one.run(running).catch(error => {
          failed = true;
          throw error;
        }),
      ),
    );
    await withFiles(async (client, fid, file) => {
      await client.walk(fid, [`file${file}`], fid);
      await client.lopen(fid, 0);
      const content = await client.readAll(fid);
      if (!content.equals(whole(file)))
        throw new Error(`file${file}: ${firstDifference(content, whole(file))}`);
    });
    const count = (of: (one: ChaosClient) => number) => racing.reduce((sum, one) => sum + of(one), 0);
    progress(`race: ${name}, ${count(one => one.answers)} answers, ${count(one => one.errors)} errors`);
    expect(count(one => one.answers)).toBeGreaterThan(0);
    for (const late = Date.now() + 5000; serving.connections() > 0 && Date.now() < late; ) await pause(5);
    await pause(100);
    expect(serving.connections()).toBe(0);
    expect(serving.remains()).toEqual([]);
    expect(serving.errors).toEqual([]);
    await serving.close();
    expect(descriptors()).toBeLessThanOrEqual(held);
  });
});

function firstDifference(is: Buffer, wanted: Buffer): string {
  let at = 0;
  while (is[at] === wanted[at] && at < is.length) at++;
  const show = (bytes: Buffer) => JSON.stringify(bytes.toString('latin1', at, at + 20));
  return `${is.length} bytes and at ${at} ${show(is)} instead of ${show(wanted)}`;
}

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));
