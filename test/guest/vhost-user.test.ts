import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Guest, type GuestOptions } from '../support/guest.ts';
import { Ninepd } from '../support/ninepd.ts';
import { cell, type Model } from './check.ts';
import { sharedFixture, testChecks } from './fixture.ts';
import { overVhostUser, sharedMemory, vhostUserDevice } from './guest-transport.ts';
import { HostFixture } from './host-fixture.ts';
import { checks } from './suites/checks.ts';
import { testCoherence } from './suites/coherence.ts';
import { testLocks } from './suites/locks.ts';
import { testMounts } from './suites/mounts.ts';
import { testQemuTrees } from './suites/qemu.ts';

// ninepd as the guest's virtio-9p device, through QEMU's generic vhost-user device.

const memoryArgs = sharedMemory(768);

let dir: string;
let server: Ninepd;
let guest: Guest;

const models: Model[] = ['mapped', 'passthrough'];
const socket = (tag: string): string => join(dir, `${tag}.sock`);

/** One export for each model, each with a device of its own. */
async function serve(devices: readonly (readonly [tag: string, model: Model])[]): Promise<void> {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-vhost-')));
  for (const model of models) mkdirSync(join(dir, model));
  server = await Ninepd.start({
    exports: models.map(model => ({ path: join(dir, model), name: model, securityModel: model })),
    listen: devices.map(([tag, model]) => `vhost-user://${socket(tag)}?tag=${tag}&export=${model}`),
  });
}

async function end(): Promise<void> {
  await guest?.stop();
  expect(await server?.stop()).toBe(0);
  rmSync(dir, { recursive: true, force: true });
}

/** The server's warnings and errors. */
const complaints = () =>
  server
    .log()
    .split('\n')
    .filter(line => / (WARN|ERROR|FATAL): /.test(line));

/** Guest memory that ninepd has mapped. */
const memoryMapped = () =>
  readFileSync(`/proc/${server.pid}/maps`, 'latin1')
    .split('\n')
    .filter(line => line.includes('memfd:memory-backend'));

const mount = (tag: string) => guest.mount({ trans: 'virtio', tag, path: `/mnt/${tag}`, msize: 512_000 });

const over = sharedFixture(HostFixture.over(overVhostUser));
// With two processors, which send requests concurrently.
const overBusy = sharedFixture(HostFixture.over(overVhostUser, { cpus: 2 }));

testChecks(
  'the checks on a virtio-9p device',
  [cell('mapped', 'none'), cell('passthrough', 'none')],
  checks,
  over,
);
for (const model of models) {
  testLocks(model, overBusy);
  testCoherence(model, over);
  testMounts(model, over, [4096, 512_000]);
}
testQemuTrees(over, 'mapped');

describe('the life of a virtio-9p device', () => {
  const control = () => join(dir, 'qmp.sock');
  const options = (): GuestOptions => ({
    cpus: 1,
    memoryArgs,
    extraArgs: [
      ...['-action', 'reboot=reset', '-qmp', `unix:${control()},server=on,wait=off`],
      ...vhostUserDevice(socket('one'), 'one'),
      ...vhostUserDevice(socket('two'), 'two'),
    ],
  });

  /** A command to QEMU itself. */
  const command = (name: string) =>
    new Promise<void>((resolve, reject) => {
      let said = '';
      const qmp = connect(control());
      qmp.setEncoding('utf8').on('error', reject);
      qmp.on('data', (text: string) => {
        said += text;
        if (said.split('"return"').length <= 2) return;
        qmp.destroy();
        resolve();
      });
      qmp.write(`{"execute":"qmp_capabilities"}\n{"execute":"${name}"}\n`);
    });

  beforeAll(async () => {
    await serve([
      ['one', 'mapped'],
      ['two', 'passthrough'],
    ]);
    guest = await Guest.start(options());
    await mount('one');
    await mount('two');
  });
  afterAll(end);

  test('two devices serve two directories, and neither reaches the other’s', async () => {
    await guest.sh(
      'echo 1 > /mnt/one/a; echo 2 > /mnt/two/b; [ "$(ls /mnt/one /mnt/two | xargs)" = "/mnt/one: a /mnt/two: b" ]',
    );
    await guest.sh(
      'umount /mnt/one; mount -t 9p -o trans=virtio,version=9p2000.L,aname=passthrough one /mnt/one',
      {
        expectCode: 32,
      },
    );
    await mount('one');
  });

  test('blocks of a megabyte go both ways unharmed', async () => {
    await guest.sh(`dd if=/dev/urandom of=/tmp/f bs=1M count=24; dd if=/tmp/f of=/mnt/one/f bs=1M
      echo 3 > /proc/sys/vm/drop_caches; dd if=/mnt/one/f of=/tmp/g bs=1M; cmp /tmp/f /tmp/g; rm /tmp/g`);
    const { stdout } = await guest.sh('sha256sum < /tmp/f');
    const sum = createHash('sha256')
      .update(readFileSync(join(dir, 'mapped/f')))
      .digest('hex');
    expect(stdout).toBe(`${sum}  -`);
  });

  test('a guest that is paused goes on with its mounts, its open files and its locks', async () => {
    const lock = guest.sh('exec 9> /mnt/one/lock; flock 9; sleep 2; echo held');
    await guest.sh('sleep 0.5');
    const waiting = guest.sh('exec 9> /mnt/one/lock; flock 9; echo after');
    const writing = guest.sh('for i in $(seq 300); do echo $i > /mnt/one/f$i; done; cat /mnt/one/f300');
    await command('stop');
    await new Promise(resolve => setTimeout(resolve, 1000));
    await command('cont');
    expect((await writing).stdout).toBe('300');
    expect((await lock).stdout).toBe('held');
    expect((await waiting).stdout).toBe('after');
  });

  test('a guest that boots again mounts again, and what it held is let go', async () => {
    await guest.sh(
      'exec 9> /mnt/one/held; flock 9; (sleep 1; echo b > /proc/sysrq-trigger) > /dev/null 2>&1 &',
    );
    await new Promise(resolve => setTimeout(resolve, 3000));
    await expect
      .poll(async () => Number((await guest.sh('cat /proc/uptime')).stdout.split(' ')[0]), {
        timeout: 60_000,
      })
      .toBeLessThan(30);
    await mount('one');
    await mount('two');
    await guest.sh('[ "$(cat /mnt/two/b)" = 2 ]; exec 9> /mnt/one/held; flock -n 9');
  });

  test('a monitor that is killed leaves nothing, and the next one finds the sockets free', async () => {
    expect(memoryMapped().length).toBeGreaterThan(0);
    await guest.stop();
    await expect.poll(() => memoryMapped(), { timeout: 10_000 }).toEqual([]);
    const roots = models.map(model => join(dir, model));
    const held = () => server.descriptorsBelow(dir).filter(path => !roots.includes(path));
    await expect.poll(held, { timeout: 10_000 }).toEqual([]);
    guest = await Guest.start(options());
    await mount('one');
    await guest.sh('[ "$(cat /mnt/one/a)" = 1 ]');
  });

  test('a second monitor is sent away with a word on what to do', async () => {
    await expect(
      Guest.start({ cpus: 1, memoryArgs, extraArgs: vhostUserDevice(socket('one'), 'one') }),
    ).rejects.toThrow(/the guest has ended/);
    expect(complaints().join('\n')).toMatch(/already serves .*; give each guest a --listen of its own/);
    await guest.sh('[ "$(cat /mnt/one/a)" = 1 ]');
  });
});

describe('a monitor that was given the wrong options', () => {
  const tags = ['plain', 'small', 'none'];
  const all = () => tags.flatMap(tag => vhostUserDevice(socket(tag), tag));

  /** Starts a guest, lets it probe its devices, and waits for the server's warning. */
  async function expectTold(options: GuestOptions, ...told: RegExp[]): Promise<void> {
    guest = await Guest.start({ cpus: 1, ...options });
    // The driver probes a device at boot or at the mount, which may hang.
    for (const tag of tags) {
      guest
        .sh(`mount -t 9p -o trans=virtio,version=9p2000.L ${tag} /mnt`, { timeout: 10_000 })
        .catch(() => undefined);
    }
    for (const what of told)
      await expect.poll(() => complaints().join('\n'), { timeout: 10_000 }).toMatch(what);
    await guest.stop();
  }

  beforeAll(() => serve(tags.map(tag => [tag, 'mapped'])));
  afterAll(end);

  test('no shared memory: the log says what to change', async () => {
    await expectTold(
      { extraArgs: vhostUserDevice(socket('plain'), 'plain') },
      /QEMU: -object memory-backend-memfd,share=on/,
    );
  });

  test('too small a configuration space, or none: the log says what to change', async () => {
    const small = vhostUserDevice(socket('small'), 'small', 6);
    const none = vhostUserDevice(socket('none'), 'none', 0);
    await expectTold(
      { memoryArgs, extraArgs: [...small, ...none] },
      /the tag does not fit into a configuration space of 6 bytes: give the device config_size=7/,
      /does not ask for the configuration space, .* config_size=6/,
    );
  });

  test('with the right ones the sockets are usable', async () => {
    guest = await Guest.start({ cpus: 1, memoryArgs, extraArgs: all() });
    for (const tag of tags) await mount(tag);
  });
});
