import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { noSession } from '#host/syscalls.ts';
import {
  Attr,
  Client,
  ConfigError,
  EIO,
  extendModel,
  MemoryTree,
  passthrough,
  type SecurityModel,
  Server,
} from '#index.ts';
import { contextOf } from '../support/context.ts';
import { heldBy } from '../support/descriptors.ts';
import { logTo } from '../support/line-log.ts';

let dir: string;
let files: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'ninepd-server-'));
  files = join(dir, 'files');
  mkdirSync(files);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Descriptors of this process on anything below the test's directory. */
function held(): string[] {
  return heldBy().filter(path => path.startsWith(dir));
}

function portOf(uri: string): number {
  return Number(/:(\d+)$/.exec(uri)![1]);
}

describe('an embedded server', () => {
  it('needs nothing but exports, serves several listeners, and holds nothing when it is closed', async () => {
    const server = await Server.open({ exports: [{ path: files }] });
    const tcp = await server.listen('tcp://[::1]:0');
    expect(tcp).toMatch(/^tcp:\/\/\[::1\]:\d+$/);
    const path = join(dir, 's');
    expect(await server.listen(`unix://${path}`)).toBe(`unix://${path}`);
    const clients = [
      await Client.connect({ host: '::1', port: portOf(tcp) }),
      await Client.connect({ path }),
    ];
    for (const [i, client] of clients.entries()) {
      const fid = await client.attach('', 0);
      await client.lcreate(fid, `f${i}`, 2);
      await client.writeAll(fid, Buffer.from('content'));
    }
    expect(server.connections).toBe(2);
    expect(held().length).toBeGreaterThan(0);
    expect(await server.close()).toBe(true);
    await Promise.all(clients.map(client => client.wire.closed));
    expect(held()).toEqual([]);
    expect(readFileSync(join(files, 'f1'), 'utf8')).toBe('content');
  });

  it('serves a backend of its own beside a directory, and leaves it open', async () => {
    const tree = new MemoryTree({ bytesMax: 1 << 20 });
    const server = await Server.open({
      exports: [{ path: files }, { name: 'memory', tree, readonly: false }],
    });
    const path = join(dir, 's');
    await server.listen(`unix://${path}`);
    const client = await Client.connect({ path });
    const fid = await client.attach('memory', 0);
    await client.mkdir(fid, 'd');
    expect((await client.getattr(await client.walk(fid, 'd'))).mode & 0o777).toBe(0o755);
    expect(readdirSync(files)).toEqual([]);
    await client.close();
    await server.close();
    const attr = new Attr();
    await tree.stat(contextOf(await tree.credentials(noSession, 0)), tree.root, attr);
    expect(attr.nlink).toBe(3);
  });

  it('serves a directory with a security model of its own', async () => {
    const everythingIsMine: SecurityModel = {
      ...passthrough(() => undefined),
      name: 'mine',
      overlaysAttrs: true,
      overlayAttrs: (_target, attr) => {
        attr.uid = 4242;
      },
    };
    const server = await Server.open({ exports: [{ path: files, securityModel: everythingIsMine }] });
    const path = join(dir, 's');
    await server.listen(`unix://${path}`);
    const client = await Client.connect({ path });
    expect((await client.getattr(await client.attach('', 0))).uid).toBe(4242);
    await client.close();
    await server.close();
  });

  it('says that an error may be of a security model of its own', async () => {
    const lines: string[] = [];
    const failing = extendModel(
      passthrough(() => undefined),
      {
        name: 'mine',
        setInitialAttrs: () => {
          throw EIO;
        },
      },
    );
    const exports = [{ path: files, name: 'files', securityModel: failing }];
    const server = await Server.open({ exports, log: logTo(lines) });
    const path = join(dir, 's');
    await server.listen(`unix://${path}`);
    const client = await Client.connect({ path });
    const top = await client.attach('', 0);
    await expect(client.mkdir(top, 'd')).rejects.toMatchObject({ name: 'EIO' });
    expect(lines.filter(line => line.startsWith('files: EIO: '))).toEqual([
      expect.stringContaining('or the security model "mine" gave this error; request: Tmkdir'),
    ]);
    await client.close();
    await server.close();
  });

  it('names all that is wrong with its exports, and holds none of them', async () => {
    const exports = [
      { path: files, name: '' },
      { path: join(dir, 'none') },
      { path: files, name: 'a,b' },
      { path: files, name: '/' },
    ];
    const opening = Server.open({ exports });
    await expect(opening).rejects.toThrow(ConfigError);
    const { problems } = (await opening.catch(error => error)) as ConfigError;
    expect(problems).toHaveLength(4);
    expect(held()).toEqual([]);
    await expect(Server.open({ exports: [] })).rejects.toThrow(/nothing to export/);
  });

  it('says what is wrong with a URI', async () => {
    const server = await Server.open({ exports: [{ path: files }] });
    await expect(server.listen('http://127.0.0.1:1')).rejects.toThrow(/tcp:\/\/HOST:PORT/);
    await server.close();
  });

  it('tells its logger who comes, what is used, and who goes', async () => {
    const lines: string[] = [];
    const log = logTo(lines);
    const server = await Server.open({ exports: [{ path: files, name: 'data', readonly: true }], log });
    const client = await Client.connect({ port: portOf(await server.listen('tcp://127.0.0.1:0')) });
    for (const uid of [0, 1000]) await client.attach('data', uid);
    for (const aname of ['a\n', 'b']) await client.attach(aname).catch(() => undefined);
    client.wire.socket.destroy();
    await server.connectionsEnded();
    await server.close();
    const peer = /^tcp 127\.0\.0\.1:\d+: /;
    expect(lines.every(line => peer.test(line))).toBe(true);
    const said = lines.map(line => line.replace(peer, ''));
    expect(said).toEqual([
      'connected',
      'uses data (mapped, read-only)',
      'asks for "a\\n", which is no export',
      'closed',
    ]);
  });

  it('leaves modes to the guest, whatever the umask was', async () => {
    const before = process.umask(0o077);
    const server = await Server.open({ exports: [{ path: files, fmode: 0o666, dmode: 0o777 }] });
    const client = await Client.connect({ port: portOf(await server.listen('tcp://127.0.0.1:0')) });
    const fid = await client.attach('', 0);
    await client.lcreate(fid, 'f', 2, 0o600);
    client.wire.socket.destroy();
    await server.close();
    expect(process.umask(before)).toBe(0);
    chmodSync(files, 0o755);
    expect(readdirSync(files)).toEqual(['f']);
  });
});
