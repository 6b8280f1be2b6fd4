import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { sharedFixture } from './fixture.ts';
import { overTcp } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';
import { testMounts } from './suites/mounts.ts';

const over = sharedFixture(HostFixture.over(overTcp));

testMounts('mapped', over, [4096, 8192, 61_464, 1_048_576]);
testMounts('passthrough', over, [1_048_576]);

describe('a server that goes away', () => {
  let dir: string;
  let guest: Guest;
  let server: Ninepd;
  const start = () =>
    Ninepd.start({ exports: [{ path: join(dir, 'first'), name: 'first', securityModel: 'mapped' }] });
  const mount = () => guest.mount({ trans: 'tcp', port: server.port, aname: 'first', path: '/mnt/a' });

  beforeAll(async () => {
    dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-export-')));
    mkdirSync(join(dir, 'first'));
    writeFileSync(join(dir, 'first/here'), 'first\n');
    server = await start();
    guest = await Guest.start({ cpus: 1 });
  });
  afterAll(async () => {
    await guest?.stop();
    await server?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  test('because it is told to stop ends well, and the guest gets errors and can unmount', async () => {
    await mount();
    await guest.sh('exec 3</mnt/a/here; cat <&3');
    expect(await server.stop()).toBe(0);
    await guest.sh('! ls /mnt/a; ! cat /mnt/a/here', { timeout: 10_000 });
    await guest.umount('/mnt/a');
    server = await start();
    await mount();
    expect((await guest.sh('cat /mnt/a/here')).stdout).toBe('first');
  });

  test('because it is killed gives an error to tasks of the guest that wait, and a new mount works', async () => {
    const waiting = guest.sh(
      'lock posix /mnt/a/here write 0 0 & sleep 1; ! cat /mnt/a/here; kill -9 $!; wait $! || true',
      {
        timeout: 20_000,
      },
    );
    await new Promise(resolve => setTimeout(resolve, 500));
    process.kill(server.pid, 'SIGKILL');
    await waiting;
    await guest.umount('/mnt/a');
    server = await start();
    await mount();
    expect((await guest.sh('cat /mnt/a/here')).stdout).toBe('first');
    await guest.umount('/mnt/a');
  });

  test('the guest kernel has nothing to complain about', async () => {
    expect(await guest.complaints()).toEqual([]);
  });
});
