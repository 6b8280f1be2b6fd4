import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { command } from '../support/compiled.ts';
import { Ninepd } from '../support/ninepd.ts';
import { childrenOf, processOf } from '../support/processes.ts';

const rdwr = 2;

/** A server's children, and theirs. Those of `ninepd-groups` are outside of the sandbox and end with their socket. */
function descendants(pid: number): { pid: number; name: string }[] {
  const children = childrenOf(pid).filter(({ name }) => name !== 'ninepd-groups');
  return children.flatMap(child => [child, ...descendants(child.pid)]);
}

describe('a server that ends in order', () => {
  let top: string;
  let disk: string;
  let device: string;
  let server: Ninepd | undefined;

  beforeEach(() => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-stop-'));
    disk = join(top, 'disk');
    mkdirSync(disk);
    command('truncate', '--size', '32M', join(top, 'image'));
    command('mkfs.ext4', '-q', join(top, 'image'));
    device = command('losetup', '--find', '--show', join(top, 'image'));
    command('mount', device, disk);
  });
  afterEach(async () => {
    await server?.stop();
    if (readFileSync('/proc/self/mounts', 'utf8').includes(` ${disk} `)) command('umount', '--lazy', disk);
    command('losetup', '--detach', device);
    rmSync(top, { recursive: true });
  });

  it.each([
    ['mapped', 'in the sandbox', []],
    ['passthrough', 'in the sandbox', []],
    ['mapped', 'without a sandbox', ['--sandbox', 'off']],
    ['mapped', 'with workers', ['--workers', '2']],
  ] as const)('leaves no process, and no file system in use: %s %s', async (securityModel, _how, args) => {
    server = await Ninepd.start({
      exports: [{ path: disk, name: 'disk', securityModel }],
      args: [...args],
    });
    const client = await Client.connect({ port: server.port });
    await client.lcreate(await client.attach('disk', 0), 'file', rdwr, 0o644, 0);
    const processes = descendants(server.pid);
    expect(processes.map(({ name }) => name)).toContain('ninepd-closer');
    expect(await server.stop()).toBe(0);
    expect(processes.filter(({ pid, name }) => processOf(pid)?.name === name)).toEqual([]);
    command('umount', disk);
    // Fails if another mount namespace still has the file system mounted.
    command('e2fsck', '-p', device);
  });
});
