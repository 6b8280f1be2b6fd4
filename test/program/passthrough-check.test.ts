import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, lstatSync, renameSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { EIO } from '#base/errno.ts';
import { Client } from '#client/client.ts';
import type { ExportOptions } from '#index.ts';
import { errnoOf, NONUNAME, O, SET, TestClient } from '../conformance/test-client.ts';
import { interceptCalls } from '../support/intercept-calls.ts';
import { Ninepd } from '../support/ninepd.ts';
import { childrenOf } from '../support/processes.ts';
import {
  acl,
  as,
  at,
  change,
  closing,
  creating,
  file,
  files,
  folder,
  log,
  serve,
  what,
} from './passthrough-fixture.ts';

// Whose kernel checks what a guest's users may do.

describe.each<[string, Partial<ExportOptions>]>([
  ['check=host', { check: 'host' }],
  ['squash=root', { squash: 'root' }],
])('with %s', (_, options) => {
  beforeEach(() => serve(options));

  describe.each(creating)('%s', (_message, create) => {
    it('takes the gids of the user, by the host’s user database', async () => {
      const c = await as(1000);
      for (const gid of [1000, 2000]) {
        await create(c, 0, `of ${gid}`, gid);
        expect(what(`of ${gid}`)).toMatch(`1000:${gid} `);
      }
    });

    it('refuses any other with EPERM, creates nothing, and says so once', async () => {
      const [known, unknown] = [await as(1000), await as(1001)];
      for (const gid of [3000, 1, 65_534, 4_294_967_294])
        expect(await errnoOf(create(known, 0, 'no', gid))).toBe('EPERM');
      for (const gid of [1001, 1000]) expect(await errnoOf(create(unknown, 0, 'no', gid))).toBe('EPERM');
      expect(existsSync(at('no'))).toBe(false);
      await create(unknown, 0, 'nogroup', 65_534);
      expect(what('nogroup')).toMatch('1001:65534 ');
      expect(log).toHaveLength(1);
      expect(log[0]).toMatch(/uid 1000 may not create with gid 3000.*usermod.*set-gid.*check=guest/);
    });

    it('opens no directory of a group that the user is not in', async () => {
      folder('theirs', 0, 3000, 0o770);
      const c = await as(1000);
      const theirs = await c.walk(0, 'theirs');
      expect(await errnoOf(create(c, theirs, 'no', 3000))).toBe('EPERM');
      expect(await errnoOf(create(c, theirs, 'no', 1000))).toBe('EACCES');
      expect(existsSync(at('theirs', 'no'))).toBe(false);
    });

    it('takes the group of a set-gid directory and no other, without S_ISGID for who is not in it', async () => {
      folder('shared', 0, 3000, 0o2777);
      folder('own', 0, 2000, 0o2777);
      const c = await as(1000);
      const [shared, own] = [await c.walk(0, 'shared'), await c.walk(0, 'own')];
      expect(await errnoOf(create(c, shared, 'no', 4000))).toBe('EPERM');
      await create(c, shared, 'a', 3000);
      await create(c, shared, 'b', 1000);
      await create(c, own, 'c', 2000);
      const { mode } = lstatSync(at('shared', 'a'));
      // mkdir(2) gives a new directory the S_ISGID of its parent.
      const bits = create === creating[1]![1] ? '2755' : create === creating[4]![1] ? '777' : '755';
      expect([what('shared', 'a'), what('shared', 'b')]).toEqual([`1000:3000 ${bits}`, `1000:3000 ${bits}`]);
      expect(what('own', 'c')).toBe(`1000:2000 ${(mode & 0o170000) === 0o120000 ? '777' : '2755'}`);
    });
  });

  it('Tsetattr gives an object of the user to groups of the user only', async () => {
    const c = await as(1000);
    await c.clunk(await c.create(0, 'f', { gid: 1000 }));
    file('g', 1001, 1000, 0o666);
    const [f, g] = [await c.walk(0, 'f'), await c.walk(0, 'g')];
    await change(c, f, { gid: 2000 });
    expect(what('f')).toBe('1000:2000 644');
    for (const gid of [3000, 65_534, 0]) expect(await errnoOf(change(c, f, { gid }))).toBe('EPERM');
    expect(await errnoOf(change(c, f, { gid: 3000, mode: 0o2755 }))).toBe('EPERM');
    expect(await errnoOf(change(c, g, { gid: 2000 }))).toBe('EPERM');
    expect(await errnoOf(change(c, f, { uid: 1001 }))).toBe('EPERM');
    expect([what('f'), what('g')]).toEqual(['1000:2000 644', '1001:1000 666']);
  });

  it('Tsetattr and an ACL leave no S_ISGID on an object of a group that the user is not in', async () => {
    folder('shared', 0, 3000, 0o2777);
    const c = await as(1000);
    await c.clunk(await c.create(await c.walk(0, 'shared'), 'f', { gid: 3000 }));
    const f = await c.walk(0, 'shared', 'f');
    await change(c, f, { mode: 0o2775 });
    expect(what('shared', 'f')).toBe('1000:3000 775');
    chmodSync(at('shared', 'f'), 0o2775);
    await c.setXattr(f, 'system.posix_acl_access', acl(0o7, 0o7, 0o5));
    expect(what('shared', 'f')).toBe('1000:3000 775');
  });

  it('the host judges by modes, sticky directories, and who owns what is linked', async () => {
    file('secret', 1001, 3000, 0o660);
    file('program', 1001, 1001, 0o711);
    folder('sticky', 0, 0, 0o1777);
    file('sticky/f', 1001, 1001, 0o600);
    const c = await as(1000);
    const [secret, program, sticky] = await Promise.all(
      ['secret', 'program', 'sticky'].map(name => c.walk(0, name)),
    );
    expect(await errnoOf(c.open(secret!, O.RDONLY))).toBe('EACCES');
    expect(await errnoOf(c.open(program!, O.RDONLY))).toBe('EACCES');
    expect(await errnoOf(c.unlink(sticky!, 'f'))).toBe('EPERM');
    expect(await errnoOf(c.link(0, secret!, 'link'))).toBe('EPERM');
  });
});

describe('with squash=root', () => {
  it('who says that its group is root’s gets neither that nor the anonymous group', async () => {
    await serve({ squash: 'root', anonuid: 5000, anongid: 5001 });
    folder('theirs', 0, 0, 0o770);
    folder('shared', 0, 0, 0o2777);
    const [c, root] = [await as(1000), await as(0)];
    expect(await errnoOf(c.create(0, 'no', { gid: 0 }))).toBe('EPERM');
    expect(await errnoOf(c.create(await c.walk(0, 'theirs'), 'no', { gid: 0 }))).toBe('EPERM');
    await c.create(await c.walk(0, 'shared'), 'f', { gid: 0, mode: 0o2755 });
    expect(what('shared', 'f')).toBe('1000:0 755');
    await root.create(0, 'r', { gid: 0 });
    expect(what('r')).toBe('5000:5001 644');
    expect(await errnoOf(root.create(await root.walk(0, 'theirs'), 'no', { gid: 0 }))).toBe('EACCES');
    expect(await errnoOf(change(root, await root.walk(0, 'r'), { gid: 0 }))).toBe('EPERM');
    expect(await errnoOf(change(root, await root.walk(0, 'theirs'), { mode: 0o777 }))).toBe('EPERM');
  });
});

describe('with check=host', () => {
  it('a create that fails midway removes nothing that took the name meanwhile and is another user’s', async () => {
    await serve({ check: 'host' });
    folder('sticky', 0, 0, 0o1777);
    const c = await as(1000);
    const sticky = await c.walk(0, 'sticky');
    let made = false;
    const restore = interceptCalls((name, call) => {
      if (name === 'mknod') made = true;
      if (name !== 'lookup' || !made) return call();
      made = false;
      renameSync(at('sticky', 'x'), at('sticky', 'y'));
      file('sticky/x', 1001, 1001, 0o600);
      throw EIO;
    });
    try {
      expect(await errnoOf(c.mknod(sticky, 'x', 0o010644, 0, 0, 1000))).not.toBe('none');
    } finally {
      restore();
    }
    expect(what('sticky', 'x')).toBe('1001:1001 600');
  });

  it('root is root, and needs no group', async () => {
    await serve({ check: 'host' });
    const root = await as(0);
    await root.create(0, 'r', { gid: 3000, mode: 0o2755 });
    expect(what('r')).toBe('0:3000 2755');
    await change(root, await root.walk(0, 'r'), { uid: 7, gid: 8 });
    expect(what('r')).toMatch('7:8 ');
  });
});

describe('with check=guest, the default', () => {
  beforeEach(() => serve({}));

  it('a user whom the host does not know does what the guest’s kernel lets it', async () => {
    file('of a group', 0, 3000, 0o660);
    file('program', 1001, 1001, 0o711);
    folder('private', 0, 3000, 0o770);
    const c = await as(4242);
    const group = await c.walk(0, 'of a group');
    await c.write(await c.open(group, O.RDWR), 0, 'more');
    await c.read(await c.open(await c.walk(0, 'program'), O.RDONLY), 0, 4);
    const inside = await c.walk(0, 'private');
    await c.create(inside, 'f', { gid: 3000, mode: 0o600 });
    expect(what('private', 'f')).toBe('4242:3000 600');
    await c.list(inside);
    const f = await c.walk(inside, 'f');
    await change(c, f, { gid: 2000 });
    expect(what('private', 'f')).toBe('4242:2000 600');
    await c.link(inside, group, 'link');
    await c.setXattr(group, 'user.a', '1');
    expect(String(await c.getXattr(group, 'user.a'))).toBe('1');
    await c.call('setattr', { ...c.noChange, fid: group, valid: SET.ATIME | SET.ATIME_SET | SET.SIZE });
    await c.rename(inside, 'link', 0, 'renamed');
    await c.unlink(0, 'renamed');
  });

  it.each(creating)('%s makes objects of the user and the group named', async (_message, create) => {
    folder('shared', 0, 3000, 0o2770);
    const c = await as(4242);
    await create(c, 0, 'made', 2000);
    expect(what('made')).toMatch(/^4242:2000 (2755|777)$/);
    // The guest's kernel has cleared S_ISGID for a user who is not in the group (vfs_prepare_mode of fs/namei.c).
    await create(c, await c.walk(0, 'shared'), 'made', 3000);
    expect(what('shared', 'made')).toMatch(/^4242:3000 (2755|777)$/);
  });

  it('S_ISGID stays as the guest’s kernel has decided it, at chmod and with an ACL', async () => {
    file('f', 4242, 3000, 0o755);
    folder('d', 4242, 3000, 0o755);
    const c = await as(4242);
    for (const name of ['f', 'd']) {
      const fid = await c.walk(0, name);
      await change(c, fid, { mode: 0o2775 });
      expect(what(name)).toBe('4242:3000 2775');
      await c.setXattr(fid, 'system.posix_acl_access', acl(0o7, 0o5, 0o5));
      expect(what(name)).toBe('4242:3000 2755');
      await change(c, fid, { gid: 2000, mode: 0o2755 });
      expect(what(name)).toBe('4242:2000 2755');
    }
  });

  it('set-id bits fall when a user writes or gives away', async () => {
    for (const name of ['written', 'truncated', 'given']) file(name, 4242, 3000, 0o6775);
    const [c, other] = [await as(4242), await as(4243)];
    await other.write(await other.open(await other.walk(0, 'written'), O.WRONLY), 0, 'x');
    await other.call('setattr', {
      ...{ ...other.noChange, fid: await other.walk(0, 'truncated') },
      ...{ valid: SET.SIZE, size: 1 },
    });
    await change(c, await c.walk(0, 'given'), { gid: 2000 });
    expect(['written', 'truncated', 'given'].map(name => what(name))).toEqual([
      '4242:3000 775',
      '4242:3000 775',
      '4242:2000 775',
    ]);
  });

  it('no other capability is a user’s: devices, file capabilities, trusted xattrs, immutable files', async () => {
    file('f', 4242, 4242, 0o644);
    file('immutable', 4242, 4242, 0o644);
    execFileSync('chattr', ['+i', at('immutable')]);
    try {
      const c = await as(4242);
      const f = await c.walk(0, 'f');
      const immutable = await c.walk(0, 'immutable');
      expect(await errnoOf(c.mknod(0, 'null', 0o020666, 1, 3, 4242))).toBe('EPERM');
      expect(
        await errnoOf(c.setXattr(f, 'security.capability', Buffer.from(`01000002${'00'.repeat(16)}`, 'hex'))),
      ).toBe('EPERM');
      expect(await errnoOf(c.setXattr(f, 'trusted.a', '1'))).toBe('EPERM');
      expect(await errnoOf(c.setXattr(f, 'security.a', '1'))).toBe('EPERM');
      expect(await errnoOf(c.open(immutable, O.WRONLY))).toBe('EPERM');
      expect(await errnoOf(c.unlink(0, 'immutable'))).toBe('EPERM');
      expect(await errnoOf(change(c, immutable, { mode: 0o777 }))).toBe('EPERM');
    } finally {
      execFileSync('chattr', ['-i', at('immutable')]);
    }
  });

  it('an attach without a user is nobody, for the host to judge', async () => {
    file('secret', 0, 0, 0o600);
    const c = await as(NONUNAME);
    expect(await errnoOf(c.open(await c.walk(0, 'secret'), O.RDONLY))).toBe('EACCES');
    await c.create(0, 'f', { gid: NONUNAME });
    expect(what('f')).toBe('65534:65534 644');
  });
});

describe('with check=guest and readonly', () => {
  it('nothing changes', async () => {
    file('f', 0, 0, 0o600);
    await serve({ readonly: true });
    const c = await as(4242);
    await c.read(await c.open(await c.walk(0, 'f'), O.RDONLY), 0, 4);
    expect(await errnoOf(c.open(await c.walk(0, 'f'), O.WRONLY))).toBe('EROFS');
    expect(await errnoOf(change(c, await c.walk(0, 'f'), { mode: 0o777 }))).toBe('EROFS');
    expect(await errnoOf(c.unlink(0, 'f'))).toBe('EROFS');
  });
});

describe('xattrs that need CAP_SYS_ADMIN', () => {
  it('are those of the host for root, where the server has it', async () => {
    await serve({});
    file('f', 0, 0, 0o600);
    const root = await as(0);
    const f = await root.walk(0, 'f');
    for (const name of ['trusted.a', 'security.a']) {
      expect(await errnoOf(root.getXattr(f, name))).toBe('ENODATA');
      await root.setXattr(f, name, '1');
      expect(String(await root.getXattr(f, name))).toBe('1');
    }
    expect(await root.xattrs(f)).toEqual(['security.a', 'trusted.a']);
    expect(log).toEqual([]);
  });

  it('are refused in the sandbox, and the log names the option once', async () => {
    file('f', 0, 0, 0o600);
    const sandboxed = await Ninepd.start({
      exports: [{ path: files, name: 'x', securityModel: 'passthrough' }],
    });
    try {
      const root = closing(await TestClient.begin({ port: sandboxed.port }, { n_uname: 0 }));
      const f = await root.walk(0, 'f');
      for (const name of ['trusted.a', 'security.a', 'trusted.b']) {
        expect(await errnoOf(root.setXattr(f, name, '1'))).toBe('EPERM');
        expect(await errnoOf(root.getXattr(f, name))).toBe('ENODATA');
      }
      expect(sandboxed.log().match(/trusted\.\* xattrs cannot be set .*--trusted-xattrs on/g)).toHaveLength(
        1,
      );
      expect(sandboxed.log().match(/security\.\* xattrs cannot be set .*--trusted-xattrs on/g)).toHaveLength(
        1,
      );
    } finally {
      await sandboxed.stop();
    }
  });
});

describe('ninepd-groups', () => {
  it('is started only where users’ groups are asked for: check=host and map=', async () => {
    const helpers = async (settings: readonly string[]) => {
      const started = await Ninepd.start({
        exports: [{ path: files, name: 'x', securityModel: 'passthrough', settings }],
      });
      const client = await Client.connect({ port: started.port });
      await client.attach('', 0);
      const names = childrenOf(started.pid).filter(({ name }) => name === 'ninepd-groups');
      await started.stop();
      return names.length;
    };
    expect(await helpers([])).toBe(0);
    expect(await helpers(['check=host'])).toBe(1);
    expect(await helpers(['map=0:100000:1000'])).toBe(1);
  });
});
