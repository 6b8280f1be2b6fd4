import { mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Guest } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { cell, prelude } from './check.ts';
import { sharedFixture, testChecks } from './fixture.ts';
import { hybridMsize, overHybridVsock, VsockDevice, vsockPort } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';
import { checks } from './suites/checks.ts';
import { testCoherence } from './suites/coherence.ts';
import { testLocks } from './suites/locks.ts';
import { testMounts } from './suites/mounts.ts';
import { testQemuTrees } from './suites/qemu.ts';

// A vsock device in a process of this machine: needs no vsock in this machine's kernel.

const over = sharedFixture(HostFixture.over(overHybridVsock));

testChecks('the checks over a hybrid vsock', [cell('mapped', 'none')], checks, over);
testLocks('mapped', sharedFixture(HostFixture.over(overHybridVsock, { cpus: 2 })));
testCoherence('mapped', over);
testMounts('mapped', over, [4096, hybridMsize]);
testQemuTrees(over, 'mapped');

describe('a server behind a hybrid vsock', () => {
  let dir: string;
  let device: VsockDevice;
  let guest: Guest;
  let server: Ninepd | undefined;
  const serve = async () => {
    server = await Ninepd.start({
      exports: [{ path: dir, name: 'files', securityModel: 'mapped' }],
      listen: [`unix://${device.path}`],
    });
    return server;
  };
  const mount = `mount -t 9pvsock -o retry=30,aname=files,access=client,msize=${hybridMsize} 2:${vsockPort} /mnt/h`;

  beforeAll(async () => {
    dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-export-')));
    device = await VsockDevice.start();
    guest = await Guest.start({ cpus: 1, ...device.guest });
    await guest.sh('guest-module vmw_vsock_virtio_transport; mkdir /mnt/h');
  });
  afterAll(async () => {
    await guest?.stop();
    await device?.stop();
    await server?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  test('may come after the guest, which says what it misses and waits if it is told to', async () => {
    const { stderr } = await guest.sh(`mount -t 9pvsock 2:${vsockPort} /mnt/h`, { expectCode: 32 });
    // This device does not reply; others reset the connection.
    expect(stderr).toMatch(/: (nobody answers|nothing listens there); .* -o retry=SECONDS/);
    const waiting = guest.sh(`${mount}; echo one > /mnt/h/f`);
    await guest.sh('sleep 1');
    const started = await serve();
    await waiting;
    expect(readFileSync(join(dir, 'f'), 'utf8')).toBe('one\n');
    expect(started.log()).toMatch(
      /in the guest with this vsock: mount -t 9pvsock -o msize=32768,aname=files/,
    );
  });

  test('that is killed costs the mount, and the device finds the next one by its name', async () => {
    process.kill(server!.pid, 'SIGKILL');
    await guest.sh(`${prelude} fails 'Input/output error' stat /mnt/h/f; umount /mnt/h`);
    await serve();
    await guest.sh(`${mount}; [ "$(cat /mnt/h/f)" = one ]; umount /mnt/h`);
    expect(await guest.complaints()).toEqual([]);
  });

  test('hears of a guest that is gone', async () => {
    await guest.sh(`${mount}; exec 3>/mnt/h/open`);
    await guest.stop();
    await expect.poll(() => server!.log(), { timeout: 5000 }).toMatch(/: closed\n$/);
    await expect.poll(() => server!.descriptorsBelow(dir).filter(path => path !== dir)).toEqual([]);
  });
});
