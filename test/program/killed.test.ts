import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Client } from '#client/client.ts';
import { command } from '../support/compiled.ts';
import { Ninepd } from '../support/ninepd.ts';
import { childrenOf, descendantsOf, type Process, processOf } from '../support/processes.ts';
import { Stalling } from '../support/stalling/stalling.ts';

const rdwr = 2;
/** Less than the idle time after which a thread ends, 5 s. */
const endedMsMax = 4_000;

/** Whether the port is open. */
function listens(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
    socket.on('close', () => socket.destroy());
  });
}

/** Whether a process is still running. */
const lives = ({ pid, name }: Process) => {
  const now = processOf(pid);
  return now?.name === name && now.state !== 'Z';
};

describe('a server with calls on a FUSE file system, when it is killed', () => {
  let top: string;
  let mount: Stalling | undefined;
  let server: Ninepd;

  beforeEach(async () => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-killed-'));
    chmodSync(top, 0o755);
    mkdirSync(join(top, 'files'));
    mount = await Stalling.mount(join(top, 'files'));
  });
  afterEach(async () => {
    // Hanging calls return.
    await unmount();
    await server.stop();
    rmSync(top, { recursive: true });
  });

  const unmount = async () => {
    const mounted = mount;
    mount = undefined;
    await mounted?.end();
  };
  const start = async (...args: string[]) => {
    const path = join(top, 'files');
    server = await Ninepd.start({ exports: [{ path, name: 'files', securityModel: 'passthrough' }], args });
  };

  /** A connection after a call as each of two users. */
  const used = async () => {
    const client = await Client.connect({ port: server.port });
    for (const uid of [70_001, 70_002]) {
      const made = await client.attach('files', uid);
      await client.lcreate(made, `of-${uid}`, rdwr, 0o644, 65534);
    }
    return { client, closed: once(client.wire.socket, 'close') };
  };

  const portIsFree = () =>
    vi.waitFor(async () => expect(await listens(server.port)).toBe(false), { timeout: 20_000 });

  /** Resolves when a call on this file hangs. */
  const hangsIn = (name: string) =>
    vi.waitFor(() => expect(existsSync(join(top, 'files', `${name}.hangs`))).toBe(true), {
      timeout: 20_000,
    });

  /** Starts a call as a user that does not return. */
  const hang = async (client: Client, name: string) => {
    const fid = await client.walk(await client.attach('files', 70_001), name);
    await client.lopen(fid, rdwr);
    void client.write(fid, 0, Buffer.from('x')).catch(() => undefined);
    await hangsIn(name);
  };

  it('ends all of its processes at once', async () => {
    await start();
    const { closed } = await used();
    const processes = childrenOf(server.pid).filter(({ name }) => name !== 'ninepd-groups');
    expect(processes.length).toBeGreaterThan(1);
    process.kill(server.pid, 'SIGKILL');
    await vi.waitFor(() => expect(processes.filter(lives)).toEqual([]), { timeout: endedMsMax });
    await closed;
    await portIsFree();
  });

  it.each([
    ['in the sandbox', []],
    ['without a sandbox', ['--sandbox', 'off']],
    ['in a worker of its guest', ['--isolation', 'guest']],
  ])('lets go of its port and connections though a call hangs, %s', async (_how, args) => {
    await start(...args);
    const { client, closed } = await used();
    const other = await used();
    await hang(client, 'write0');
    const processes = descendantsOf(server.pid).filter(({ name }) => name === 'ninepd-pool');
    process.kill(server.pid, 'SIGKILL');
    await Promise.all([closed, other.closed]);
    await portIsFree();
    // Standard error is a pipe, for whose end a reader may wait.
    await server.silent;
    // Only the hanging process is left, until its call returns.
    await vi.waitFor(() => expect(processes.filter(lives)).toHaveLength(1), { timeout: 20_000 });
    await unmount();
    await vi.waitFor(() => expect(processes.filter(lives)).toEqual([]), { timeout: 20_000 });
  });

  it('lets go of the connections of one of several processes', async () => {
    await start('--workers', '2');
    const { client, closed } = await used();
    // The name of Node's main thread differs from version to version.
    const workers = childrenOf(server.pid).filter(({ name }) => !name.startsWith('ninepd-'));
    await hang(client, 'write0');
    const worker = workers.find(({ pid }) => childrenOf(pid).length > 0);
    process.kill(worker!.pid, 'SIGKILL');
    await closed;
    await vi.waitFor(() => expect(server.log()).toMatch(/has died, SIGKILL/), { timeout: 20_000 });
    const again = await used();
    again.client.wire.socket.destroy();
  });

  it('is closed for by another process though the first one to do that was killed', async () => {
    await start();
    const { client, closed } = await used();
    await hang(client, 'write0');
    const closer = () => childrenOf(server.pid).filter(({ name }) => name === 'ninepd-closer');
    const [first] = closer();
    process.kill(first!.pid, 'SIGKILL');
    await vi.waitFor(
      () => expect(closer().map(({ pid }) => pid)).toEqual([expect.not.toSatisfy(pid => pid === first!.pid)]),
      { timeout: 20_000 },
    );
    process.kill(server.pid, 'SIGKILL');
    await closed;
  });

  it('ends with status 1 at a signal though no attributes can be had', async () => {
    await start();
    const { client } = await used();
    const root = await client.attach('files', 70_001);
    void client.walk(root, 'getattr0').catch(() => undefined);
    await hangsIn('getattr0');
    expect(await server.stop()).toBe(1);
    await server.silent;
  });
});

describe('a process that ends in order', () => {
  it('closes its pipes though a call hangs', async () => {
    const top = mkdtempSync(join(tmpdir(), 'ninepd-hanging-'));
    const mount = await Stalling.mount(top);
    const host = pathToFileURL(join(import.meta.dirname, '../../dist/host')).href;
    const script = `
      import { existsSync, openSync } from 'node:fs';
      import { unknownFs } from '${host}/local.js';
      import { exitInOrder } from '${host}/process.js';
      import { noSession, serverCreds } from '${host}/syscalls.js';
      void unknownFs(noSession).write(serverCreds, openSync('${top}/write0', 'r+'), [new Uint8Array(1)], 0);
      while (!existsSync('${top}/write0.hangs')) await new Promise(resolve => setTimeout(resolve, 1));
      exitInOrder();`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [status] = await once(child, 'close');
    expect(status).toBe(0);
    await mount.end();
    rmSync(top, { recursive: true });
  });
});

describe('a server with a call on a frozen disk, when it is killed', () => {
  it('lets go of its port and connections', async () => {
    const top = mkdtempSync(join(tmpdir(), 'ninepd-frozen-'));
    const disk = join(top, 'disk');
    const image = join(top, 'image');
    mkdirSync(disk);
    writeFileSync(image, '');
    truncateSync(image, 32 * 1024 * 1024);
    command('mkfs.ext4', '-q', '-F', image);
    command('mount', '-o', 'loop', image, disk);
    const server = await Ninepd.start({ exports: [{ path: disk, name: 'disk', securityModel: 'mapped' }] });
    try {
      const client = await Client.connect({ port: server.port });
      let closed = false;
      client.wire.socket.on('close', () => {
        closed = true;
      });
      const root = await client.attach('disk', 0);
      await client.mkdir(root, 'before');
      command('fsfreeze', '--freeze', disk);
      let made = false;
      void client.mkdir(root, 'after').then(
        () => {
          made = true;
        },
        () => undefined,
      );
      await client.getattr(root);
      process.kill(server.pid, 'SIGKILL');
      await vi.waitFor(() => expect(closed).toBe(true), { timeout: 20_000 });
      await vi.waitFor(async () => expect(await listens(server.port)).toBe(false), { timeout: 20_000 });
      expect([made, server.running]).toEqual([false, true]);
    } finally {
      command('fsfreeze', '--unfreeze', disk);
      await server.stop();
      command('umount', disk);
      rmSync(top, { recursive: true });
    }
  });
});
