import { execFileSync } from 'node:child_process';
import { chmodSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { freshDirectory } from './host-fixture.ts';

const directory = freshDirectory();
chmodSync(directory.path, 0o777);

/**
 * A server under another uid with capabilities of its own, as systemd's AmbientCapabilities= makes it: what it prints are
 * its uids, groups and capabilities before, and after each call as (uid, gid), with the call's result.
 */
function capable(path: string, ids: readonly (readonly [number, number])[]): string[] {
  const addon = createRequire(import.meta.url).resolve(process.env.NINEPD_ADDON ?? 'native-shims');
  const script = `
    const { layout, shims, attach } = require(${JSON.stringify(addon)});
    const block = new ArrayBuffer(layout.bytes);
    const { run } = attach(block, () => {});
    const set = (field, ...values) => new Int32Array(block, layout[field]).set(values);
    const state = () => require('fs').readFileSync('/proc/thread-self/status', 'latin1')
      .match(/^(Uid|Gid|Groups|CapEff):.*$/gm).join(' ').replace(/\\s+/g, ' ');
    console.log(state());
    const dir = require('fs').openSync(${JSON.stringify(path)});
    for (const [uid, gid] of ${JSON.stringify(ids)}) {
      const name = 'by' + uid;
      set('shim', shims.indexOf('mkdir'));
      set('number', dir, 0o700);
      set('uid', uid, gid, 0);
      set('textBytes', name.length, 0);
      new Uint8Array(block, layout.texts).set(Buffer.from(name + '\\0\\0'));
      console.log(run(), state());
    }`;
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

test('a server that is not root but has the capabilities becomes its callers and is itself again', () => {
  const { path } = directory;
  const [before, ...after] = capable(path, [
    [1000, 2000],
    [0, 0],
    [1001, 990],
  ]);
  expect(before).toMatch(/^Uid: 990 990 990 990 .* Groups: 990 991 CapEff: 0+cb$/);
  expect(after).toEqual([`0 ${before}`, `0 ${before}`, `0 ${before}`]);
  const owners = ['by1000', 'by0', 'by1001'].map(name => statSync(join(path, name)));
  expect(owners.map(({ uid, gid }) => [uid, gid])).toEqual([
    [1000, 2000],
    [0, 0],
    [1001, 990],
  ]);
});
