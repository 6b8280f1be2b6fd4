import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Client } from '#client/client.ts';
import { Wire } from '#client/wire.ts';
import { fdOf } from '#transport/handle.ts';
import { Frontend, Monitor } from '../support/vhost-frontend.ts';
import {
  canServe,
  dir,
  files,
  P9_RDWR,
  program,
  Running,
  refused,
  start,
  stopTwiceWithUnreadReplies,
} from './cli-program.ts';

const listen = ['--listen', 'tcp://127.0.0.1:0'];

/** The children of a process, in order of creation. */
function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}

const isAlive = (pid: number) => {
  // A zombie has no command line any more.
  return existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== '';
};

async function soon(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !holds(); i++) await new Promise(resolve => setTimeout(resolve, 10));
  expect(holds()).toBe(true);
}

/** The worker of each connection, in order. */
const spread = ({ log }: Running) =>
  [...log.matchAll(/worker (\d): .*: connected/g)].map(match => Number(match[1]));

/** A served connection: its worker is in the log afterwards. */
async function served(running: Running, address: { port: number } | { path: string }): Promise<Client> {
  const before = spread(running).length;
  const client = await Client.connect(address);
  await client.attach('', 0);
  await soon(() => spread(running).length > before);
  return client;
}

describe('the program with two workers', () => {
  it('spreads connections evenly, those that come later too, and says each listener and READY once', async () => {
    const socket = join(dir, 's');
    const running = start(['serve', files, '--workers', '2', ...listen, '--listen', `unix://${socket}`]);
    const port = await running.port();
    await running.says(/aname=.* \/.*\/s \/mnt/);
    expect(running.log.match(/^listening on /gm)).toHaveLength(2);
    const clients: Client[] = [];
    for (const address of [{ port }, { path: socket }, { port }, { path: socket }]) {
      clients.push(await served(running, address));
    }
    const [first, second, ...rest] = spread(running);
    expect([first, second].sort()).toEqual([1, 2]);
    expect(rest).toEqual([first, second]);
    // Both connections of one worker, which gets the next two.
    for (const index of [0, 2]) {
      clients[index]!.wire.socket.destroy();
      await soon(() => running.log.match(/: closed/g)?.length === index / 2 + 1);
    }
    for (let i = 0; i < 2; i++) clients.push(await served(running, { port }));
    expect(spread(running).slice(4)).toEqual([first, first]);
    await canServe({ path: socket });
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
    expect(existsSync(socket)).toBe(false);
    for (const client of clients) client.wire.socket.destroy();
  });

  it('knows in each of them where a connection came from', async () => {
    const running = start(['--export', `${files},allow=tcp:127.0.0.2`, '--workers', '2', ...listen]);
    const port = await running.port();
    for (const localAddress of ['127.0.0.1', '127.0.0.1', '127.0.0.2', '127.0.0.2']) {
      const client = new Client(new Wire(net.connect({ port, host: '127.0.0.1', localAddress })));
      // A peer that no export allows is disconnected.
      const begun = client.version(65_536).then(() => client.attach('', 0));
      const attached = await begun.then(
        () => true,
        () => false,
      );
      expect(attached).toBe(localAddress === '127.0.0.2');
      client.wire.socket.destroy();
    }
  });

  it('replaces a worker that dies, whose connections end and no others', async () => {
    // Log level that names each connection, however many are needed until the new worker has its share.
    const running = start(['serve', files, '--workers', '2', '--log-level', 'debug', ...listen]);
    const port = await running.port();
    const [one, two] = [await served(running, { port }), await served(running, { port })];
    const [, ofTwo] = spread(running);
    const victim = childrenOf(running.child.pid!)[ofTwo! - 1]!;
    process.kill(victim, 'SIGKILL');
    await two.wire.closed;
    await running.says(
      new RegExp(`ERROR: worker ${ofTwo} \\(process ${victim}\\) has died, SIGKILL: 1 connections are gone`),
    );
    await one.getattr(await one.attach('', 0));
    // The other worker takes connections meanwhile.
    await canServe({ port });
    await soon(() => childrenOf(running.child.pid!).length === 2);
    let again = 0;
    const clients: Client[] = [];
    for (let i = 0; i < 200 && again !== ofTwo; i++) {
      clients.push(await served(running, { port }));
      again = spread(running).at(-1)!;
    }
    expect(again).toBe(ofTwo);
    await clients.at(-1)!.getattr(await clients.at(-1)!.attach('', 0));
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
    for (const client of [one, ...clients]) client.wire.socket.destroy();
  });

  it('answers what runs before it stops, although every process gets the signal', async () => {
    const running = start(['serve', files, '--workers', '2', ...listen]);
    const port = await running.port();
    const workers = childrenOf(running.child.pid!);
    const client = await Client.connect({ port });
    const fid = await client.attach('', 0);
    await client.lcreate(fid, 'f', P9_RDWR);
    await client.writeAll(fid, Buffer.alloc(1_000_000));
    const synced = client.wire.request('fsync', { fid, datasync: 0 });
    await client.getattr(fid);
    for (const pid of [...workers, running.child.pid!]) process.kill(pid, 'SIGTERM');
    await synced;
    await client.wire.closed;
    expect(await running.ended()).toBe(0);
    expect(running.log).toContain('stopped');
    expect(running.log).not.toContain('died');
    expect(workers.filter(isAlive)).toEqual([]);
  });

  it('stops at once at a second signal, and leaves no process', async () => {
    const running = start(['serve', files, '--workers', '2', ...listen]);
    const client = await Client.connect({ port: await running.port() });
    const workers = childrenOf(running.child.pid!);
    await stopTwiceWithUnreadReplies(running, client);
    expect(await running.ended()).toBe(1);
    expect(running.log).toContain('stopped at once by a second SIGTERM');
    await soon(() => workers.every(pid => !isAlive(pid)));
    client.wire.socket.destroy();
  });

  it('leaves no worker behind when the first process is killed', async () => {
    const running = start(['serve', files, '--workers', '2', ...listen]);
    await running.port();
    const workers = childrenOf(running.child.pid!);
    expect(workers).toHaveLength(2);
    running.child.kill('SIGKILL');
    await running.ended();
    await soon(() => workers.every(pid => !isAlive(pid)));
  });

  it('names every fault once, also those that only a worker finds, and starts nothing then', async () => {
    const taken = net.createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as net.AddressInfo;
    const two = ['--workers', '2'];
    expect(refused('serve', 'none', '--workers', 'many')).toHaveLength(2);
    const [inUse, ...more] = refused('serve', files, ...two, '--listen', `tcp://127.0.0.1:${port}`);
    expect(inUse).toContain('in use');
    expect(more).toEqual([]);
    const device = `vhost-user://${dir}/v?tag=t&export=nothing`;
    const [noExport, ...others] = refused('serve', files, ...two, '--listen', device);
    expect(noExport).toContain('there is no export "nothing"');
    expect(others).toEqual([]);
    expect(readdirSync(dir)).toEqual(['files']);
    taken.close();
  });

  it('holds as many connections as it may and no more, however many processes there are', async () => {
    // They send no Tversion, and may take a while.
    const limits = ['--limit', 'connections=40', '--limit', 'version-seconds=600', '--log-level', 'warn'];
    const running = start(['serve', files, '--workers', '2', ...limits, ...listen]);
    const port = await running.port();
    const sockets = Array.from({ length: 40 }, () => net.connect(port, '127.0.0.1'));
    await Promise.all(sockets.map(socket => once(socket, 'connect')));
    const late = net.connect(port, '127.0.0.1');
    late.on('error', () => undefined);
    await once(late, 'close');
    await running.says(/refused, since 40 connections are open/);
    sockets.pop()!.destroy();
    // As soon as the main process knows of it.
    const again = async (tries: number): Promise<void> => {
      await canServe({ port }).catch(error => (tries > 0 ? again(tries - 1) : Promise.reject(error)));
    };
    await again(500);
    for (const socket of sockets) socket.destroy();
  });
});

describe('a listening socket of the service manager', () => {
  it('is served by two workers as well, and not told to them', async () => {
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    const fd = fdOf(server);
    const launch = `LISTEN_FDS=1 LISTEN_PID=$$ exec "${process.execPath}" "${program}" serve "${files}" --workers 2`;
    const running = new Running(spawn('sh', ['-c', launch], { stdio: ['ignore', 'ignore', 'pipe', fd] }));
    await running.says(/^listening on fd:\/\/3$/m);
    server.close();
    await canServe({ port });
    for (const pid of childrenOf(running.child.pid!)) {
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8');
      expect(environment).not.toMatch(/LISTEN_|NOTIFY_SOCKET/);
    }
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });

  it('may be one connection, with which the program ends', async () => {
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
    const [connection] = (await once(server, 'connection')) as [net.Socket];
    const fd = fdOf(connection);
    const args = [program, 'serve', files, '--workers', '2', '--listen', 'fd://3'];
    const running = new Running(spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe', fd] }));
    await running.says(/^listening on fd:\/\/3$/m);
    connection.destroy();
    server.close();
    client.write(Buffer.from('1500000064ffff0020000008003950323030302e4c', 'hex'));
    const [reply] = (await once(client, 'data')) as [Buffer];
    expect(reply[4]).toBe(101);
    client.end();
    expect(await running.ended()).toBe(0);
  });
});

describe('devices of guests', () => {
  it('are dealt out to the workers, each with its own, which also knows whether it is taken', async () => {
    const paths = ['one', 'two'].map(name => join(dir, name));
    const devices = paths.map(path => `vhost-user://${path}?tag=share`);
    const running = start(['serve', files, '--workers', '2', ...devices.flatMap(uri => ['--listen', uri])]);
    await running.says(/listening on vhost-user:.*two/);
    const guests: Frontend[] = [];
    for (const path of paths) {
      const guest = await Frontend.connect(path);
      guests.push(guest);
      await guest.start();
      await guest.attach();
    }
    await running.says(/worker 1: vhost-user .*one .*the monitor connected/);
    await running.says(/worker 2: vhost-user .*two .*the monitor connected/);
    const [one, two] = guests as [Frontend, Frontend];
    await one.request('mkdir', { dfid: 0, name: 'made' as never, mode: 0o755, gid: 0 });
    const walked = await two.request('walk', { fid: 0, newfid: 1, wname: ['made' as never] });
    expect(walked).toMatchObject({ wqid: [{ type: 0x80 }] });
    const late = await Monitor.connect(paths[1]!);
    await late.closed();
    late.close();
    await running.says(/worker 2: vhost-user .*refused: the socket already serves/);
    for (const guest of guests) guest.close();
    await running.says(/worker 1: .*the monitor disconnected/);
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
  });
});
