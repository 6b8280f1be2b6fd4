import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { S_IFIFO } from '#base/attr.ts';
import { EIO, ENOENT, ENOSPC, EROFS, type Errno } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import { Ninepd } from '../support/ninepd.ts';
import { type Model, readFromHost } from './host-reader.ts';
import { SmallDisk } from './small-disk.ts';

const O_RDWR = 2;
const O_TRUNC = 0o1000;
const AT_REMOVEDIR = 0x200;
const piece = 65_536;
const models: readonly Model[] = ['mapped', 'passthrough'];

let top: string;
let disk: SmallDisk | undefined;
let server: Ninepd;
let client: Client;

beforeEach(() => {
  top = realpathSync(mkdtempSync(join(tmpdir(), 'ninepd-faults-')));
});

afterEach(async () => {
  await client?.close();
  await server?.stop();
  disk?.remove();
  disk = undefined;
  rmSync(top, { recursive: true, force: true });
});

async function serve(path: string, model: Model): Promise<void> {
  const listen = `unix://${join(top, 'socket')}`;
  rmSync(join(top, 'socket'), { force: true });
  server = await Ninepd.start({ exports: [{ path, name: 'files', securityModel: model }], listen: [listen] });
  client = await Client.connect({ path: join(top, 'socket') });
}

/** The errno with which a request fails. */
const errorOf = (request: Promise<unknown>): Promise<unknown> =>
  request.then(
    () => 'no error',
    error => error,
  );

/** Logged host errors: one line however many requests fail. */
const warnings = (errno: Errno) =>
  server.log().match(new RegExp(`WARN: files: ${errno.name}: .*`, 'g')) ?? [];

async function make(root: number, name: string, content: Buffer, mode = 0o640): Promise<number> {
  const fid = await client.walk(root);
  await client.lcreate(fid, name, O_RDWR, mode, 7);
  await client.writeAll(fid, content);
  return fid;
}

async function content(root: number, name: string): Promise<Buffer> {
  const fid = await client.walk(root, [name]);
  await client.lopen(fid, 0);
  const bytes = await client.readAll(fid);
  await client.clunk(fid);
  return bytes;
}

describe.each(models)('a disk with a fault, %s', model => {
  it('that is full says ENOSPC, keeps what is there, has nothing half made, and goes on when there is room', async () => {
    disk = new SmallDisk(top, 'disk', 12, 128);
    await serve(disk.path, model);
    const root = await client.attach('files', 0);
    const kept = Buffer.alloc(piece, 'kept');
    await client.clunk(await make(root, 'kept', kept));
    const large = await make(root, 'large', Buffer.alloc(0));
    let bytes = 0;
    const fill = async (): Promise<never> => {
      for (;;) bytes += await client.write(large, bytes, Buffer.alloc(piece, 'x'));
    };
    expect(await errorOf(fill())).toBe(ENOSPC);
    expect(bytes).toBeGreaterThan(1 << 20);
    for (let i = 0; i < 5; i++) expect(await errorOf(client.write(large, bytes, kept))).toBe(ENOSPC);
    expect(Number((await client.getattr(large)).size)).toBe(bytes);
    // Directories and long targets need blocks, some of which ext4 reserves; files need an inode.
    let directories = 0;
    const fillBlocks = async (): Promise<never> => {
      for (; ; directories++) await client.mkdir(root, `directory${directories}`);
    };
    expect(await errorOf(fillBlocks())).toBe(ENOSPC);
    expect(await errorOf(client.symlink(root, 'link', 't'.repeat(3000)))).toBe(ENOSPC);
    let files = 0;
    const fillInodes = async (): Promise<never> => {
      for (; ; files++) await client.clunk(await make(root, `file${files}`, Buffer.alloc(0)));
    };
    expect(await errorOf(fillInodes())).toBe(ENOSPC);
    expect(files).toBeGreaterThan(50);
    expect(await errorOf(client.mknod(root, 'fifo', S_IFIFO | 0o600))).toBe(ENOSPC);
    const there = readdirSync(disk.path).filter(name => name !== 'lost+found');
    const made = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name}${i}`);
    const wanted = ['kept', 'large', ...made('file', files), ...made('directory', directories)];
    expect(there.sort()).toEqual(wanted.sort());
    for (const name of there) {
      const mode = name.startsWith('directory') ? 0o040755 : 0o100640;
      expect(readFromHost(model, join(disk.path, name)).mode).toBe(mode);
    }
    expect((await content(root, 'kept')).equals(kept)).toBe(true);

    await client.clunk(large);
    await client.unlinkat(root, 'large');
    await client.unlinkat(root, 'file0');
    const after = await make(root, 'after', kept);
    await client.fsync(after);
    expect((await content(root, 'after')).equals(kept)).toBe(true);
    expect(warnings(ENOSPC)).toHaveLength(1);
  });

  it('that becomes read-only says EROFS to every change, can be read, and goes on when it is writable', async () => {
    disk = new SmallDisk(top, 'disk', 12, 128);
    await serve(disk.path, model);
    const root = await client.attach('files', 0);
    await client.clunk(await make(root, 'file', Buffer.from('content')));
    await client.mkdir(root, 'directory');
    disk.remount('ro');
    const file = await client.walk(root, ['file']);
    const changes = [
      client.walk(root).then(fid => client.lcreate(fid, 'new', O_RDWR)),
      client.walk(file).then(fid => client.lopen(fid, O_RDWR)),
      client.walk(file).then(fid => client.lopen(fid, O_TRUNC | 1)),
      client.mkdir(root, 'new'),
      client.symlink(root, 'new', 'target'),
      client.mknod(root, 'new', S_IFIFO | 0o600),
      client.link(root, file, 'new'),
      client.renameat(root, 'file', root, 'new'),
      client.unlinkat(root, 'file'),
      client.unlinkat(root, 'directory', AT_REMOVEDIR),
      client.setattr(file, { mode: 0o600 }),
      client.setattr(file, { uid: 5 }),
      client.setattr(file, { size: 0 }),
      client.setattr(file, { mtime: 'now' }),
      client.setxattr(file, 'user.x', Buffer.from('x')),
    ];
    expect(await Promise.all(changes.map(errorOf))).toEqual(changes.map(() => EROFS));
    expect((await content(root, 'file')).toString()).toBe('content');
    expect(warnings(EROFS)).toHaveLength(1);
    disk.remount('rw');
    await client.setattr(file, { size: 3 });
    await client.renameat(root, 'file', root, 'new');
    expect((await content(root, 'new')).toString()).toBe('con');
  });

  it('that answers EIO hands that on and nothing else, and has all that was fsynced when it is well again', async () => {
    disk = new SmallDisk(top, 'disk', 12, 128);
    await serve(disk.path, model);
    const root = await client.attach('files', 0);
    const synced = Buffer.alloc(4 * piece, 'synced');
    const fid = await make(root, 'synced', synced);
    await client.fsync(fid);
    await client.clunk(fid);
    const open = await client.walk(root, ['synced']);
    await client.lopen(open, O_RDWR);
    disk.forget('synced');
    disk.breakDown();
    for (let i = 0; i < 5; i++) expect(await errorOf(client.read(open, 0, 4096))).toBe(EIO);
    // It goes to the page cache; fsync reports the error.
    await client.write(open, 0, Buffer.alloc(4096, 'lost'));
    expect(await errorOf(client.fsync(open))).toBe(EIO);
    expect(server.running).toBe(true);
    expect(warnings(EIO)).toHaveLength(1);

    await client.close();
    expect(await server.stop()).toBe(0);
    disk.unmount();
    disk.repair();
    disk.mount();
    await serve(disk.path, model);
    const again = await client.attach('files', 0);
    expect((await content(again, 'synced')).equals(synced)).toBe(true);
    expect(readFromHost(model, join(disk.path, 'synced'))).toMatchObject({ mode: 0o100640, uid: 0, gid: 7 });
  });

  it('that is unmounted lazily is served on, and the host sees all of it when it is mounted again', async () => {
    disk = new SmallDisk(top, 'disk', 12, 128);
    await serve(disk.path, model);
    const root = await client.attach('files', 0);
    await client.clunk(await make(root, 'before', Buffer.from('before')));
    disk.unmount('--lazy');
    expect(readdirSync(disk.path)).toEqual([]);
    await client.clunk(await make(root, 'after', Buffer.from('after')));
    expect((await content(root, 'before')).toString()).toBe('before');
    disk.mount();
    expect(readFromHost(model, join(disk.path, 'after')).content?.toString()).toBe('after');
    await client.close();
    expect(await server.stop()).toBe(0);
    disk.unmount();
    disk.mount();
    expect(readFromHost(model, join(disk.path, 'after')).content?.toString()).toBe('after');
  });

  it('whose exported directory is removed has nothing more to offer, says so once, and leaves a new one at its path alone', async () => {
    const path = join(top, 'directory');
    const makeIt = () => {
      mkdirSync(path);
      chmodSync(path, 0o755);
    };
    makeIt();
    await serve(path, model);
    const root = await client.attach('files', 0);
    const open = await make(root, 'open', Buffer.from('still here'));
    rmSync(path, { recursive: true });
    makeIt();
    expect(Number((await client.getattr(root)).nlink)).toBe(0);
    expect((await client.read(open, 0, 100)).toString()).toBe('still here');
    const others = [
      client.walk(root, ['open']),
      client.mkdir(root, 'new'),
      client.symlink(root, 'new', 'target'),
      client.walk(root).then(fid => client.lcreate(fid, 'new', O_RDWR)),
      client.link(root, open, 'new'),
    ];
    expect(await Promise.all(others.map(errorOf))).toEqual(others.map(() => ENOENT));
    for (let i = 0; i < 3; i++) await client.clunk(await client.attach('files', 0));
    expect(server.log().match(/WARN: files: its directory was removed/g)).toHaveLength(1);
    expect(readdirSync(path)).toEqual([]);

    await client.close();
    expect(await server.stop()).toBe(0);
    await serve(path, model);
    const again = await client.attach('files', 0);
    await client.clunk(await make(again, 'new', Buffer.from('new')));
    expect(readFileSync(join(path, 'new'), 'utf8')).toBe('new');
  });
});
