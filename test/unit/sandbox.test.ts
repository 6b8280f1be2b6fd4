import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { Server } from '../../src/server.ts';
import { canServe, dir, files, program, Running, refused, root, start } from './cli-program.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests take rights away from root: run them as root (sudo npm test).');
}

const listen = ['--listen', 'tcp://127.0.0.1:0'];

/**
 * What a guest would do that has taken the server over, as modules that Node loads into the real program before it starts
 * (`--import`): the program itself has no way in. Each attempt runs when the program gets SIGUSR2.
 */
function withAttempts(attempts: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const all = Object.entries(attempts).map(
    ([name, code]) => `[${JSON.stringify(name)}, async () => { ${code} }]`,
  );
  const code = `
    import fs from 'node:fs';
    import net from 'node:net';
    import { once } from 'node:events';
    process.on('SIGUSR2', async () => {
      const outcome = {};
      for (const [name, attempt] of [${all}]) {
        outcome[name] = await attempt().then(() => 'done', error => error.code ?? error.name);
      }
      process.stderr.write('attempts ' + JSON.stringify(outcome) + '\\n');
    });`;
  return { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(code)}` };
}

async function attempted(running: Running): Promise<Record<string, string>> {
  running.child.kill('SIGUSR2');
  return JSON.parse((await running.says(/^attempts (.*)$/m))[1]!);
}

/** Attempts to leave the export, each harmless when it succeeds. */
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

async function tryToLeave(...args: string[]): Promise<Record<string, string>> {
  for (const name of ['outside', 'victim', 'files/inside']) writeFileSync(join(dir, name), 'content');
  symlinkSync('../outside', join(files, 'link'));
  const socket = join(dir, 'another.sock');
  const servers = [net.createServer().listen(0, '127.0.0.1'), net.createServer().listen(socket)];
  await Promise.all(servers.map(one => once(one, 'listening')));
  const { port } = servers[0]!.address() as net.AddressInfo;
  const running = start(['serve', files, ...listen, ...args], { env: withAttempts(waysOut(port, socket)) });
  await running.port();
  const outcome = await attempted(running);
  for (const one of servers) one.close();
  return outcome;
}

interface Thread {
  readonly Name: string;
  readonly [field: string]: string;
}

function threadsOf(running: Running): Thread[] {
  const tasks = `/proc/${running.child.pid}/task`;
  return readdirSync(tasks).map(task => {
    const lines = readFileSync(join(tasks, task, 'status'), 'utf8')
      .trim()
      .split('\n');
    return Object.fromEntries(lines.map(line => line.split(/:\s*/, 2))) as Thread;
  });
}

describe('a server that a guest has taken over', () => {
  it('can do nothing outside of its exports, and outside is what it was', async () => {
    const outcome = await tryToLeave();
    for (const [attempt, result] of Object.entries(outcome)) {
      expect(['EACCES', 'EPERM', 'EXDEV', 'ENOSYS'], attempt).toContain(result);
    }
    expect(readFileSync(join(dir, 'outside'), 'utf8')).toBe('content');
    expect(readdirSync(dir).sort()).toEqual(['another.sock', 'files', 'outside', 'victim'].filter(existsIn));
    expect(readdirSync(files).sort()).toEqual(['inside', 'link']);
  });

  it('can do all of it with --sandbox off, which the log says loudly', async () => {
    const outcome = await tryToLeave('--sandbox', 'off');
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
    const running = start(['serve', files, ...listen], { env });
    await running.port();
    running.child.kill('SIGUSR2');
    await running.ended();
    expect(running.child.signalCode).toBe('SIGSYS');
  });

  it('cannot write to an export that is read-only', async () => {
    writeFileSync(join(files, 'f'), '');
    const env = withAttempts({ write: `fs.writeFileSync(${JSON.stringify(join(files, 'f'))}, 'x')` });
    const running = start(['serve', '--export', `${files},readonly=on`, ...listen], { env });
    await running.port();
    expect(await attempted(running)).toEqual({ write: 'EACCES' });
  });
});

const existsIn = (name: string) => name !== 'another.sock' || existsSync(join(dir, name));

describe('every thread of a server', () => {
  it.each([
    [[], '0000000000000000'],
    [['--security-model', 'passthrough'], '00000000880000db'],
    [['--security-model', 'passthrough', '--trusted-xattrs', 'on'], '00000000882000db'],
  ])('has the filter and no capability but those of its model: %j', async (args, capabilities) => {
    const env = withAttempts({ pool: `await Promise.all([1, 2, 3, 4].map(() => fs.promises.stat('.')))` });
    const running = start(['serve', files, ...listen, ...args], { env });
    await canServe({ port: await running.port() });
    await attempted(running);
    const threads = threadsOf(running);
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
    const child = spawn(process.execPath, [program, 'serve', files, ...listen], {
      ...options,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const running = new Running(child);
    await canServe({ port: await running.port() });
    expect(running.log).toContain('sandbox: Landlock');
    for (const { Seccomp, NoNewPrivs } of threadsOf(running))
      expect([Seccomp, NoNewPrivs]).toEqual(['2', '1']);
  });

  it.each([
    ['l', ['no Landlock']],
    ['ls', ['no Landlock', 'does not filter system calls']],
  ])('is what a kernel without has, with a warning (%s)', async (without, warnings) => {
    const source = join(root, 'test/support/without-calls.c');
    execFileSync('gcc', ['-O1', '-o', join(dir, 'without-calls'), source]);
    const child = spawn(
      join(dir, 'without-calls'),
      [without, process.execPath, program, 'serve', files, ...listen],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const running = new Running(child);
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
    for (const one of threadsOf(running)) {
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
    const faults = refused('serve', files, '--user', 'no-such-user');
    expect(faults.join()).toContain('no such user');
    const passthrough = refused('serve', files, '--security-model', 'passthrough', '--user', 'nobody');
    expect(passthrough.join()).toContain('must stay root');
  });

  it('says what is wrong when that user may not use the export, and leaves no socket', () => {
    if (!readable) return;
    const where = join(dir, 'private');
    mkdirSync(where, { mode: 0o700 });
    openTo(65534);
    const faults = refused('serve', where, '--user', 'nobody', '--listen', `unix://${join(files, 's')}`);
    expect(faults.join()).toContain('this user may not read the directory');
    expect(readdirSync(files)).toEqual([]);
  });
});
