import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { childrenOf } from '../support/processes.ts';
import {
  canServe,
  dir,
  files,
  P9_RDWR,
  program,
  Running,
  refused,
  root,
  start,
  stopTwiceWithUnreadReplies,
} from './cli-program.ts';

describe('the program', () => {
  it('shows its help and its version on standard output', () => {
    const help = execFileSync(process.execPath, [program, '--help'], { encoding: 'utf8' });
    for (const word of [
      '--export',
      '--security-model',
      '--listen',
      '--msize-max',
      '--log-level',
      'readonly=on',
      'unix:///',
    ]) {
      expect(help).toContain(word);
    }
    expect(Math.max(...help.split('\n').map(line => line.length))).toBeLessThanOrEqual(110);
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    expect(execFileSync(process.execPath, [program, 'version'], { encoding: 'utf8' })).toBe(
      `ninepd ${version}\n`,
    );
  });

  it('shows its help without the addon', () => {
    const noAddon = `data:text/javascript,process.dlopen = () => { throw new Error('no addon') }`;
    const shown = execFileSync(process.execPath, ['--import', noAddon, program, '--help'], {
      encoding: 'utf8',
    });
    expect(shown).toContain('--security-model');
  });

  it('serves ./share when nothing is said, and makes it', async () => {
    const running = start(['--listen', 'tcp://127.0.0.1:0']);
    await canServe({ port: await running.port() }, join(dir, 'share'));
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });

  it('says one plain line for each listener, and how to mount each export', async () => {
    const socket = join(dir, 's');
    const running = start([
      ...['serve', files, '--export', `${files},name=again,readonly=on`],
      ...['--listen', 'tcp://127.0.0.1:0', '--listen', `unix://${socket}`],
    ]);
    const port = await running.port();
    await running.says(/^listening on unix:.*$/m);
    await running.says(/aname=again,access=client \/.*\/s \/mnt/);
    expect(running.log.match(/^listening on /gm)).toHaveLength(2);
    expect(running.log).toContain(
      `mount -t 9p -o trans=tcp,port=${port},version=9p2000.L,msize=1048576,aname=${files},access=client 10.0.2.2 /mnt`,
    );
    await canServe({ path: socket });
    running.child.kill('SIGINT');
    expect(await running.ended()).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  it('gives a guest the export it asks for, by name or path, and the first when it asks for none', async () => {
    const other = join(dir, 'other');
    mkdirSync(other);
    writeFileSync(join(other, 'here'), '');
    const running = start([
      'serve',
      files,
      '--export',
      `${other},name=another`,
      '--listen',
      'tcp://127.0.0.1:0',
    ]);
    const client = await Client.connect({ port: await running.port() });
    for (const aname of ['', '/', files]) {
      await expect(client.walk(await client.attach(aname, 0), 'here')).rejects.toMatchObject({
        name: 'ENOENT',
      });
    }
    for (const aname of ['another', other]) await client.walk(await client.attach(aname, 0), 'here');
    await expect(client.attach('unknown', 0)).rejects.toMatchObject({ name: 'ENOENT' });
    client.wire.socket.destroy();
  });

  it('agrees to no larger messages than it was told', async () => {
    const running = start(['serve', files, '--msize-max', '20000', '--listen', 'tcp://127.0.0.1:0']);
    const client = await Client.connect({ port: await running.port() });
    expect(client.msize).toBe(20000);
    client.wire.socket.destroy();
  });

  it('names every fault at once with status 2, starts nothing and leaves nothing', () => {
    const problems = refused(
      ...['serve', 'none', '--export', program, '--export', `${files},name=a`, '--export', `${root},name=a`],
      ...['--export', `${files},security_model=passthrough,fmode=0600`, '--nonsense', '--listen', 'udp://x'],
      ...['--listen', `unix://${dir}/s`, '--log-level', 'loud'],
    );
    const words = ['nonsense', 'udp', 'loud', 'mkdir -p', 'not a directory', 'same name', 'fmode'];
    for (const word of words) expect(problems.join('\n')).toContain(word);
    expect(problems).toHaveLength(words.length);
    expect(readdirSync(dir)).toEqual(['files']);
  });

  it('names every listener that cannot be, and opens none then', async () => {
    const taken = net.createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as net.AddressInfo;
    writeFileSync(join(dir, 'file'), '');
    const problems = refused(
      'serve',
      files,
      '--listen',
      `unix://${dir}/s`,
      '--listen',
      `tcp://127.0.0.1:${port}`,
      '--listen',
      `unix://${dir}/file`,
    );
    expect(problems).toHaveLength(2);
    expect(problems[0]).toContain('in use');
    expect(problems[1]).toContain('no socket');
    expect(readdirSync(dir).sort()).toEqual(['file', 'files']);
    taken.close();
  });

  it('refuses mapped on a file system without user attributes', () => {
    // Sysfs has no user xattrs.
    const [problem] = refused('serve', '/sys/kernel', '--listen', 'tcp://127.0.0.1:0');
    expect(problem).toContain('extended attributes');
  });

  it('says which directory to name when ./share cannot be created', () => {
    const { status, stderr } = spawnSync(process.execPath, [program], {
      ...{ cwd: '/', encoding: 'utf8' },
      ...(process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {}),
    });
    expect(status, stderr).toBe(2);
    expect(stderr).toContain(
      './share, which is served when no directory is named, cannot be created here (EACCES)',
    );
    expect(refused('serve', '')).toEqual([expect.stringContaining('an empty name')]);
  });

  it('starts a process for each processor', async () => {
    const running = start(['serve', files, '--workers', 'auto', '--port', '0']);
    await canServe({ port: await running.port() });
    const processes = availableParallelism();
    if (processes > 1) expect(childrenOf(running.child.pid!)).toHaveLength(processes);
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });

  it('refuses passthrough without the privileges it needs, naming them', () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      [program, 'serve', '/', '--security-model', 'passthrough'],
      {
        encoding: 'utf8',
        ...(process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {}),
      },
    );
    expect(status, stderr).toBe(2);
    expect(stderr).toContain('CAP_CHOWN, CAP_DAC_OVERRIDE');
  });

  it('answers what runs before it stops, and ends connections', async () => {
    const running = start(['serve', files, '--listen', 'tcp://127.0.0.1:0']);
    const client = await Client.connect({ port: await running.port() });
    const fid = await client.attach('', 0);
    await client.lcreate(fid, 'f', P9_RDWR);
    await client.writeAll(fid, Buffer.alloc(1_000_000));
    const synced = client.wire.request('fsync', { fid, datasync: 0 });
    await client.getattr(fid);
    running.child.kill('SIGTERM');
    await synced;
    await client.wire.closed;
    expect(await running.ended()).toBe(0);
    expect(running.log).toContain('stopped');
  });

  it('stops although somebody waits for a lock', async () => {
    const running = start(['serve', files, '--listen', 'tcp://127.0.0.1:0']);
    const client = await Client.connect({ port: await running.port() });
    const fid = await client.attach('', 0);
    await client.lcreate(fid, 'f', P9_RDWR);
    const lockFields = { fid, type: 1, flags: 1, start: 0, length: 0, proc_id: 1, client_id: 'a' } as const;
    expect((await client.wire.request('lock', lockFields)).status).toBe(0);
    client.wire.request('lock', { ...lockFields, proc_id: 2 }).catch(() => undefined);
    await client.getattr(fid);
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });

  it('stops at once at a second signal, and says that requests were left', async () => {
    const running = start(['serve', files, '--listen', 'tcp://127.0.0.1:0']);
    const client = await Client.connect({ port: await running.port() });
    await stopTwiceWithUnreadReplies(running, client);
    expect(await running.ended()).toBe(1);
    expect(running.log).toContain('stopped at once by a second SIGTERM');
    client.wire.socket.destroy();
  });

  it('writes at its --log-level only', async () => {
    const quiet = start(['serve', files, '--log-level', 'error', '--listen', 'tcp://127.0.0.1:0']);
    await canServe({ port: await quiet.port() });
    expect(quiet.log).toMatch(/^listening on \S+\n$/);
    const loud = start(['serve', files, '--log-level', 'trace', '--listen', 'tcp://127.0.0.1:0']);
    await canServe({ port: await loud.port() });
    await loud.says(/Tlcreate|lcreate/);
  });

  it('gives a guest EFBIG at the limit for file sizes, and lives', async () => {
    const command = `ulimit -f 1; exec "${process.execPath}" "${program}" serve "${files}" --listen tcp://127.0.0.1:0`;
    const running = new Running(spawn('sh', ['-c', command], { stdio: ['ignore', 'ignore', 'pipe'] }));
    const client = await Client.connect({ port: await running.port() });
    const fid = await client.attach('', 0);
    await client.lcreate(fid, 'f', P9_RDWR);
    await expect(client.write(fid, 1 << 20, Buffer.from('x'))).rejects.toMatchObject({ name: 'EFBIG' });
    await client.getattr(fid);
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });
});
