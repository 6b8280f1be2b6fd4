import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { mountsFor } from '#cli/private-root.ts';
import { Client } from '#client/client.ts';
import type { Rule } from '#host/sandbox.ts';
import { canServe, dir, files, P9_RDWR, program, Running, start } from './cli-program.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests mount file systems: run them as root (sudo npm test).');
}

const listen = ['--listen', 'tcp://127.0.0.1:0'];
const run = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: 'pipe' });

/** Entries of a directory as a process sees it. */
const seenBy = (pid: number, path: string) => readdirSync(`/proc/${pid}/root${path}`).sort();

/** The mounts at the root and in the test's directory: other tests mount elsewhere at the same time. */
function mountsHere(): string[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return lines.filter(line => {
    const at = line.split(' ')[4];
    return at === '/' || at?.startsWith(dir);
  });
}

/** The program executed by a shell after some commands. */
function startBy(command: string): Running {
  const args = ['-c', `${command}; exec "$@"`, '-', process.execPath, program, 'serve', files, ...listen];
  return new Running(spawn('bash', args, { cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] }));
}

describe('a private root directory', () => {
  it('follows what the host mounts and unmounts in an export', async () => {
    const sub = join(files, 'sub');
    run('mount', '--bind', files, files);
    try {
      run('mount', '--make-shared', files);
      mkdirSync(sub);
      const running = start(['serve', files, ...listen]);
      const client = await Client.connect({ port: await running.port() });
      expect(running.log).not.toContain('does not show');
      run('mount', '-t', 'tmpfs', 'none', sub);
      writeFileSync(join(sub, 'hot'), 'content');
      const top = await client.attach('', 0);
      const hot = await client.walk(top, ['sub', 'hot']);
      await client.lopen(hot);
      expect(`${await client.readAll(hot)}`).toBe('content');
      expect(() => run('umount', sub)).toThrow('busy');
      await client.clunk(hot);
      await vi.waitFor(() => run('umount', sub));
      await expect(client.walk(top, ['sub', 'hot'])).rejects.toThrow();
      client.wire.socket.destroy();
    } finally {
      run('umount', '-R', '-l', files);
    }
  });

  it('has what was mounted before, and says where it cannot follow', async () => {
    const sub = join(files, 'sub');
    mkdirSync(sub);
    run('mount', '--bind', files, files);
    try {
      run('mount', '--make-private', files);
      run('mount', '-t', 'tmpfs', 'none', sub);
      const running = start(['serve', files, ...listen]);
      await running.port();
      const client = await Client.connect({ port: await running.port() });
      const fid = await client.walk(await client.attach('', 0), ['sub']);
      await client.lcreate(fid, 'made', P9_RDWR);
      client.wire.socket.destroy();
      expect(readdirSync(sub)).toEqual(['made']);
      expect(running.log).toMatch(
        /INFO: sandbox: mounts and unmounts of the host in \S*files have no effect/,
      );
    } finally {
      run('umount', '-R', '-l', files);
    }
  });

  it('has nothing but exports and the program, and leaves the host what it was', async () => {
    const before = mountsHere();
    writeFileSync(join(dir, 'secret'), '');
    mkdirSync(join(dir, 'sockets'));
    const args = ['--export', files, '--listen', `unix://${join(dir, 'sockets/s')}`, '--workers', '2'];
    const running = start(['serve', ...args]);
    await running.says(/^listening on unix/m);
    await canServe({ path: join(dir, 'sockets/s') });
    const { pid } = running.child;
    const workers = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
    expect(workers).toHaveLength(2);
    for (const one of [pid!, ...workers]) {
      expect(seenBy(one, '/etc')).not.toContain('passwd');
      expect(seenBy(one, '/dev')).toEqual(['null']);
      expect(seenBy(one, dir)).toEqual(['files', 'sockets']);
    }
    expect(mountsHere()).toEqual(before);
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
    expect(readdirSync(join(dir, 'sockets'))).toEqual([]);
  });

  it('has exports in one another, by symlinks and beside a socket, and names are moved within each', async () => {
    const inner = join(files, 'inner');
    mkdirSync(inner);
    symlinkSync('files', join(dir, 'link'));
    const exported = ['link', 'link/inner,readonly=on'].flatMap(path => ['--export', path]);
    const running = start(['serve', ...exported, '--listen', `unix://${join(dir, 's')}`, ...listen]);
    await canServe({ port: await running.port() });
    const client = await Client.connect({ port: await running.port() });
    const top = await client.attach(join(dir, 'link'), 0);
    await client.renameat(top, 'made', await client.walk(top, ['inner']), 'made');
    expect(readdirSync(inner)).toEqual(['made']);
    await client.attach(join(dir, 'link/inner'), 0);
    client.wire.socket.destroy();
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
    expect(readdirSync(dir).sort()).toEqual(['files', 'link']);
  });

  it('has one mount for an export, but for what may be written within what may not', () => {
    mkdirSync(join(files, 'inner/most'), { recursive: true });
    const bound = (...rules: Rule[]) =>
      mountsFor(rules, dir)!.flatMap(({ path, is }) => (path.startsWith(files) ? [[path, is]] : []));
    const [outer, inner] = [files, join(files, 'inner')];
    const rule = (path: string, may: Rule['may']): Rule => ({ path, may });
    expect(bound(rule(inner, 'read'), rule(outer, 'all'))).toEqual([[outer, 'writable']]);
    expect(bound(rule(inner, 'read'), rule(outer, 'read'))).toEqual([[outer, 'read-only']]);
    expect(bound(rule(inner, 'all'), rule(outer, 'read'), rule(join(inner, 'most'), 'read'))).toEqual([
      [outer, 'read-only'],
      [inner, 'writable'],
    ]);
    expect(mountsFor([rule('/', 'all')], dir)).toBeUndefined();
  });

  it('is not left by a descriptor that the program was started with', async () => {
    const running = startBy('exec 100</etc');
    await canServe({ port: await running.port() });
    const held = readdirSync(`/proc/${running.child.pid}/fd`);
    expect(held).not.toContain('100');
  });

  it('is had by a program whose working directory was removed', async () => {
    const running = startBy('mkdir gone; cd gone; rmdir ../gone');
    await canServe({ port: await running.port() });
    expect(running.log).toContain('a private root directory');
  });
});
