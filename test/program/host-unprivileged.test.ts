import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { Attr } from '#base/attr.ts';
import * as errno from '#base/errno.ts';
import { O_RDWR } from '#host/constants.ts';
import { inline, pool } from '#host/linux.ts';
import { effectiveCapabilities } from '#host/process.ts';
import { serverCreds as server } from '#host/syscalls.ts';
import { n, refusal } from './host-fixture.ts';

// This file's process gives up its privileges for good; every file of tests has a process of its own.
process.setgroups!([]);
process.setgid!(65_534);
process.setuid!(65_534);

const path = mkdtempSync(join(tmpdir(), 'ninepd-host-'));
const dir = openSync(path, 'r');
afterAll(() => {
  closeSync(dir);
  rmSync(path, { recursive: true });
});

const status = () =>
  readFileSync('/proc/thread-self/status', 'latin1').match(/^(Uid|Gid|Groups|CapEff):.*$/gm);

describe.each([
  ['inline', inline],
  ['on the pool', pool],
])('a server without privileges, %s', (where, sys) => {
  test('serves as itself', async () => {
    const fd = await sys.create(server, dir, n(`own ${where}`), O_RDWR, 0o600);
    const attr = new Attr();
    await sys.stat(server, fd, attr);
    await sys.close(fd);
    expect([attr.uid, attr.gid]).toEqual([65_534, 65_534]);
    expect(effectiveCapabilities().size).toBe(0);
  });

  test('refuses a caller that it cannot become, with nothing done and nothing changed', async () => {
    const before = status();
    for (const creds of [
      { uid: 1000, gid: 1000, groups: [] },
      { uid: 65_534, gid: 1000, groups: [] },
      { uid: 65_534, gid: 65_534, groups: [4] },
      { uid: 0, gid: 0, groups: [] },
    ]) {
      expect(await refusal(() => sys.mkdir(creds, dir, n('never'), 0o700))).toBe(errno.EPERM);
    }
    expect(await sys.lookup(server, dir, n('never'))).toBe(-errno.ENOENT.code);
    expect(status()).toEqual(before);
  });

  test('becomes a caller that is itself', async () => {
    await sys.mkdir({ uid: 65_534, gid: 65_534, groups: [] }, dir, n(`same ${where}`), 0o700);
  });

  test('has no handles to open', async () => {
    const handle = await sys.handle(dir);
    if (handle !== undefined) expect(await sys.openHandle(dir, handle)).toBe(-errno.EPERM.code);
  });
});
