import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { EACCES } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import { attempted, withAttempts } from '../support/attempts.ts';
import { processOf, workersOf } from '../support/processes.ts';
import { canServe, dir, files, P9_RDWR, type Running, start } from './cli-program.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests start servers as root and as others: run them as root (sudo npm test).');
}

const isolated = ['--isolation', 'guest'];
const anyPort = ['--listen', 'tcp://127.0.0.1:0'];
const socketPath = (name: string) => join(dir, name);
const unix = (name: string) => ['--listen', `unix://${socketPath(name)}`];

async function soon(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !holds(); i++) await new Promise(resolve => setTimeout(resolve, 10));
  expect(holds()).toBe(true);
}

async function listening(running: Running, count: number): Promise<void> {
  await soon(() => (running.log.match(/^listening on /gm)?.length ?? 0) >= count);
}

/** Connects as that user of the host. */
async function connectAs(uid: number, path: string): Promise<Client> {
  process.seteuid!(uid);
  try {
    return await Client.connect({ path });
  } finally {
    process.seteuid!(0);
  }
}

/** A connection that has attached. */
async function attach(address: { port: number } | { path: string }, aname = ''): Promise<Client> {
  const client = await Client.connect(address);
  await client.attach(aname, 0);
  return client;
}

const serves = async (client: Client) => (await client.getattr(await client.walk(1))) !== undefined;
const pidOf = (running: Running) => running.child.pid!;

describe('each guest', () => {
  it('has a worker, and loses only its own when that dies', async () => {
    const running = start(['serve', ...isolated, files, ...unix('one'), ...unix('two')]);
    await listening(running, 2);
    expect(workersOf(pidOf(running))).toEqual([]);
    const first = await attach({ path: socketPath('one') });
    const [ofFirst] = workersOf(pidOf(running));
    const second = await attach({ path: socketPath('two') });
    const again = await attach({ path: socketPath('one') });
    expect(workersOf(pidOf(running))).toHaveLength(2);

    process.kill(ofFirst!, 'SIGKILL');
    await Promise.all([first, again].map(({ wire }) => once(wire.socket, 'close')));
    await running.says(/one uid 0 gid 0: the worker .* has died, SIGKILL: 2 connections are gone/);
    expect(await serves(second)).toBe(true);
    await soon(() => workersOf(pidOf(running)).length === 1);
    // The next one may have to wait until a new worker may start.
    await new Promise(resolve => setTimeout(resolve, 300));
    expect(await serves(await attach({ path: socketPath('one') }))).toBe(true);
  });

  it('has a worker that knows and reaches only its exports', async () => {
    for (const name of ['a', 'b']) {
      mkdirSync(join(dir, name));
      writeFileSync(join(dir, name, 'secret'), name);
    }
    const other = JSON.stringify(join(dir, 'b/secret'));
    const env = withAttempts({
      'read the other export': `fs.readFileSync(${other})`,
      'see it': `fs.statSync(${other})`,
      'read its own': `fs.readFileSync(${JSON.stringify(join(dir, 'a/secret'))})`,
      'see a process of the host': `fs.statSync('/proc/${process.pid}')`,
      'be told its number outside': `if (process.pid <= 2) throw { code: 'is not' };`,
      'read the settings of the kernel': `fs.readFileSync('/proc/sys/kernel/core_pattern')`,
    });
    const exports = [`${join(dir, 'a')},name=a,allow=uid:1234`, `${join(dir, 'b')},name=b,allow=uid:1235`];
    const args = exports.flatMap(one => ['--export', one]);
    const running = start(['serve', ...isolated, ...args, ...unix('s')], { env });
    await listening(running, 1);
    chmodSync(dir, 0o755);
    chmodSync(socketPath('s'), 0o666);
    const client = await connectAs(1234, socketPath('s'));
    await client.attach('a', 0);
    for (const name of ['b', 'nonsense'])
      expect(await client.attach(name, 0).catch(error => error)).toBe(EACCES);
    const second = await connectAs(1235, socketPath('s'));
    await second.attach('b', 0);
    const workers = workersOf(pidOf(running));
    expect(workers).toHaveLength(2);
    const inA = workers.find(pid => existsSync(`/proc/${pid}/root${join(dir, 'a')}`))!;
    expect(await attempted(running, inA)).toEqual({
      'read the other export': 'ENOENT',
      'see it': 'ENOENT',
      'read its own': 'done',
      'see a process of the host': 'ENOENT',
      'be told its number outside': 'is not',
      'read the settings of the kernel': 'ENOENT',
    });
    for (const file of ['environ', 'cmdline'])
      expect(readFileSync(`/proc/${inA}/${file}`, 'latin1')).not.toContain(`${join(dir, 'b')},`);
    const namespaces = (pid: number) =>
      ['pid', 'net', 'ipc', 'uts', 'mnt'].map(name => readlinkSync(`/proc/${pid}/ns/${name}`));
    const all = [...workers, pidOf(running)].flatMap(namespaces);
    expect(new Set(all).size).toBe(all.length);
  });

  it('is refused before anything is read of it when it may use no export', async () => {
    const running = start(['serve', ...isolated, '--export', `${files},allow=uid:1234`, ...unix('s')]);
    await listening(running, 1);
    const client = await Client.connect({ path: socketPath('s') }).catch(error => error as Error);
    expect(client).toBeInstanceOf(Error);
    await running.says(/refused, since it may use no export: uid:0 gid:0 is not among allow=uid:1234/);
    expect(workersOf(pidOf(running))).toEqual([]);
  });

  it.each(['null', '{"ended":1000000000}', '{"ended":-1}', '{"problems":[1]}', 'no JSON', '[]'])(
    'harms nobody by a worker that reports %s',
    async report => {
      const env = withAttempts({ lie: `fs.writeSync(3, ${JSON.stringify(report)})` });
      const running = start(['serve', ...isolated, files, ...unix('one'), ...unix('two')], { env });
      await listening(running, 2);
      const honest = await attach({ path: socketPath('two') });
      const liar = await attach({ path: socketPath('one') });
      const [, ofLiar] = workersOf(pidOf(running));
      process.kill(ofLiar!, 'SIGUSR2');
      await once(liar.wire.socket, 'close');
      await running.says(/one .*has died, killed since it sent an invalid report: 1 connections are gone/);
      expect(await serves(honest)).toBe(true);
      expect(processOf(pidOf(running))).toBeDefined();
    },
  );

  it('keeps its worker for a while after its last connection, and no longer', async () => {
    const running = start(['serve', ...isolated, files, ...anyPort, '--limit', 'worker-idle-seconds=1']);
    const port = await running.port();
    (await attach({ port })).wire.socket.destroy();
    const [worker] = workersOf(pidOf(running));
    const again = await attach({ port });
    expect(workersOf(pidOf(running))).toEqual([worker]);
    await new Promise(resolve => setTimeout(resolve, 1500));
    expect(workersOf(pidOf(running))).toEqual([worker]);
    again.wire.socket.destroy();
    await soon(() => workersOf(pidOf(running)).length === 0);
    expect(running.log).not.toContain('has died');
    await canServe({ port });
  });

  it('is refused when all workers are in use, but not for one that is idle', async () => {
    const running = start([
      'serve',
      ...isolated,
      files,
      ...unix('one'),
      ...unix('two'),
      '--limit',
      'guests=1',
    ]);
    await listening(running, 2);
    const first = await attach({ path: socketPath('one') });
    await expect(attach({ path: socketPath('two') })).rejects.toThrow();
    await running.says(/refused, since 1 guests are connected/);
    first.wire.socket.destroy();
    await soon(() => /: closed/.test(running.log));
    await canServe({ path: socketPath('two') });
  });

  it('has a worker that runs as the owner of its export, not as root', async () => {
    chmodSync(dir, 0o755);
    chownSync(files, 1234, 1235);
    const running = start(['serve', ...isolated, files, ...anyPort]);
    await canServe({ port: await running.port() });
    expect(statSync(join(files, 'made'))).toMatchObject({ uid: 1234, gid: 1235 });
    const [worker] = workersOf(pidOf(running));
    const status = readFileSync(`/proc/${worker}/status`, 'utf8');
    expect(status).toMatch(/^Uid:\t1234\t1234\t1234\t1234$/m);
    expect(status).toMatch(/^Gid:\t1235\t1235\t1235\t1235$/m);
    expect(status).toMatch(/^Groups:\t1235 $/m);
    expect(status).toMatch(/^CapBnd:\t0+$/m);
  });
});

describe('the main process', () => {
  it('takes its workers along when it is killed', async () => {
    const running = start(['serve', ...isolated, files, ...anyPort]);
    await attach({ port: await running.port() });
    const [worker] = workersOf(pidOf(running));
    running.child.kill('SIGKILL');
    await soon(() => processOf(worker!) === undefined);
  });

  it('lets running requests be answered at the end, although every process gets the signal', async () => {
    const running = start(['serve', ...isolated, files, ...anyPort]);
    const client = await attach({ port: await running.port() });
    await client.lcreate(await client.walk(1), 'f', P9_RDWR);
    const [worker] = workersOf(pidOf(running));
    process.kill(worker!, 'SIGTERM');
    expect(await serves(client)).toBe(true);
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
    expect(readdirSync(files)).toEqual(['f']);
  });

  it('refuses --workers, and starts no worker with --isolation none', async () => {
    const both = start(['serve', files, '--isolation', 'guest', '--workers', '2', ...anyPort]);
    expect(await both.ended()).toBe(2);
    expect(both.log).toContain('--workers 2 is for --isolation none');
    const running = start(['serve', files, '--isolation', 'none', ...anyPort]);
    await canServe({ port: await running.port() });
    expect(workersOf(pidOf(running))).toEqual([]);
  });
});
