import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { EBADF, EISDIR, ENODATA, ENOENT } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import {
  P9_AT_REMOVEDIR,
  P9_LOCK_SUCCESS,
  P9_LOCK_UNLCK,
  P9_LOCK_WRLCK,
  P9_RDWR,
  V9FS_MAGIC,
} from '#protocol/constants.ts';
import { Server } from '#server.ts';

let dir: string;
let server: Server;
let client: Client;
let root: number;

const outcome = (answer: Promise<unknown>) => answer.catch(error => error);
const bytes = (content: string) => Buffer.from(content, 'latin1');

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'client-'));
  await mkdir(join(dir, 'share'));
  server = await Server.open({ exports: [{ path: join(dir, 'share') }] });
  await server.listen(`unix://${join(dir, 'socket')}`);
});

afterAll(async () => {
  await server.close();
  await rm(dir, { recursive: true });
});

beforeEach(async () => {
  // A small msize, so that listings and files need several messages.
  client = await Client.connect({ path: join(dir, 'socket') }, 4096);
  root = await client.attach('', 0);
});

afterEach(() => client.close());

async function create(name: string, content = ''): Promise<number> {
  const fid = await client.walk(root);
  await client.lcreate(fid, name, P9_RDWR);
  await client.writeAll(fid, bytes(content));
  return fid;
}

describe('a client of a real server', () => {
  it('writes and reads files in many messages', async () => {
    const content = Array.from({ length: 3000 }, (_, n) => `line ${n}\n`).join('');
    const fid = await create('long', content);
    expect((await client.readAll(fid)).toString('latin1')).toBe(content);
    expect((await client.readAll(fid, content.length - 5)).toString('latin1')).toBe(content.slice(-5));
    await client.fsync(fid);
    await client.clunk(fid);
  });

  it('lists directories in many messages, with names of any bytes', async () => {
    const { qid } = await client.mkdir(root, 'many');
    expect(qid.type).toBe(0x80);
    const many = await client.walk(root, 'many');
    const names = ['\xff\xfe\x80', ...Array.from({ length: 200 }, (_, n) => `a name of some length ${n}`)];
    for (const name of names) await client.mknod(many, name, 0o100644);
    const open = await client.walk(many);
    await client.lopen(open);
    const listed = (await client.readdir(open)).map(({ name }) => name);
    expect(listed.sort()).toEqual(['.', '..', ...names].sort());
  });

  it('reads and changes attributes, including times before 1970', async () => {
    const fid = await create('attributes', 'content');
    await client.setattr(fid, { mode: 0o4711, size: 3, mtime: { sec: -1, nsec: 5 }, atime: 'now' });
    const attributes = await client.getattr(fid);
    expect(attributes).toMatchObject({ mode: 0o104711, size: 3, mtime_sec: -1, mtime_nsec: 5, nlink: 1 });
    expect(attributes.atime_sec).toBeGreaterThan(1.6e9);
    await client.setattr(fid, { uid: 1000, gid: 1001 });
    expect(await client.getattr(fid)).toMatchObject({ uid: 1000, gid: 1001 });
    expect(await client.statfs(root)).toMatchObject({ type: V9FS_MAGIC, namelen: 255 });
  });

  it('sets and reads xattrs, and distinguishes an empty one from none', async () => {
    const fid = await create('xattrs');
    // ext4 stores at most one 4 KiB block of xattrs.
    const value = Buffer.alloc(3000, 'v');
    await client.setxattr(fid, 'user.long', value);
    await client.setxattr(fid, 'user.empty', bytes(''));
    expect(await client.getxattr(fid, 'user.long')).toEqual(value);
    expect(await client.getxattr(fid, 'user.empty')).toHaveLength(0);
    expect(await outcome(client.getxattr(fid, 'user.none'))).toBe(ENODATA);
    const names = (await client.getxattr(fid, '')).toString('latin1').split('\0').slice(0, -1);
    expect(names.sort()).toEqual(['user.empty', 'user.long']);
  });

  it('links, renames and removes', async () => {
    const fid = await create('one', 'x');
    await client.link(root, fid, 'two');
    await client.renameat(root, 'two', root, 'three');
    expect((await client.getattr(await client.walk(root, 'three'))).nlink).toBe(2);
    await client.unlinkat(root, 'one');
    await client.remove(await client.walk(root, 'three'));
    expect(await outcome(client.walk(root, 'three'))).toBe(ENOENT);
    expect((await client.readAll(fid)).toString()).toBe('x');
    await client.symlink(root, 'sl', 'to/\xff');
    expect(await client.readlink(await client.walk(root, 'sl'))).toBe('to/\xff');
    await client.mkdir(root, 'gone');
    await client.unlinkat(root, 'gone', P9_AT_REMOVEDIR);
    expect(await outcome(client.renameat(root, '..', root, 'x'))).toBe(EISDIR);
  });

  it('locks', async () => {
    const fid = await create('locked');
    const lock = { flags: 0, start: 0, length: 0, proc_id: 1, client_id: 'vm1' };
    expect(await client.lock(fid, { ...lock, type: P9_LOCK_WRLCK })).toBe(P9_LOCK_SUCCESS);
    const { flags: _, ...range } = lock;
    expect(await client.getlock(fid, { ...range, type: P9_LOCK_WRLCK })).toMatchObject({
      type: P9_LOCK_UNLCK,
    });
    expect(await client.lock(fid, { ...lock, type: P9_LOCK_UNLCK })).toBe(P9_LOCK_SUCCESS);
  });

  it('clunks several fids at once', async () => {
    const fids = await Promise.all([client.walk(root), client.walk(root), client.walk(root)]);
    await client.clunk(...fids);
    expect(await outcome(client.getattr(fids[1]!))).toBe(EBADF);
  });
});
