import { linkSync, lstatSync, symlinkSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { errnoOf, O, SET } from '../conformance/test-client.ts';
import { acl, as, at, change, creating, file, folder, serve, what } from './passthrough-fixture.ts';

// The guest's kernel judges over objects whose owner and group are mapped, the host's over all others.

describe('with map', () => {
  const map = ['0:100000:65534'];
  /** Objects of the guest's alice, of the host's root, and of either in a group of the other. */
  const [alice, group] = [101_000, 102_000];

  beforeEach(() => {
    file('f', alice, group, 0o600);
    folder('d', alice, group, 0o700);
    file('d/f', alice, group, 0o600);
    file('host', 0, 0, 0o600);
    folder('of the host', 0, 0, 0o755);
    file('half', alice, 0, 0o600);
    file('other half', 0, group, 0o600);
    folder('half dir', alice, 0, 0o700);
  });

  it('the guest’s root is root over the objects of its ranges', async () => {
    await serve({ map });
    const root = await as(0);
    const [f, d] = [await root.walk(0, 'f'), await root.walk(0, 'd')];
    await root.write(await root.open(f, O.RDWR), 0, 'new');
    expect((await root.list(d)).map(({ name }) => name).sort()).toEqual(['.', '..', 'f']);
    await change(root, f, { uid: 5, gid: 6, mode: 0o4640 });
    expect(what('f')).toBe('100005:100006 4640');
    await change(root, f, { mode: 0o2750 });
    expect(what('f')).toBe('100005:100006 2750');
    await root.call('setattr', { ...root.noChange, fid: f, valid: SET.MTIME | SET.MTIME_SET, mtime_sec: 7 });
    expect(lstatSync(at('f')).mtimeMs).toBe(7000);
    await root.call('setattr', { ...root.noChange, fid: f, valid: SET.SIZE, size: 1 });
    await root.setXattr(f, 'user.a', '1');
    expect(String(await root.getXattr(f, 'user.a'))).toBe('1');
    await root.setXattr(f, 'system.posix_acl_access', acl(6, 4, 0));
    await root.link(d, f, 'link');
    await root.rename(d, 'link', d, 'renamed');
    await root.unlink(d, 'renamed');
    for (const [, create] of creating) {
      await create(root, d, 'made', 7);
      expect(what('d', 'made')).toMatch(/^100000:100007 (2755|777)$/);
      await (lstatSync(at('d', 'made')).isDirectory() ? root.rmdir(d, 'made') : root.unlink(d, 'made'));
    }
  });

  it('any user of the guest is judged by the guest’s kernel there', async () => {
    await serve({ map });
    const c = await as(4242);
    const d = await c.walk(0, 'd');
    await c.create(d, 'made', { gid: 2000 });
    expect(what('d', 'made')).toBe('104242:102000 644');
    await c.read(await c.open(await c.walk(d, 'f'), O.RDONLY), 0, 4);
    await change(c, await c.walk(d, 'made'), { mode: 0o2755 });
    expect(what('d', 'made')).toBe('104242:102000 2755');
  });

  it('the host judges over all other objects: its own, and those of which only the owner or group is mapped', async () => {
    await serve({ map });
    const root = await as(0);
    for (const name of ['host', 'half', 'other half']) {
      const fid = await root.walk(0, name);
      expect([name, await errnoOf(root.open(fid, O.RDONLY))]).toEqual([name, 'EACCES']);
      expect([name, await errnoOf(change(root, fid, { mode: 0o666 }))]).toEqual([name, 'EPERM']);
      expect([name, await errnoOf(change(root, fid, { uid: 0 }))]).toEqual([name, 'EPERM']);
      expect([name, await errnoOf(change(root, fid, { gid: 0 }))]).toEqual([name, 'EPERM']);
      expect(await errnoOf(root.setXattr(fid, 'user.a', '1'))).toBe('EACCES');
      expect(await errnoOf(root.getXattr(fid, 'user.a'))).toBe('EACCES');
      expect(await errnoOf(root.setXattr(fid, 'system.posix_acl_access', acl(6, 6, 6)))).toBe('EPERM');
      const times = { ...root.noChange, fid, valid: SET.ATIME | SET.ATIME_SET | SET.MTIME | SET.MTIME_SET };
      expect(await errnoOf(root.call('setattr', times))).toBe('EPERM');
      expect(await errnoOf(root.call('setattr', { ...root.noChange, fid, valid: SET.SIZE }))).toBe('EACCES');
      expect(await errnoOf(root.link(0, fid, 'link'))).toBe('EPERM');
    }
    const half = await root.walk(0, 'half dir');
    expect(await errnoOf(root.list(half))).toBe('EACCES');
    expect(await errnoOf(root.walk(half, 'x'))).toBe('EACCES');
    for (const [message, create] of creating) {
      for (const name of ['of the host', 'half dir']) {
        const outcome = await errnoOf(create(root, await root.walk(0, name), 'no', 0));
        expect([message, name, outcome]).toEqual([message, name, 'EACCES']);
      }
    }
    expect(what('host')).toBe('0:0 600');
    expect(await errnoOf(change(root, await root.walk(0, 'f'), { uid: 70_000 }))).toBe('EINVAL');
  });

  it('what removes and renames asks about the directories, and in sticky ones about the objects', async () => {
    folder('sticky', alice, group, 0o1777);
    folder('outer', 0, 0, 0o1777);
    for (const name of ['sticky/host', 'sticky/mine', 'outer/host', 'outer/mine', 'd/host'])
      file(name, name.endsWith('host') ? 0 : alice, group, 0o600);
    folder('d/folder', 0, 0, 0o755);
    await serve({ map });
    const root = await as(0);
    const [d, sticky, outer] = await Promise.all(['d', 'sticky', 'outer'].map(name => root.walk(0, name)));
    expect(await errnoOf(root.unlink(sticky!, 'host'))).toBe('EPERM');
    expect(await errnoOf(root.rename(sticky!, 'host', d!, 'host'))).toBe('EACCES');
    expect(await errnoOf(root.rename(d!, 'f', sticky!, 'host'))).toBe('EACCES');
    expect(await errnoOf(root.unlink(outer!, 'host'))).toBe('EPERM');
    expect(await errnoOf(root.unlink(outer!, 'mine'))).toBe('EPERM');
    expect(await errnoOf(root.rename(d!, 'f', await root.walk(0, 'of the host'), 'f'))).toBe('EACCES');
    // The owner of the directory may do the rest. A directory that moves is written to.
    await root.rename(sticky!, 'mine', d!, 'moved');
    await root.rename(d!, 'f', d!, 'moved');
    await root.rename(d!, 'folder', d!, 'renamed');
    expect(await errnoOf(root.rename(d!, 'renamed', sticky!, 'renamed'))).toBe('EACCES');
    await root.unlink(d!, 'host');
    await root.rmdir(d!, 'renamed');
  });

  it('a link of the host into a directory of the guest needs both', async () => {
    symlinkSync('host', at('symlink'));
    linkSync(at('host'), at('d', 'linked'));
    await serve({ map });
    const root = await as(0);
    const d = await root.walk(0, 'd');
    expect(await errnoOf(root.open(await root.walk(d, 'linked'), O.RDONLY))).toBe('EACCES');
    expect(await errnoOf(root.link(d, await root.walk(0, 'host'), 'more'))).toBe('EACCES');
    expect(await errnoOf(change(root, await root.walk(0, 'symlink'), { uid: 0 }))).toBe('EPERM');
  });

  it.each([['u'], ['g']])('of %s alone, no object is the guest’s', async kind => {
    const other = kind === 'u' ? 'g:0:0:1' : 'u:0:300000:5000';
    await serve({ map: [`${kind}:0:100000:65534`, other] });
    const root = await as(0);
    expect(await errnoOf(root.open(await root.walk(0, 'f'), O.RDONLY))).toBe('EACCES');
    expect(await errnoOf(root.list(await root.walk(0, 'd')))).toBe('EACCES');
  });

  it('and check=host, the host judges over all', async () => {
    await serve({ map, check: 'host' });
    const root = await as(0);
    const f = await root.walk(0, 'f');
    expect(await errnoOf(root.open(f, O.RDONLY))).toBe('EACCES');
    expect(await errnoOf(change(root, f, { uid: 0 }))).toBe('EPERM');
    expect(await errnoOf(root.list(await root.walk(0, 'd')))).toBe('EACCES');
    const c = await as(1000);
    expect(await errnoOf(c.create(0, 'no', { gid: 1000 }))).toBe('EPERM');
    await root.create(0, 'r', { gid: 0 });
    expect(what('r')).toBe('100000:100000 644');
  });
});
