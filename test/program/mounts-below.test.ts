import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client, type ExportOptions, Server } from '#index.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests mount file systems: run them as root (sudo npm test).');
}

const run = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: 'pipe' });

describe('what is mounted below an export', () => {
  let dir: string;
  let server: Server;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'ninepd-mounts-'));
    for (const name of ['proc', 'sys', 'tmpfs', 'core_pattern'].map(one => join(dir, one))) {
      if (name.endsWith('core_pattern')) writeFileSync(name, '');
      else mkdirSync(name);
    }
    run('mount', '-t', 'proc', 'none', join(dir, 'proc'));
    run('mount', '-t', 'sysfs', 'none', join(dir, 'sys'));
    run('mount', '-t', 'tmpfs', 'none', join(dir, 'tmpfs'));
    run('mount', '--bind', '/proc/sys/kernel/core_pattern', join(dir, 'core_pattern'));
  });
  afterEach(async () => {
    await server.close();
    for (const name of ['proc', 'sys', 'tmpfs', 'core_pattern']) run('umount', join(dir, name));
    rmSync(dir, { recursive: true });
  });

  /** What a walk to each of these finds. */
  async function walks(options: Partial<ExportOptions>): Promise<Record<string, string>> {
    server = await Server.open({ exports: [{ path: dir, securityModel: 'passthrough', ...options }] });
    const client = await Client.connect({
      port: Number(new URL(await server.listen('tcp://127.0.0.1:0')).port),
    });
    const top = await client.attach('', 0);
    const outcome: Record<string, string> = {};
    for (const name of ['proc', 'sys', 'tmpfs', 'core_pattern', 'proc/sys/kernel/core_pattern'])
      outcome[name] = await client.walk(top, name.split('/')).then(
        () => 'found',
        (error: { name?: string; message: string }) => /[A-Z]{5,}/.exec(`${error}`)?.[0] ?? `${error}`,
      );
    client.wire.socket.destroy();
    return outcome;
  }

  it('is refused where it is the state of the kernel, and served where it is data', async () => {
    expect(await walks({})).toEqual({
      ...{ proc: 'EACCES', sys: 'EACCES', tmpfs: 'found', core_pattern: 'EACCES' },
      'proc/sys/kernel/core_pattern': 'EACCES',
    });
  });

  it('is refused whatever it is with multidevs=forbid', async () => {
    expect(await walks({ multidevs: 'forbid' })).toMatchObject({ proc: 'EACCES', tmpfs: 'EACCES' });
  });
});
