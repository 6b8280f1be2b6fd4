import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Errno } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import { Disconnected } from '#client/wire.ts';
import { command } from '../support/compiled.ts';
import { fuse } from '../support/environments/file-systems.ts';
import { namesIn } from '../support/names-in.ts';
import { Ninepd } from '../support/ninepd.ts';

const meta = '.virtfs_metadata';
const rdwr = 2;
const excl = 0o200;
const removeDir = 0x200;

const start = (path: string, ...args: string[]) =>
  Ninepd.start({ exports: [{ path, name: 'files', securityModel: 'mapped-file' }], args });

async function attached(server: Ninepd, uid = 0): Promise<{ c: Client; root: number }> {
  const c = await Client.connect({ port: server.port });
  return { c, root: await c.attach('files', uid) };
}

/** What an error of the server is called; other errors are thrown. */
const errno = (act: Promise<unknown>) =>
  act.then(
    () => 'none',
    (error: unknown) => {
      if (error instanceof Errno) return error.name;
      throw error;
    },
  );

describe('a file system without extended attributes (ramfs)', () => {
  let top: string;
  let path: string;

  beforeAll(() => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-ramfs-'));
    path = join(top, 'files');
    mkdirSync(path);
    command('mount', '-t', 'ramfs', 'ramfs', path);
  });
  afterAll(() => {
    command('umount', path);
    rmSync(top, { recursive: true });
  });

  it('is refused by mapped, which names mapped-file', () => {
    const program = join(import.meta.dirname, '../../dist/cli/main.js');
    const { stderr, status } = spawnSync(process.execPath, [program, 'serve', '--export', path], {
      encoding: 'utf8',
      timeout: 20_000,
    });
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/no user extended attributes.*mapped-file/);
  });

  it('is served by mapped-file, in the sandbox, and again after a restart', async () => {
    let server = await start(path);
    try {
      let { c, root } = await attached(server, 1000);
      const d = await c.walk(root);
      await c.mkdir(d, 'd', 0o2750, 1001);
      const inside = await c.walk(root, 'd');
      await c.symlink(inside, 'link', '/nowhere', 5);
      await c.mknod(inside, 'null', 0o020666, 1, 3, 0);
      const file = await c.walk(inside);
      await c.lcreate(file, 'f', rdwr, 0o6755, 1001);
      await c.write(file, 0, Buffer.from('x'));
      expect((await c.getattr(file)).mode.toString(8)).toBe('100755');
      await c.setattr(file, { uid: 7, gid: 8, mode: 0o640 });
      await c.link(inside, file, 'hard');
      await c.renameat(inside, 'f', root, 'g');
      expect(await errno(c.setxattr(file, 'user.a', Buffer.from('v')))).toBe('EOPNOTSUPP');
      await c.close();
      await server.stop();

      server = await start(path);
      ({ c, root } = await attached(server));
      const seen = async (...names: string[]) => {
        const { mode, uid, gid, nlink } = await c.getattr(await c.walk(root, names));
        return `${mode.toString(8)} ${uid}:${gid} ${nlink}`;
      };
      expect(await seen('d')).toBe('42750 1000:1001 2');
      expect(await seen('d', 'link')).toBe('120777 1000:5 1');
      expect(await c.readlink(await c.walk(root, ['d', 'link']))).toBe('/nowhere');
      expect(await seen('d', 'null')).toBe('20666 1000:0 1');
      expect(await seen('g')).toBe('100640 7:8 2');
      await c.setattr(await c.walk(root, 'g'), { mode: 0o600 });
      expect(await seen('d', 'hard')).toBe('100600 7:8 2');
      expect(namesIn(path)).toEqual(['d', 'g']);
      const again = await c.walk(root, 'd');
      for (const name of ['link', 'null', 'hard']) await c.unlinkat(again, name);
      await c.unlinkat(root, 'd', removeDir);
      await c.unlinkat(root, 'g');
      expect(namesIn(path)).toEqual([]);
      expect(readdirSync(join(path, meta))).toEqual([]);
      await c.close();
    } finally {
      await server.stop();
    }
  });

  it('has no way to metadata by another name of the same directory', async () => {
    const server = await start(path, '--sandbox', 'off');
    const alias = join(path, 'VIRTFS~1');
    const { c, root } = await attached(server);
    try {
      await c.mkdir(root, 'd');
      mkdirSync(alias);
      // As vfat finds it by its short name: the same device and inode number.
      command('mount', '--bind', join(path, meta), alias);
      expect(await errno(c.walk(root, 'VIRTFS~1'))).toBe('ENOENT');
      expect(await errno(c.walk(root, ['VIRTFS~1', 'd']))).not.toBe('none');
      expect(await errno(c.renameat(root, 'VIRTFS~1', root, 'mine'))).toBe('ENOENT');
      expect(await errno(c.renameat(root, 'd', root, 'VIRTFS~1'))).toBe('EINVAL');
      expect(await errno(c.unlinkat(root, 'VIRTFS~1', removeDir))).toBe('ENOENT');
      expect(readdirSync(join(path, meta))).toEqual(['d']);
    } finally {
      command('umount', alias);
      rmSync(alias, { recursive: true });
      await c.close();
      await server.stop();
    }
  });
});

/**
 * What must hold of every file, whoever made, moved and changed it, and whoever was killed meanwhile: its content is the uid
 * that made it and its mode, and these are what it shows.
 */
async function expectTrue({ c, root }: { c: Client; root: number }, directories: readonly string[]) {
  for (const directory of directories) {
    const dir = await c.walk(root, directory);
    const open = await c.walk(dir);
    await c.lopen(open);
    const names = (await c.readdir(open)).map(({ name }) => name).filter(name => !/^(\.|x$)/.test(name));
    await c.clunk(open);
    for (const name of names) {
      const fid = await c.walk(dir, name);
      const { mode, uid } = await c.getattr(fid);
      const reading = await c.walk(fid);
      await c.lopen(reading);
      const content = (await c.read(reading, 0, 100)).toString();
      await c.clunk(fid, reading);
      // Whoever was killed between the creation and the write has left an empty one.
      if (content !== '')
        expect(`${directory}/${name}: ${uid} ${mode.toString(8)}`).toBe(`${directory}/${name}: ${content}`);
    }
    await c.clunk(dir);
  }
}

const names = ['a', 'b', 'c', 'd'];
const pick = <T>(from: readonly T[]) => from[Math.floor(Math.random() * from.length)]!;

/** Makes, renames and removes files at the same few names, until `done` or until the server is gone. */
async function jostle(
  server: Ninepd,
  uid: number,
  directories: readonly string[],
  done: (steps: number) => boolean,
): Promise<void> {
  let steps = 0;
  const step = async (c: Client, dirs: readonly number[]) => {
    const [from, to] = [pick(dirs), pick(dirs)];
    const what = Math.random();
    if (what < 0.4) {
      // Under a name of its own first, with its content, so that whatever is found at a name is complete.
      const own = `own-${uid}-${steps}`;
      const mode = pick([0o600, 0o640, 0o755]);
      const fid = await c.walk(from);
      await c.lcreate(fid, own, rdwr | excl, mode, 0);
      await c.write(fid, 0, Buffer.from(`${uid} ${(0o100000 | mode).toString(8)}`));
      await c.clunk(fid);
      await c.renameat(from, own, to, pick(names));
    } else if (what < 0.8) await c.renameat(from, pick(names), to, pick(names));
    else if (what < 0.9) await c.unlinkat(from, pick(names));
    else {
      await c.mkdir(from, 'x');
      await c.unlinkat(from, 'x', removeDir);
    }
  };
  try {
    const { c, root } = await attached(server, uid);
    const dirs = await Promise.all(directories.map(name => c.walk(root, name)));
    for (; !done(steps); steps++)
      await step(c, dirs).catch(error => {
        if (!(error instanceof Errno)) throw error;
      });
    await c.close();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const killed = error instanceof Disconnected || code === 'ECONNREFUSED' || code === 'ECONNRESET';
    if (!killed) throw error;
  }
}

describe.each(['ext4', 'fuse'])('a tree on %s', type => {
  let top: string;
  let path: string;
  let unmount: (() => Promise<void>) | undefined;
  const directories = ['one', 'two'];

  beforeAll(async () => {
    top = mkdtempSync(join(tmpdir(), 'ninepd-mapped-file-'));
    execFileSync('chmod', ['755', top]);
    path = join(top, 'files');
    mkdirSync(path);
    if (type === 'fuse') {
      mkdirSync(join(top, 'source'));
      unmount = await fuse.mount(path, join(top, 'source'));
    }
    for (const name of directories) mkdirSync(join(path, name));
  });
  afterAll(async () => {
    await unmount?.();
    rmSync(top, { recursive: true });
  });

  it('that several processes serve keeps every record with its object', { timeout: 120_000 }, async () => {
    const servers = await Promise.all([start(path), start(path, '--workers', '2')]);
    try {
      const client = await attached(servers[0]);
      // What one has spoilt another may put right: look often.
      for (let round = 0; round < 25; round++) {
        const uids = [1001, 1002, 1003, 1004, 1005, 1006];
        await Promise.all(
          uids.map((uid, i) => jostle(servers[i % 2]!, uid + 10 * round, directories, steps => steps === 12)),
        );
        await expectTrue(client, directories);
      }
      await client.c.close();
      for (const name of directories) {
        const objects = namesIn(join(path, name));
        expect(readdirSync(join(path, name, meta)).sort()).toEqual(objects);
      }
    } finally {
      for (const server of servers) await server.stop();
    }
  });

  if (type === 'fuse')
    it('has no names of the form of short ones, which may be second names', async () => {
      const server = await start(path);
      const { c, root } = await attached(server);
      try {
        for (const name of ['LONGNA~1', 'a~2.txt', 'LO12A~12.C']) {
          writeFileSync(join(path, name), '');
          expect(await errno(c.walk(root, name))).toBe('ENOENT');
          expect(await errno(c.mkdir(root, name))).toBe('EINVAL');
          expect(await errno(c.renameat(root, name, root, 'x'))).toBe('ENOENT');
          expect(await errno(c.unlinkat(root, name))).toBe('ENOENT');
          rmSync(join(path, name));
        }
        for (const name of ['file.~1~', 'longer-name~1', 'a~b', 'x~1.text']) {
          await c.mkdir(root, name);
          await c.unlinkat(root, name, removeDir);
        }
      } finally {
        await c.close();
        await server.stop();
      }
    });

  it('shows the right records after its server was killed at any moment', { timeout: 240_000 }, async () => {
    for (let round = 0; round < 8; round++) {
      const server = await start(path);
      let killed = false;
      const running = [1001, 1002, 1003].map(uid => jostle(server, uid, directories, () => killed));
      await new Promise(resolve => setTimeout(resolve, 100 + Math.random() * 200));
      process.kill(server.pid, 'SIGKILL');
      killed = true;
      await Promise.all(running);
      await server.stop();
      const next = await start(path);
      const client = await attached(next);
      await expectTrue(client, directories);
      await client.c.close();
      await next.stop();
    }
    // What is left is cleared away with the directories.
    execFileSync('find', [
      path,
      '-depth',
      '-name',
      '.ninepd-new-*',
      '-exec',
      'touch',
      '-hd',
      '@1',
      '{}',
      ';',
    ]);
    const server = await start(path);
    const { c, root } = await attached(server);
    for (const name of directories) {
      const dir = await c.walk(root, name);
      for (const one of namesIn(join(path, name)))
        if (!one.startsWith('.ninepd-new-'))
          await c.unlinkat(dir, one).catch(() => c.unlinkat(dir, one, removeDir));
      await c.unlinkat(root, name, removeDir);
      await c.mkdir(root, name);
    }
    await c.close();
    await server.stop();
  });
});

it('writes as QEMU does, and sees at once what QEMU writes', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'ninepd-mapped-file-'));
  writeFileSync(join(dir, 'file'), '');
  mkdirSync(join(dir, meta));
  const servers = await Promise.all([start(dir), start(dir)]);
  const clients = await Promise.all(servers.map(server => attached(server)));
  const fids = await Promise.all(clients.map(({ c, root }) => c.walk(root, 'file')));
  const shown = () =>
    Promise.all(
      clients.map(async ({ c }, i) => {
        const { mode, uid } = await c.getattr(fids[i]!);
        return `${mode.toString(8)} ${uid}`;
      }),
    );
  try {
    for (let round = 1; round < 200; round++) {
      writeFileSync(join(dir, meta, 'file'), `virtfs.uid=${round}\nvirtfs.gid=1\nvirtfs.mode=33188\n`);
      expect(await shown()).toEqual([`100644 ${round}`, `100644 ${round}`]);
      await clients[round % 2]!.c.setattr(fids[round % 2]!, { mode: 0o600, uid: round + 1 });
      expect(await shown()).toEqual([`100600 ${round + 1}`, `100600 ${round + 1}`]);
    }
  } finally {
    for (const { c } of clients) await c.close();
    for (const server of servers) await server.stop();
    rmSync(dir, { recursive: true });
  }
});
