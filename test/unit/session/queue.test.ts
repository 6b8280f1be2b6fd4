import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { nameOf } from '#base/name.ts';
import type { Submitter, Syscalls } from '#host/syscalls.ts';
import { SessionHarness, TempExport } from './harness.ts';

let tempExport: TempExport;
beforeEach(() => {
  tempExport = new TempExport();
});
afterEach(() => tempExport.close());

it('submits every call of a request to the queue of its session', async () => {
  const tree = await tempExport.tree();
  const { volume } = tree.root;
  /** The queues of the calls with a name that begins with this letter. */
  const queues: Record<string, Set<number>> = { a: new Set(), b: new Set() };
  const calls = new Set<string>();
  const pool = volume.pool;
  const counted = (submitter: Submitter) =>
    new Proxy(pool(submitter), {
      get(sys, property) {
        const call = (sys[property as keyof Syscalls] as (...args: unknown[]) => unknown).bind(sys);
        return (...args: unknown[]) => {
          const name = args.find(arg => typeof arg === 'string' && /^[ab]\d/.test(arg)) as string | undefined;
          if (name !== undefined) {
            queues[name[0]!]!.add(submitter.queue);
            calls.add(String(property));
          }
          return call(...args);
        };
      },
    });
  Object.defineProperties(volume, {
    local: { value: false },
    inline: { value: undefined },
    pool: { value: counted },
    sysForNew: { value: counted },
  });

  const use = async (letter: string) => {
    const harness = await new SessionHarness(tree).begin();
    for (let i = 0; i < 10; i++) {
      const [name, other] = [nameOf(`${letter}${i}`), nameOf(`${letter}${i}-renamed`)];
      writeFileSync(tempExport.path(`${name}-host`), '');
      await harness.request('walk', { fid: 0, newfid: 1, wname: [nameOf(`${name}-host`)] });
      await harness.request('mkdir', { dfid: 0, name, mode: 0o755, gid: 0 });
      await harness.request('renameat', { olddirfid: 0, oldname: name, newdirfid: 0, newname: other });
      await harness.request('unlinkat', { dirfid: 0, name: other, flags: 0x200 });
      await harness.request('clunk', { fid: 1 });
    }
    await harness.session.close();
  };
  await Promise.all([use('a'), use('b')]);
  const [a, b] = [[...queues.a!], [...queues.b!]];
  expect([a.length, b.length]).toEqual([1, 1]);
  expect(a[0]).not.toBe(b[0]);
  expect(a[0]! * b[0]!).not.toBe(0);
  expect([...calls].sort()).toEqual(['lookup', 'rename', 'statAt', 'unlink']);
});
