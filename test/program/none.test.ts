import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getAttributeSync, setAttributeSync } from 'fs-xattr';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AT_REMOVEDIR, errnoOf, O, SET, TestClient } from '../conformance/test-client.ts';
import { Ninepd } from '../support/ninepd.ts';
import { program, Running } from './cli-program.ts';

/** An ordinary user whom the host knows by number alone. */
const developer = 12_345;

let top: string;
let files: string;
let server: Ninepd | undefined;
const clients: TestClient[] = [];

beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'ninepd-none-'));
  chmodSync(top, 0o755);
  files = join(top, 'files');
  mkdirSync(files);
  chownSync(files, developer, developer);
});
afterEach(async () => {
  for (const one of clients.splice(0)) await one.close();
  await server?.stop();
  server = undefined;
  rmSync(top, { recursive: true });
});

async function serve(
  settings: readonly string[] = [],
  args: string[] = [],
  user: number | 'root' = developer,
): Promise<TestClient> {
  server = await Ninepd.start({
    exports: [{ path: files, name: 'files', securityModel: 'none', settings }],
    args,
    ...(user === 'root' ? {} : { user }),
  });
  return connect();
}

async function connect(n_uname = 0): Promise<TestClient> {
  const client = await TestClient.begin({ port: server!.port }, { n_uname });
  clients.push(client);
  return client;
}

const onHost = (...names: string[]) => join(files, ...names);
const bits = (name: string) => (lstatSync(onHost(name)).mode & 0o7777).toString(8);

describe('security_model=none, served by an ordinary user', () => {
  it('makes on the host what the guest makes, owned by that user', async () => {
    const c = await serve();
    await c.file(0, 'script', '#!/bin/sh\necho from the guest\n', 0o755);
    expect(execFileSync(onHost('script'), { encoding: 'utf8' })).toBe('from the guest\n');
    await c.symlink(0, 'link', 'script');
    expect(readlinkSync(onHost('link'))).toBe('script');
    await c.mknod(0, 'fifo', 0o010640);
    await c.mknod(0, 'socket', 0o140600);
    await c.mkdir(0, 'directory', 0o750);
    await c.link(0, await c.walk(0, 'script'), 'again');
    expect(lstatSync(onHost('fifo')).isFIFO()).toBe(true);
    expect(lstatSync(onHost('socket')).isSocket()).toBe(true);
    expect(bits('directory')).toBe('750');
    expect(lstatSync(onHost('again')).ino).toBe(lstatSync(onHost('script')).ino);
    for (const name of ['script', 'link', 'fifo', 'socket', 'directory']) {
      const { uid, gid } = lstatSync(onHost(name));
      expect([name, uid, gid]).toEqual([name, developer, developer]);
    }
    expect(await c.look(await c.walk(0, 'script'))).toMatchObject({ uid: developer, gid: developer });
  });

  it('shows what the host changes, and the reverse', async () => {
    const c = await serve();
    writeFileSync(onHost('notes'), 'host');
    chmodSync(onHost('notes'), 0o711);
    chownSync(onHost('notes'), developer, developer);
    const notes = await c.walk(0, 'notes');
    expect((await c.look(notes)).mode).toBe(0o100711);
    await c.write(await c.open(notes, O.WRONLY), 0, 'guest');
    await c.call('setattr', { ...c.noChange, fid: notes, valid: SET.MODE, mode: 0o640 });
    expect([readFileSync(onHost('notes'), 'utf8'), bits('notes')]).toEqual(['guest', '640']);
    symlinkSync('/etc', onHost('away'));
    const away = await c.walk(0, 'away');
    expect((await c.call('readlink', { fid: away })).target).toBe('/etc');
    expect(await errnoOf(c.walk(away, 'passwd'))).toBe('ENOTDIR');
  });

  it('leaves no set-id bit, device or capability on the host', async () => {
    const c = await serve();
    const fid = await c.file(0, 'f', '', 0o6755);
    expect(bits('f')).toBe('755');
    await c.call('setattr', { ...c.noChange, fid, valid: SET.MODE, mode: 0o106755 });
    expect([bits('f'), (await c.look(fid)).mode]).toEqual(['755', 0o100755]);
    await c.mknod(0, 'regular', 0o104755);
    expect(bits('regular')).toBe('755');
    const d = await c.mkdir(0, 'd', 0o042775);
    expect(bits('d')).toBe('2775');
    await c.call('setattr', { ...c.noChange, fid: d, valid: SET.MODE, mode: 0o047777 });
    expect(bits('d')).toBe('3777');
    for (const [mode, major, minor] of [
      [0o020666, 1, 3],
      [0o060666, 8, 1],
      [0o020666, 0, 0],
    ] as const)
      expect(await errnoOf(c.mknod(0, 'device', mode, major, minor))).toBe('EPERM');
    const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
    for (const name of ['security.capability', 'trusted.t', 'security.selinux'])
      expect(await errnoOf(c.setXattr(fid, name, capability))).toBe('EOPNOTSUPP');
  });

  it('clears set-id bits of the host before a write, whatever it runs as', async () => {
    for (const [user, args] of [
      [developer, []],
      ['root', ['--sandbox', 'off']],
    ] as const) {
      const c = await serve([], [...args], user);
      if (user === 'root') chownSync(files, 0, 0);
      writeFileSync(onHost('f'), 'x');
      if (user !== 'root') chownSync(onHost('f'), user, user);
      chmodSync(onHost('f'), 0o6755);
      const fid = await c.open(await c.walk(0, 'f'), O.WRONLY);
      expect((await c.look(fid)).mode).toBe(0o106755);
      await c.write(fid, 0, 'y');
      expect(bits('f')).toBe('755');
      rmSync(onHost('f'));
      await server!.stop();
    }
  });

  it('ignores a change of owner, or refuses it with chown=refuse', async () => {
    const owns = { uid: developer, gid: developer };
    for (const [settings, errno] of [
      [[], 'none'],
      [['chown=refuse'], 'EPERM'],
    ] as const) {
      const c = await serve([...settings]);
      const fid = await c.file(0, 'f');
      const chown = (valid: number, uid: number, gid: number) =>
        errnoOf(c.call('setattr', { ...c.noChange, fid, valid, uid, gid }));
      expect(await chown(SET.UID, 7, 0)).toBe(errno);
      expect(await chown(SET.GID, 0, 7)).toBe(errno);
      // What it is already.
      expect(await chown(SET.UID | SET.GID, developer, developer)).toBe('none');
      expect(await c.look(fid)).toMatchObject(owns);
      expect(lstatSync(onHost('f'))).toMatchObject(owns);
      rmSync(onHost('f'));
      await server!.stop();
    }
  });

  it('shows the owner of owner=UID:GID, and with owner=caller each user itself', async () => {
    let c = await serve(['owner=1000:100']);
    expect(await c.look(await c.file(0, 'f'))).toMatchObject({ uid: 1000, gid: 100 });
    expect(await c.look(0)).toMatchObject({ uid: 1000, gid: 100 });
    await server!.stop();
    c = await serve(['owner=caller', 'chown=refuse']);
    for (const uid of [0, 1000]) {
      const caller = await connect(uid);
      const fid = await caller.walk(0, 'f');
      expect(await caller.look(fid)).toMatchObject({ uid, gid: uid });
      const chown = (to: number) =>
        errnoOf(caller.call('setattr', { ...caller.noChange, fid, valid: SET.UID, uid: to }));
      expect([await chown(uid), await chown(5)]).toEqual(['none', 'EPERM']);
    }
    expect(lstatSync(onHost('f')).uid).toBe(developer);
  });

  it('opens a file that it makes whatever the mode is', async () => {
    const c = await serve();
    for (const mode of [0o444, 0o200, 0]) {
      const name = `f${mode}`;
      const fid = await c.create(0, name, { flags: O.RDWR | O.EXCL, mode });
      expect(await c.write(fid, 0, 'content')).toBe(7);
      await c.call('setattr', { ...c.noChange, fid, valid: SET.SIZE, size: 4 });
      expect((await c.read(fid, 0, 10)).toString()).toBe('cont');
      expect(bits(name)).toBe(mode.toString(8));
    }
    const writable = await c.walk(0, `f${0o200}`);
    await c.write(await c.open(writable, O.WRONLY), 0, 'x');
    expect(await errnoOf(c.open(writable, O.RDONLY))).toBe('EACCES');
  });

  it('gives back, renames and removes what a mode denies its owner', async () => {
    const c = await serve();
    const d = await c.mkdir(0, 'd', 0);
    expect(bits('d')).toBe('0');
    expect((await c.look(d)).mode).toBe(0o040000);
    for (const refused of [() => c.file(d, 'f'), () => c.walk(d, 'f'), () => c.open(d, O.RDONLY)])
      expect(await errnoOf(refused())).toBe('EACCES');
    await c.rename(0, 'd', 0, 'e');
    // A new walk leads there too.
    const again = await c.walk(0, 'e');
    await c.call('setattr', { ...c.noChange, fid: again, valid: SET.MODE, mode: 0o700 });
    await c.file(d, 'f', 'content', 0);
    const f = await c.walk(again, 'f');
    expect(await errnoOf(c.open(f, O.RDONLY))).toBe('EACCES');
    await c.call('setattr', { ...c.noChange, fid: f, valid: SET.MODE, mode: 0o600 });
    expect((await c.read(await c.open(f, O.RDONLY), 0, 10)).toString()).toBe('content');
    await c.unlink(again, 'f');
    await c.call('setattr', { ...c.noChange, fid: again, valid: SET.MODE, mode: 0 });
    await c.call('unlinkat', { dirfid: 0, name: 'e', flags: AT_REMOVEDIR });
    expect(existsSync(onHost('e'))).toBe(false);
    // The root too.
    await c.call('setattr', { ...c.noChange, fid: 0, valid: SET.MODE, mode: 0 });
    expect(await errnoOf(c.file(0, 'g'))).toBe('EACCES');
    await c.call('setattr', { ...c.noChange, fid: await c.walk(0), valid: SET.MODE, mode: 0o755 });
    await c.file(0, 'g');
  });

  it('keeps user.* attributes and ACLs on the host', async () => {
    const c = await serve();
    const fid = await c.file(0, 'f', '', 0o640);
    await c.setXattr(fid, 'user.note', 'guest');
    expect(getAttributeSync(onHost('f'), 'user.note').toString()).toBe('guest');
    setAttributeSync(onHost('f'), 'user.host', 'host');
    expect((await c.xattrs(fid)).sort()).toEqual(['user.host', 'user.note']);
    // rw for the owner, r for user 1000, none for the group, mask r, none for others.
    const entries: [number, number, number][] = [
      [1, 6, 0xffff_ffff],
      [2, 4, 1000],
      [4, 0, 0xffff_ffff],
      [16, 4, 0xffff_ffff],
      [32, 0, 0xffff_ffff],
    ];
    const acl = Buffer.alloc(4 + 8 * entries.length);
    acl.writeUInt32LE(2);
    for (const [i, [tag, permissions, id]] of entries.entries()) {
      acl.writeUInt16LE(tag, 4 + 8 * i);
      acl.writeUInt16LE(permissions, 6 + 8 * i);
      acl.writeUInt32LE(id, 8 + 8 * i);
    }
    await c.setXattr(fid, 'system.posix_acl_access', acl);
    expect(getAttributeSync(onHost('f'), 'system.posix_acl_access')).toEqual(acl);
    expect(Buffer.from(await c.getXattr(fid, 'system.posix_acl_access'))).toEqual(acl);
    expect(await c.xattrs(fid)).toContain('system.posix_acl_access');
  });

  it('acts as the user of --user when root starts it, and without privileges as root', async () => {
    chownSync(files, 65_534, 65_534);
    const c = await serve([], ['--user', 'nobody'], 'root');
    await c.file(0, 'f', '', 0o755);
    expect(lstatSync(onHost('f')).uid).toBe(65_534);
    expect(server!.log()).toContain('no capabilities');
    writeFileSync(onHost("root's"), 'secret', { mode: 0o600 });
    expect(await errnoOf(c.open(await c.walk(0, "root's"), O.RDONLY))).toBe('EACCES');
    await server!.stop();
    chownSync(files, 0, 0);
    const root = await serve([], [], 'root');
    await root.file(0, 'g', '', 0o755);
    expect(lstatSync(onHost('g')).uid).toBe(0);
    expect(await errnoOf(root.open(await root.walk(0, 'f'), O.WRONLY))).toBe('EACCES');
  });
});

describe('the model of the quick start', () => {
  function start(args: readonly string[], user: number | undefined): Running {
    const ids = user === undefined ? {} : { uid: user, gid: user };
    const stdio: ['ignore', 'ignore', 'pipe'] = ['ignore', 'ignore', 'pipe'];
    const more = ['--listen', 'tcp://127.0.0.1:0'];
    return new Running(spawn(process.execPath, [program, ...args, ...more], { cwd: top, stdio, ...ids }));
  }

  /** What a guest's script is on the host. */
  async function modeOfScript(running: Running, directory = files): Promise<string> {
    const client = await TestClient.begin({ port: await running.port() });
    await client.file(0, 'script', '#!/bin/sh\n', 0o755);
    await client.close();
    running.child.kill('SIGTERM');
    expect(await running.ended()).toBe(0);
    return (statSync(join(directory, 'script')).mode & 0o7777).toString(8);
  }

  it.each([
    ['in its sandbox', []],
    ['with workers', ['--workers', '2']],
    ['without sandbox', ['--sandbox', 'off', '--workers', '2']],
  ])('is none for a user, and says so, %s', async (_how, args) => {
    const running = start(['./files', ...args], developer);
    await running.says(/security_model=none, since you are not root/);
    expect(await modeOfScript(running)).toBe('755');
  });

  it('is none for ./share too', async () => {
    const home = join(top, 'home');
    mkdirSync(home);
    chownSync(home, developer, developer);
    const more = { cwd: home, uid: developer, gid: developer };
    const args = [program, '--workers', '2', '--listen', 'tcp://127.0.0.1:0'];
    const running = new Running(
      spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'], ...more }),
    );
    await running.says(/security_model=none, since you are not root/);
    expect(await modeOfScript(running, join(home, 'share'))).toBe('755');
  });

  it('is mapped for root, where it was chosen, and where there is an --export', async () => {
    chownSync(files, 0, 0);
    expect(await modeOfScript(start(['./files'], undefined))).toBe('600');
    rmSync(onHost('script'));
    chownSync(files, developer, developer);
    for (const args of [
      ['./files', '--security-model', 'mapped'],
      ['--export', 'files'],
    ]) {
      const running = start(args, developer);
      expect(await modeOfScript(running)).toBe('600');
      expect(running.log).not.toContain('security_model=none');
      rmSync(onHost('script'));
    }
  });

  it('is mapped where the directory has records of it', async () => {
    writeFileSync(onHost('record'), '');
    setAttributeSync(onHost('record'), 'user.virtfs.mode', Buffer.from([0xa4, 0x81, 0, 0]));
    chownSync(onHost('record'), developer, developer);
    const running = start(['./files'], developer);
    await running.says(/it was served with security_model=mapped, and is again/);
    expect(await modeOfScript(running)).toBe('600');
  });
});
