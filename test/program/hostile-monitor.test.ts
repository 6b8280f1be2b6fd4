/** Monitors that pass descriptors which hang whoever touches them. Other guests notice nothing. */
import { mkdirSync, openSync } from 'node:fs';
import { arch } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { closeFd } from '#host/fd.ts';
import { compileRawCalls } from '../support/attempts.ts';
import { Stalling } from '../support/stalling/stalling.ts';
import { Frontend, regionBytes, request, u64 } from '../support/vhost-frontend.ts';
import { Monitor } from '../support/vhost-monitor.ts';
import { dir, files, type Running, start } from './cli-program.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests mount file systems: run them as root (sudo npm test).');
}

const region = { guestAddress: 0x10_0000, bytes: 4096, monitorAddress: 0x10_0000, fileOffset: 0 };

describe('an eventfd that would have to be waited for', () => {
  it('since it is full and no longer non-blocking, is not written to', async () => {
    const addon = { exports: {} as { call(...args: unknown[]): number } };
    process.dlopen(addon, compileRawCalls(join(dir, 'raw-calls.node')));
    const device = `vhost-user://${join(dir, 'device')}?tag=share`;
    const running = start(['serve', files, '--listen', 'tcp://127.0.0.1:0', '--listen', device]);
    await running.says(/^listening on vhost-user/m);
    const polite = await Client.connect({ port: await running.port() });
    const guest = await Frontend.connect(join(dir, 'device'));
    await guest.start();
    await guest.attach();
    const { call } = addon.exports;
    const [write, fcntl] = arch() === 'x64' ? [1, 72] : [64, 25];
    const [setFlags, readWrite, most] = [4, 2, 2n ** 64n - 2n];
    expect(call(fcntl, guest.callDescriptor, setFlags, readWrite | 0x800)).toBe(0);
    call(write, guest.callDescriptor, BigUint64Array.of(most), 8);
    expect(call(fcntl, guest.callDescriptor, setFlags, readWrite)).toBe(0);
    await guest.request('walk', { fid: 0, newfid: 1, wname: [] });
    await polite.attach('', 0);
    polite.wire.socket.destroy();
    guest.close();
  });
});

describe('a descriptor of a file whose file system never answers', () => {
  let mount: Stalling;
  let running: Running;
  let monitor: Monitor;
  let polite: Client;
  let held: number[];

  beforeEach(async () => {
    const at = join(dir, 'fuse');
    mkdirSync(at);
    mount = await Stalling.mount(at);
    const device = `vhost-user://${join(dir, 'device')}?tag=share`;
    running = start(['serve', files, '--listen', 'tcp://127.0.0.1:0', '--listen', device]);
    await running.says(/^listening on vhost-user/m);
    polite = await Client.connect({ port: await running.port() });
    monitor = await Monitor.connect(join(dir, 'device'));
    held = [];
  });
  afterEach(async () => {
    polite.wire.socket.destroy();
    // What hangs ends with the mount, and so does close(2) here.
    await mount.end();
    for (const fd of held) closeFd(fd);
    monitor.close();
  });

  const open = (name: string) => {
    const fd = openSync(join(mount.directory, name), 'r+');
    held.push(fd);
    return fd;
  };

  const messages: readonly [string, (fd: number) => void][] = [
    [
      'guest memory',
      fd => monitor.tell(request.addMemReg, Buffer.concat([u64(0), regionBytes(region)]), [fd]),
    ],
    ['a kick', fd => monitor.tell(request.setVringKick, u64(0), [fd])],
    ['a call', fd => monitor.tell(request.setVringCall, u64(0), [fd])],
    ['nothing', fd => monitor.tell(request.getFeatures, Buffer.alloc(0), [fd])],
    ['a part of a message', fd => monitor.raw(u64(0).subarray(0, 4), [fd])],
    ['more descriptors than a message has', fd => monitor.raw(u64(0).subarray(0, 4), Array(16).fill(fd))],
  ];

  it.each(messages)('that is passed for %s hangs nobody', async (_what, pass) => {
    // The calls that would hang: a page fault, close(2).
    for (const name of ['read0', 'flush0']) {
      pass(open(name));
      await monitor.closed();
      monitor.close();
      await polite.attach('', 0);
      monitor = await Monitor.connect(join(dir, 'device'));
    }
    expect(running.log).toMatch(/refused: .*neither shared memory/);
    expect(running.child.exitCode).toBe(null);
  });
});
