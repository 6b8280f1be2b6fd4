import { execFileSync } from 'node:child_process';
import { chmodSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { addonPath } from '#host/addon.ts';
import { freshDirectory } from './host-fixture.ts';

const directory = freshDirectory();
chmodSync(directory.path, 0o777);

/**
 * A server under another uid with ambient capabilities, as with systemd's AmbientCapabilities=. Prints its uids, groups and
 * capabilities before and after each call as (uid, gid), and the call's result. Each call makes a directory, on this thread or
 * on the only pool thread.
 */
function capable(
  path: string,
  prefix: string,
  ids: readonly (readonly [number, number])[],
  onPool = false,
): string[] {
  const script = `
    const { layout, shims, attach, setPoolBounds } = require(${JSON.stringify(addonPath)});
    const block = new ArrayBuffer(layout.bytes);
    setPoolBounds(1, 1);
    let finished;
    const { run, submit } = attach(block, () => finished(new Int32Array(block, layout.done)[1]));
    const onPool = () => new Promise(resolve => { finished = resolve; submit(); });
    const set = (field, ...values) => new Int32Array(block, layout[field]).set(values);
    const state = () => require('fs').readFileSync('/proc/thread-self/status', 'latin1')
      .match(/^(Uid|Gid|Groups|CapEff):.*$/gm).join(' ').replace(/\\s+/g, ' ');
    console.log(state());
    const dir = require('fs').openSync(${JSON.stringify(path)});
    const make = async () => {
    for (const [i, [uid, gid]] of ${JSON.stringify(ids)}.entries()) {
      const name = ${JSON.stringify(prefix)} + i;
      set('shim', shims.indexOf('mkdir'));
      set('number', dir, 0o700);
      set('uid', uid, gid, 0);
      set('textBytes', name.length, 0);
      new Uint8Array(block, layout.texts).set(Buffer.from(name + '\\0\\0'));
      console.log(${onPool} ? await onPool() : run(), state());
    }};
    make();`;
  const caps = ['setuid', 'setgid', 'chown', 'dac_override', 'fowner'].map(cap => `+${cap}`).join(',');
  const become = [
    '--reuid=990',
    '--regid=990',
    '--groups=990,991',
    `--inh-caps=${caps}`,
    `--ambient-caps=${caps}`,
  ];
  return execFileSync('setpriv', [...become, process.execPath, '-e', script])
    .toString()
    .trim()
    .split('\n');
}

const owners = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, i) => {
    const { uid, gid } = statSync(join(directory.path, `${prefix}${i}`));
    return [uid, gid];
  });

test('a server that is not root but has the capabilities becomes its callers and is itself again', () => {
  const callers = [
    [1000, 2000],
    [0, 0],
    [1001, 990],
  ] as const;
  const [before, ...after] = capable(directory.path, 'by', callers);
  expect(before).toMatch(/^Uid: 990 990 990 990 .* Groups: 990 991 CapEff: 0+cb$/);
  expect(after).toEqual([`0 ${before}`, `0 ${before}`, `0 ${before}`]);
  expect(owners('by', callers.length)).toEqual(callers);
});

test('it becomes one caller after the other on a thread of the pool', () => {
  const callers = [
    [1000, 2000],
    [1001, 2000],
    [0, 2000],
    [990, 2000],
    [1000, 2000],
    [990, 990],
    [1001, 2001],
  ] as const;
  const [before, ...after] = capable(directory.path, 'turn', callers, true);
  expect(after).toEqual(callers.map(() => `0 ${before}`));
  expect(owners('turn', callers.length)).toEqual(callers);
});
