import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Server } from '#server.ts';
import { attempted, withAttempts } from '../support/attempts.ts';
import { workersOf } from '../support/processes.ts';
import { canServe, dir, files, program, Running, refused, root, serverOf, start } from './cli-program.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests take rights away from root: run them as root (sudo npm test).');
}

const listen = ['--listen', 'tcp://127.0.0.1:0'];

/** Attempts to leave the export, harmless if they succeed. */
function waysOut(tcp: number, socket: string): Record<string, string> {
  const at = (...path: string[]) => JSON.stringify(join(dir, ...path));
  const connect = (where: string) =>
    `const s = net.connect(${where}); await once(s, 'connect'); s.destroy();`;
  const outside = at('outside');
  return {
    'read the passwords': `fs.readFileSync('/etc/shadow')`,
    'read the passwords on a thread of the pool': `await fs.promises.readFile('/etc/shadow')`,
    'list the root directory': `fs.readdirSync('/')`,
    'read a file outside': `fs.readFileSync(${outside})`,
    'read a file by way of ..': `fs.readFileSync(${at('files')} + '/../outside')`,
    'read a file through a symlink of a guest': `fs.readFileSync(${at('files', 'link')})`,
    'write a file outside': `fs.appendFileSync(${outside}, 'x')`,
    'truncate a file outside': `fs.truncateSync(${outside}, 0)`,
    'make a file outside': `fs.writeFileSync(${at('made')}, '')`,
    'make a directory outside': `fs.mkdirSync(${at('made-directory')})`,
    'link a file into the export': `fs.linkSync(${outside}, ${at('files', 'linked')})`,
    'move a file out of the export': `fs.renameSync(${at('files', 'inside')}, ${at('moved')})`,
    'remove a file outside': `fs.unlinkSync(${at('victim')})`,
    'read the memory of another process': `fs.readFileSync('/proc/${process.pid}/environ')`,
    'signal another process': `process.kill(${process.pid}, 0)`,
    'connect to a TCP port': connect(`${tcp}, '127.0.0.1'`),
    'connect to a Unix socket': connect(JSON.stringify(socket)),
    'listen on a TCP port': `const s = net.createServer(); s.listen(0, '127.0.0.1'); await once(s, 'listening'); s.close();`,
  };
}

/** Calls that Landlock does not mediate. */
function metadata(): Record<string, string> {
  const outside = JSON.stringify(join(dir, 'outside'));
  const part = JSON.stringify(program);
  const module = (name: string) => JSON.stringify(pathToFileURL(join(root, 'dist', name)).href);
  const O_PATH = 0x200000;
  return {
    'see a file': `fs.statSync(${outside})`,
    'see a file by way of ..': `fs.statSync(${JSON.stringify(files)} + '/../outside')`,
    'see a file by way of another process': `fs.statSync('/proc/${process.pid}/root' + ${outside})`,
    'set its mode': `fs.chmodSync(${outside}, 0o4755)`,
    'give it away': `fs.chownSync(${outside}, 1, 1)`,
    'set its times': `fs.utimesSync(${outside}, 1, 1)`,
    'set an attribute of it': `
      const { inline } = await import(${module('host/linux.js')});
      const { serverCreds } = await import(${module('host/syscalls.js')});
      const fd = fs.openSync(${outside}, ${O_PATH});
      await inline.setxattr(serverCreds, fd, 'user.attempt', Buffer.from('x'), 0);`,
    'set the mode of a part of the program': `fs.chmodSync(${part}, fs.statSync(${part}).mode)`,
    'set the mode of something in /proc': `fs.chmodSync('/proc/meminfo', 0o444)`,
    'see what is in an export': `fs.statSync(${JSON.stringify(join(files, 'inside'))})`,
    'open a device that a guest has made': `fs.openSync(${JSON.stringify(join(files, 'zero'))})`,
  };
}

const tools = mkdtempSync(join(tmpdir(), 'ninepd-sandbox-'));
const withoutCalls = join(tools, 'without-calls');
beforeAll(() => {
  execFileSync('gcc', ['-O1', '-o', withoutCalls, join(root, 'test/support/without-calls.c')]);
});
afterAll(() => rmSync(tools, { recursive: true }));

/** Runs the program as on a kernel or in a container without some calls: test/support/without-calls.c. */
function startWithout(what: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Running {
  return new Running(
    spawn(withoutCalls, [what, process.execPath, program, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    }),
  );
}

async function tryToLeave(without: string, args: readonly string[]): Promise<Record<string, string>> {
  for (const name of ['outside', 'victim', 'files/inside']) writeFileSync(join(dir, name), 'content');
  symlinkSync('../outside', join(files, 'link'));
  const socket = join(dir, 'another.sock');
  const servers = [net.createServer().listen(0, '127.0.0.1'), net.createServer().listen(socket)];
  await Promise.all(servers.map(one => once(one, 'listening')));
  const { port } = servers[0]!.address() as net.AddressInfo;
  const env = withAttempts(waysOut(port, socket));
  const running = startWithout(without, ['serve', files, ...listen, ...args], env);
  const outcome = await attempted(running, await serverOf(running));
  for (const one of servers) one.close();
  return outcome;
}

interface Thread {
  readonly Name: string;
  readonly [field: string]: string;
}

function threadsOf(pid: number): Thread[] {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).map(task => {
    const lines = readFileSync(join(tasks, task, 'status'), 'utf8')
      .trim()
      .split('\n');
    return Object.fromEntries(lines.map(line => line.split(/:\s*/, 2))) as Thread;
  });
}

describe.each(['none', 'guest'])('a server that a guest has taken over, with --isolation %s', isolation => {
  const isolated = ['--isolation', isolation];

  it.each([
    ['in a private root directory, with Landlock', '', []],
    ['with Landlock alone', 'n', []],
    ['in a private root directory alone', 'l', ['list the root directory']],
  ])('can do nothing outside of its exports %s, and outside is what it was', async (_how, without, can) => {
    const outcome = await tryToLeave(without, isolated);
    for (const [attempt, result] of Object.entries(outcome)) {
      if (can.includes(attempt)) expect(result, attempt).toBe('done');
      else
        expect(['ENOENT', 'EROFS', 'EACCES', 'EPERM', 'EXDEV', 'ENOSYS', 'ENETUNREACH'], attempt).toContain(
          result,
        );
    }
    expect(readFileSync(join(dir, 'outside'), 'utf8')).toBe('content');
    expect(readdirSync(dir).sort()).toEqual(['another.sock', 'files', 'outside', 'victim'].filter(existsIn));
    expect(readdirSync(files).sort()).toEqual(['inside', 'link']);
  });

  it('can do all of it with --sandbox off, which the log says loudly', async () => {
    const outcome = await tryToLeave('', [...isolated, '--sandbox', 'off']);
    expect(new Set(Object.values(outcome))).toEqual(new Set(['done']));
  });

  it.each([
    [
      'execute a program by its own addon',
      'const { execute } = await import(sandbox); execute("/bin/true", ["true"], {}, []);',
    ],
    ['start a process', `(await import('node:child_process')).spawn('/bin/true', { stdio: 'ignore' });`],
  ])('ends when it tries to %s', async (_what, code) => {
    const sandbox = JSON.stringify(pathToFileURL(join(root, 'dist/host/sandbox.js')).href);
    const env = withAttempts({ it: `const sandbox = ${sandbox}; ${code}` });
    const running = start(['serve', files, ...listen, ...isolated], { env });
    const server = await serverOf(running);
    process.kill(server, 'SIGUSR2');
    if (isolation === 'guest') {
      await running.says(/the worker .* has died, SIGSYS/);
      // A new worker may start a moment later.
      await new Promise(resolve => setTimeout(resolve, 300));
      return canServe({ port: await running.port() });
    }
    await running.ended();
    expect(running.child.signalCode).toBe('SIGSYS');
  });

  it('cannot write to an export that is read-only', async () => {
    writeFileSync(join(files, 'f'), '');
    const env = withAttempts({ write: `fs.writeFileSync(${JSON.stringify(join(files, 'f'))}, 'x')` });
    const running = start(['serve', '--export', `${files},readonly=on`, ...listen, ...isolated], { env });
    expect(await attempted(running, await serverOf(running))).toEqual({ write: 'EROFS' });
  });

  /** With `passthrough`, which keeps capabilities over every file. */
  async function tryMetadata(without: string): Promise<{ outcome: Record<string, string>; log: string }> {
    for (const name of ['outside', 'files/inside']) writeFileSync(join(dir, name), 'content');
    execFileSync('mknod', [join(files, 'zero'), 'c', '1', '5']);
    const insecure = '--insecure-loopback';
    const args = ['serve', files, '--security-model', 'passthrough', insecure, ...isolated, ...listen];
    const running = startWithout(without, args, withAttempts(metadata()));
    return { outcome: await attempted(running, await serverOf(running)), log: running.log };
  }

  it('neither sees nor changes owners, modes and attributes outside', async () => {
    const { outcome, log } = await tryMetadata('');
    const { 'see what is in an export': inside, ...others } = outcome;
    expect(inside).toBe('done');
    for (const [attempt, result] of Object.entries(others)) {
      expect(['ENOENT', 'EROFS', 'EACCES'], attempt).toContain(result);
    }
    expect(log).toMatch(/INFO: sandbox: a private root directory, Landlock/);
    const { mode, uid, mtimeMs } = statSync(join(dir, 'outside'));
    expect([mode & 0o7777, uid, mtimeMs > 1000]).toEqual([0o644, 0, true]);
  });

  it('does where nothing may be mounted, as the log warns', async () => {
    const { outcome, log } = await tryMetadata('n');
    const { 'see a file by way of another process': byWay, ...others } = outcome;
    expect(byWay).toBe('EACCES');
    expect(new Set(Object.values(others))).toEqual(new Set(['done']));
    expect(log).toMatch(
      isolation === 'none'
        ? /WARN: sandbox: no private root directory is possible \(EPERM/
        : /WARN: sandbox: workers can have no namespaces and no private root directory/,
    );
  });
});

const existsIn = (name: string) => name !== 'another.sock' || existsSync(join(dir, name));

describe('every thread of a server', () => {
  it.each([
    [[], '0000000000000000'],
    [['--security-model', 'passthrough', '--insecure-loopback'], '00000000880000db'],
    [
      ['--security-model', 'passthrough', '--insecure-loopback', '--trusted-xattrs', 'on'],
      '00000000882000db',
    ],
  ])('has the filter and no capability but those of its model: %j', async (args, capabilities) => {
    const env = withAttempts({ pool: `await Promise.all([1, 2, 3, 4].map(() => fs.promises.stat('.')))` });
    const running = start(['serve', files, ...listen, ...args], { env });
    await canServe({ port: await running.port() });
    const server = await serverOf(running);
    await attempted(running, server);
    const threads = threadsOf(server);
    expect(threads.map(one => one.Name)).toContain('ninepd-pool');
    expect(threads.length).toBeGreaterThan(10);
    for (const { Name, Seccomp, NoNewPrivs, CapEff, CapPrm, CapBnd } of threads) {
      expect({ Seccomp, NoNewPrivs, CapEff, CapPrm, CapBnd }, Name).toEqual({
        ...{ Seccomp: '2', NoNewPrivs: '1' },
        ...{ CapEff: capabilities, CapPrm: capabilities, CapBnd: capabilities },
      });
    }
  });
});

/** The tests' directory, for another user. */
function openTo(uid: number): void {
  chmodSync(dir, 0o755);
  chownSync(files, uid, uid);
}

describe('the sandbox', () => {
  it('needs no privilege', async () => {
    openTo(65534);
    const options = { uid: 65534, gid: 65534 };
    const asNobody = spawnSync(process.execPath, [program, 'version'], { ...options, encoding: 'utf8' });
    expect(asNobody, 'nobody must be able to read this checkout: clone it below /tmp or /srv').toMatchObject({
      status: 0,
    });
    const args = ['serve', '--isolation', 'guest', files, ...listen];
    const child = spawn(process.execPath, [program, ...args], {
      ...options,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const running = new Running(child);
    await canServe({ port: await running.port() });
    // The worker has a user namespace of its own, in which it may mount.
    expect(running.log).toContain('sandbox: a private root directory, Landlock');
    for (const pid of [running.child.pid!, await serverOf(running)]) {
      for (const { Seccomp, NoNewPrivs, CapEff } of threadsOf(pid))
        expect([Seccomp, NoNewPrivs, CapEff]).toEqual(['2', '1', '0000000000000000']);
    }
  });

  it.each([
    ['l', ['no Landlock']],
    ['ls', ['no Landlock', 'does not filter system calls']],
  ])('is what a kernel without has, with a warning (%s)', async (without, warnings) => {
    const running = startWithout(without, ['serve', files, ...listen]);
    await canServe({ port: await running.port() });
    for (const warning of warnings) expect(running.log).toMatch(new RegExp(`WARN.*${warning}`));
  });

  it('is said to be off, loudly', async () => {
    const running = start(['serve', files, ...listen, '--sandbox', 'off']);
    await running.port();
    expect(running.log).toMatch(/WARN.*SANDBOX OFF/);
  });

  it('lets a Unix socket be removed at the end, and a program that embeds a server alone', async () => {
    const socket = join(dir, 's');
    const running = start(['serve', files, '--listen', `unix://${socket}`]);
    await running.says(/^listening on unix/m);
    await canServe({ path: socket });
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
    expect(existsSync(socket)).toBe(false);

    const status = () => readFileSync('/proc/self/status', 'utf8').match(/^(NoNewPrivs|Seccomp|CapEff).*$/gm);
    const before = status();
    const server = await Server.open({ exports: [{ path: files }] });
    await server.listen('tcp://127.0.0.1:0');
    expect(status()).toEqual(before);
    await server.close();
  });
});

describe('--user', () => {
  const readable = spawnSync(process.execPath, [program, 'version'], { uid: 65534, gid: 65534 }).status === 0;

  it('makes root another user, who owns what guests make and the sockets, and has no privilege', async () => {
    openTo(65534);
    const socket = join(dir, 's');
    const shared = join(dir, 'shared');
    const listen = ['--listen', `unix://${socket}`, '--listen', `unix://${shared}?group=12`];
    const args = ['serve', files, '--user', 'nobody', ...listen];
    if (!readable) return expect(refused(...args).join()).toContain('may not read');
    const running = start(args);
    await running.says(/^listening on unix/m);
    await canServe({ path: socket });
    expect(statSync(join(files, 'made')).uid).toBe(65534);
    expect(lstatSync(socket)).toMatchObject({ uid: 65534, gid: 65534 });
    expect(lstatSync(shared)).toMatchObject({ uid: 65534, gid: 12 });
    expect(running.log).toContain('a private root directory');
    for (const one of threadsOf(workersOf(running.child.pid!)[0] ?? running.child.pid!)) {
      expect([one.Uid, one.CapPrm, one.Seccomp]).toEqual([
        '65534\t65534\t65534\t65534',
        '0000000000000000',
        '2',
      ]);
    }
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });

  it('serves ./share, which it makes for that user', async () => {
    if (!readable) return;
    openTo(65534);
    const running = start(['--user', 'nobody', ...listen]);
    await canServe({ port: await running.port() }, join(dir, 'share'));
    expect(statSync(join(dir, 'share')).uid).toBe(65534);
  });

  it('is refused for passthrough, and for a user that is not there', () => {
    const problems = refused('serve', files, '--user', 'no-such-user');
    expect(problems.join()).toContain('no such user');
    const passthrough = refused('serve', files, '--security-model', 'passthrough', '--user', 'nobody');
    expect(passthrough.join()).toContain('must stay root');
  });

  it('says what is wrong when that user may not use the export, and leaves no socket', () => {
    if (!readable) return;
    const where = join(dir, 'private');
    mkdirSync(where, { mode: 0o700 });
    openTo(65534);
    const problems = refused('serve', where, '--user', 'nobody', '--listen', `unix://${join(files, 's')}`);
    expect(problems.join()).toContain('this user may not read the directory');
    expect(readdirSync(files)).toEqual([]);
  });
});
