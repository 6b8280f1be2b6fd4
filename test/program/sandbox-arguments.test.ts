import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { constants, openSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { arch, constants as os, release } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { closeFd } from '#host/fd.ts';
import { sendMessage } from '#host/message.ts';
import { attempted, compileRawCalls, withAttempts } from '../support/attempts.ts';
import { canServe, dir, files, program, Running, start } from './cli-program.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests take rights away from root: run them as root (sudo npm test).');
}

/** The process that listens is the one that guests reach. */
const listen = ['--isolation', 'none', '--listen', 'tcp://127.0.0.1:0'];
const x86 = arch() === 'x64';
const number = {
  fcntl: x86 ? 72 : 25,
  ioctl: x86 ? 16 : 29,
  getsockopt: x86 ? 55 : 209,
  setsockopt: x86 ? 54 : 208,
  sendto: x86 ? 44 : 206,
  sendmsg: x86 ? 46 : 211,
  recvmsg: x86 ? 47 : 212,
  shutdown: x86 ? 48 : 210,
};
const fcntl = { setOwner: 8, setSignal: 10, setLease: 1024, notify: 1026 };
const FIOSETOWN = 0x8901;
const FASTOPEN = 0x2000_0000;

/** Code of attempts: the descriptors for which getsockopt(2) of SOL_SOCKET has that value. */
const sockets = (option: number, value: number) => `
  Array.from({ length: 200 }, (_, fd) => fd).filter(fd => {
    const found = new Int32Array(1), bytes = Int32Array.of(4);
    return tried(${number.getsockopt}, fd, 1, ${option}, found, bytes) === 0 && found[0] === ${value};
  })`;
const listening = sockets(30, 1);

function withCalls(attempts: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  return withAttempts(attempts, compileRawCalls(join(files, 'raw-calls.node')));
}

describe('a server that a guest has taken over', () => {
  it('makes no TCP connection out of a listener, by no call', async () => {
    let connections = 0;
    const other = net.createServer(socket => {
      connections++;
      socket.destroy();
    });
    await once(other.listen(0, '127.0.0.1'), 'listening');
    const { port } = other.address() as net.AddressInfo;
    const to = `Uint8Array.of(2, 0, ${port >> 8}, ${port & 255}, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)`;
    const env = withCalls({
      shutdown: `for (const fd of ${listening}) call(${number.shutdown}, fd, 0)`,
      sendto: `
        for (const fd of ${listening}) tried(${number.shutdown}, fd, 0);
        for (const fd of ${sockets(39, 2)}) tried(${number.sendto}, fd, Buffer.from('x'), 1, ${FASTOPEN}, ${to}, 16);
        call(${number.sendto}, ${sockets(39, 2)}[0], Buffer.from('x'), 1, ${FASTOPEN}, ${to}, 16)`,
      sendmsg: `call(${number.sendmsg}, ${sockets(39, 2)}[0], new Uint8Array(56), ${FASTOPEN})`,
    });
    const running = start(['serve', files, ...listen], { env });
    await running.port();
    expect(await attempted(running)).toEqual({ shutdown: 'EPERM', sendto: 'EPERM', sendmsg: 'EPERM' });
    other.close();
    expect(connections).toBe(0);
  });

  it('sends no signals through the kernel, takes no leases and sets no mode', async () => {
    writeFileSync(join(files, 'f'), '');
    const file = `fs.openSync(${JSON.stringify(join(files, 'f'))}, 'r')`;
    const env = withCalls({
      'who is signalled': `call(${number.fcntl}, ${listening}[0], ${fcntl.setOwner}, ${process.pid})`,
      'by which signal': `call(${number.fcntl}, ${listening}[0], ${fcntl.setSignal}, 9)`,
      'who is signalled, by ioctl': `call(${number.ioctl}, ${listening}[0], ${FIOSETOWN}, Int32Array.of(${process.pid}))`,
      'a lease': `call(${number.fcntl}, ${file}, ${fcntl.setLease}, 0)`,
      'notices of a directory': `call(${number.fcntl}, fs.openSync(${JSON.stringify(files)}, 'r'), ${fcntl.notify}, 4)`,
      'an option of a socket': `call(${number.setsockopt}, ${listening}[0], 1, 8, Int32Array.of(65536), 4)`,
      'a mode': `fs.chmodSync(${JSON.stringify(join(files, 'f'))}, 0o4755)`,
      'a mode by descriptor': `fs.fchmodSync(${file}, 0o4755)`,
      'an owner': `fs.chownSync(${JSON.stringify(join(files, 'f'))}, 0, 0)`,
    });
    const running = start(['serve', files, ...listen], { env });
    await canServe({ port: await running.port() });
    const outcome = await attempted(running);
    for (const [attempt, result] of Object.entries(outcome)) expect(result, attempt).toBe('EPERM');
    expect(statSync(join(files, 'f')).mode & 0o7777).toBe(0o644);
  });

  it('sets no set-uid bit where it sets modes', async () => {
    writeFileSync(join(files, 'f'), '');
    const file = JSON.stringify(join(files, 'f'));
    const descriptor = `fs.openSync(${file}, 'r')`;
    const env = withCalls({
      'a mode': `fs.chmodSync(${file}, 0o755)`,
      'a mode by descriptor': `fs.fchmodSync(${descriptor}, 0o750)`,
      'a set-uid mode': `fs.chmodSync(${file}, 0o4755)`,
      'a set-uid mode by descriptor': `fs.fchmodSync(${descriptor}, 0o4755)`,
      'a set-uid mode by fchmodat2': `call(452, ${descriptor}, Buffer.from('\\0'), 0o4755, 0x1000)`,
      'an owner': `fs.chownSync(${file}, 0, 0)`,
    });
    const running = start(['serve', files, '--security-model', 'none', ...listen], { env });
    await canServe({ port: await running.port() });
    const { 'a mode': mode, 'a mode by descriptor': byDescriptor, ...refused } = await attempted(running);
    for (const [attempt, result] of Object.entries(refused)) expect(result, attempt).toBe('EPERM');
    expect([mode, byDescriptor]).not.toContain('EPERM');
    expect(statSync(join(files, 'f')).mode & 0o7777).toBe(0o750);
  });

  it('receives no descriptors unless it has a device, whose monitor passes some', async () => {
    const message = 'BigUint64Array.of(0n, 0n, 0n, 0n, 0n, 0n, 0n)';
    const env = withCalls({ receive: `call(${number.recvmsg}, ${sockets(30, 0)}[0], ${message}, 0x40)` });
    const unix = ['--listen', `unix://${join(dir, 's')}`];
    const alone = start(['serve', files, ...unix], { env });
    await alone.says(/^listening on unix/m);
    expect(await attempted(alone)).toEqual({ receive: 'EPERM' });
    const device = ['--listen', `vhost-user://${join(dir, 'device')}?tag=share`];
    const beside = start(['serve', files, ...device, '--listen', `unix://${join(dir, 't')}`], { env });
    await beside.says(/^listening on unix/m);
    expect(await attempted(beside)).not.toEqual({ receive: 'EPERM' });
  });

  it('is passed no descriptor over 9P, beside a device too, where the kernel has SO_PASSRIGHTS', async () => {
    const [major, minor] = release().split('.').map(Number) as [number, number];
    const kernelRefuses = major > 6 || (major === 6 && minor >= 16);
    const device = ['--listen', `vhost-user://${join(dir, 'device')}?tag=share`];
    const running = start(['serve', files, ...device, '--listen', `unix://${join(dir, 's')}`]);
    await running.says(/^listening on unix/m);
    const outside = openSync('/', constants.O_RDONLY);
    const pass = async (path: string) => {
      const client = net.connect({ path: join(dir, path) });
      await once(client, 'connect');
      const { fd } = (client as unknown as { _handle: { fd: number } })._handle;
      const sent = sendMessage(fd, Buffer.alloc(1), [outside]);
      client.destroy();
      return sent;
    };
    expect(await pass('device')).toBe(1);
    expect(await pass('s')).toBe(kernelRefuses ? -os.errno.EPERM : 1);
    closeFd(outside);
  });

  it('does not get out of its root directory by its standard input', async () => {
    const env = withAttempts({
      out: `fs.statSync('/proc/self/fd/0/passwd')`,
      error: `fs.statSync('/proc/self/fd/1/passwd')`,
    });
    const args = ['-c', 'exec "$@" </etc 1</etc', '-', process.execPath, program, 'serve', files, ...listen];
    const stdio = ['ignore', 'ignore', 'pipe'] as const;
    const running = new Running(
      spawn('bash', args, { cwd: dir, env: { ...process.env, ...env }, stdio: [...stdio] }),
    );
    await running.port();
    expect(await attempted(running)).toEqual({ out: 'ENOTDIR', error: 'ENOTDIR' });
    expect(readlinkSync(`/proc/${running.child.pid}/fd/0`)).toBe('/dev/null');
  });
});

describe('a filter that cannot be installed', () => {
  it.each([[[]], [['--workers', '2']]])('stops the start, and says what to do: %j', args => {
    const tool = join(dir, 'without-calls');
    spawnSync('gcc', ['-O1', '-o', tool, join(import.meta.dirname, '../support/without-calls.c')]);
    const command = ['f', process.execPath, program, 'serve', files, ...listen, ...args];
    const { status, stderr } = spawnSync(tool, command, { cwd: dir, encoding: 'utf8', timeout: 20_000 });
    expect(stderr).toMatch(/- sandbox: system calls cannot be filtered \(ENOMEM.*--sandbox off/);
    expect(stderr).not.toContain('listening on');
    expect(status).toBe(2);
  });
});
