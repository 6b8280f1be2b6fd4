import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { Attr } from '#base/attr.ts';
import * as errno from '#base/errno.ts';
import { asOwned } from '#base/owned.ts';
import { addon, addonPath } from '#host/addon.ts';
import { O_RDWR } from '#host/constants.ts';
import { inline, pool } from '#host/linux.ts';
import { serverCreds as server } from '#host/syscalls.ts';
import { descriptorsOpen, freshDirectory, n, refusal } from './host-fixture.ts';

const { path, fd: dir } = freshDirectory();

const poolThreads = () =>
  readdirSync('/proc/self/task').filter(task => {
    try {
      return readFileSync(`/proc/self/task/${task}/comm`, 'latin1') === 'ninepd-pool\n';
    } catch {
      return false; // It ended while they were counted.
    }
  }).length;

const until = async (holds: () => boolean) => {
  for (let i = 0; i < 500 && !holds(); i++) await new Promise(resolve => setTimeout(resolve, 10));
  expect(holds()).toBe(true);
};

/** A script that loads the addon without src, as another event loop or process would. It stats descriptor 0. */
const bare = (count: number, rest: string) => `
  const addon = require(${JSON.stringify(addonPath)});
  const block = new ArrayBuffer(addon.layout.bytes);
  let left = ${count};
  const kept = [];
  const { submit } = addon.attach(block, done => { if ((left -= done) === 0) finished(); });
  new Uint32Array(block, addon.layout.shim, 1)[0] = addon.shims.indexOf('stat');
  new Uint32Array(block, addon.layout.server, 1)[0] = 1;
  for (let i = 0; i < left; i++) { kept.push(new Uint8Array(176)); submit(kept[i]); }
  ${rest}`;

describe('the pool', () => {
  test('starts threads when they are needed and never more than it may', async () => {
    addon.setPoolBounds(3, 8);
    const attrs = Array.from({ length: 500 }, () => new Attr());
    await Promise.all(attrs.map(attr => pool.stat(server, dir, attr)));
    expect(poolThreads()).toBeGreaterThan(0);
    expect(poolThreads()).toBeLessThanOrEqual(3);
    expect(new Set(attrs.map(attr => attr.inoLow)).size).toBe(1);
  });

  test('ends the threads that are too many', async () => {
    addon.setPoolBounds(1, 8);
    await until(() => poolThreads() <= 1);
    await pool.stat(server, dir, new Attr());
    expect(poolThreads()).toBe(1);
  });

  test('makes the calls in the order they came when it has one thread', async () => {
    addon.setPoolBounds(1, 8);
    const order: number[] = [];
    const calls = Array.from({ length: 300 }, async (_x, i) => {
      await pool.lookup(server, dir, n('missing'));
      order.push(i);
    });
    await Promise.all(calls);
    expect(order).toEqual([...order.keys()]);
    addon.setPoolBounds(64, 8);
  });

  test('answers each call with its own result when thousands are under way', async () => {
    for (let i = 0; i < 50; i++) writeFileSync(join(path, `f${i}`), Buffer.alloc(i));
    const sizes = Array.from({ length: 5000 }, async (_x, i) => {
      const attr = new Attr();
      const answer = await pool.statAt(server, dir, n(i % 7 === 0 ? 'missing' : `f${i % 50}`), attr);
      return i % 7 === 0 ? answer === -errno.ENOENT.code : attr.size === i % 50;
    });
    expect((await Promise.all(sizes)).every(Boolean)).toBe(true);
  });

  test('keeps the memory of a call alive though nobody else does', async () => {
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc') as () => void;
    const held = inline.create(server, dir, n('memory'), O_RDWR, 0o600) as number;
    const writes: unknown[] = [];
    for (let i = 0; i < 256; i++) {
      writes.push(
        pool.write(
          server,
          held,
          [asOwned(Buffer.from(new Uint8Array(4096).fill(i))), asOwned(Buffer.alloc(1, i))],
          i * 4097,
        ),
      );
      if (i % 32 === 0) gc();
    }
    await Promise.all(writes);
    const content = readFileSync(join(path, 'memory'));
    for (let i = 0; i < 256; i++) {
      expect(content.subarray(i * 4097, (i + 1) * 4097).every(byte => byte === i)).toBe(true);
    }
    inline.close(held);
  });

  test('does not mix up a call with one that is described before it runs', async () => {
    const names = Array.from({ length: 200 }, (_x, i) => n(`mixed-${i}`));
    await Promise.all(names.map(name => pool.mkdir(server, dir, name, 0o700)));
    const made = readdirSync(path).filter(name => name.startsWith('mixed-'));
    expect(made.length).toBe(200);
    await Promise.all(names.map(name => pool.unlink(server, dir, name, true)));
  });

  test('leaves no descriptor behind under load', async () => {
    const before = descriptorsOpen();
    await Promise.all(
      Array.from({ length: 1000 }, async (_x, i) => {
        const fd = await pool.lookup(server, dir, n(`f${i % 50}`));
        await pool.close(fd);
      }),
    );
    expect(descriptorsOpen()).toBe(before);
  });
});

describe('the control block', () => {
  test('refuses text that is not bytes or has no room', async () => {
    expect(await refusal(() => inline.mkdir(server, dir, '\u012f' as never, 0o700))).toBeInstanceOf(
      RangeError,
    );
    expect(await refusal(() => inline.mkdir(server, dir, 'x'.repeat(5000) as never, 0o700))).toBe(
      errno.ENAMETOOLONG,
    );
  });

  test('is as good as new after a refused call', async () => {
    await refusal(() => inline.rename(server, dir, n('a'), dir, 'x'.repeat(5000) as never, 0));
    expect(inline.lookup(server, dir, n('missing'))).toBe(-errno.ENOENT.code);
  });

  test('data that is no Uint8Array is EINVAL', async () => {
    const attr = { bytes: new Float64Array(64) } as unknown as Attr;
    expect(await refusal(() => inline.stat(server, dir, attr))).toBe(errno.EINVAL);
    expect(await refusal(() => pool.stat(server, dir, attr))).toBe(errno.EINVAL);
    expect(await refusal(() => inline.stat(server, dir, new Attr(Buffer.alloc(10))))).toBe(errno.EINVAL);
  });
});

describe('other event loops', () => {
  test('worker threads have calls of their own, and may end while theirs are under way', async () => {
    const ends = Array.from(
      { length: 8 },
      (_x, i) =>
        new Promise<number>((resolve, reject) => {
          const rest =
            i % 2
              ? 'function finished() {}; setTimeout(() => process.exit(7), 1);'
              : 'function finished() {}';
          const worker = new Worker(bare(500, rest), { eval: true });
          worker.on('error', reject).on('exit', resolve);
        }),
    );
    const mine = Array.from({ length: 500 }, () => pool.stat(server, dir, new Attr()));
    await Promise.all(mine);
    const codes = await Promise.all(ends);
    expect(codes.every(code => code === 0 || code === 7)).toBe(true);
    await pool.stat(server, dir, new Attr());
  });

  test('a process waits for calls under way, and ends when there are none', () => {
    const rest = 'function finished() { console.log("finished"); }';
    expect(execFileSync(process.execPath, ['-e', bare(200, rest)], { timeout: 10_000 }).toString()).toBe(
      'finished\n',
    );
    expect(spawnSync(process.execPath, ['-e', bare(0, rest)], { timeout: 10_000 }).status).toBe(0);
    expect(spawnSync(process.execPath, ['-e', bare(500, `${rest}; process.exit(3)`)]).status).toBe(3);
  });
});
