import { expect, it } from 'vitest';
import { conform, type ServerHarness } from './server-harness.ts';
import { errnoOf, O } from './test-client.ts';

const CREATE = 1;
const REPLACE = 2;

conform('xattrs', xattrs, { xattrs: true });

function xattrs(harness: ServerHarness): void {
  it('come, are read, listed, replaced and go the way Linux does it (XA-1)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f');
    await c.setXattr(fid, 'user.a', 'one', CREATE);
    expect((await c.getXattr(fid, 'user.a')).toString()).toBe('one');
    expect(await errnoOf(c.setXattr(fid, 'user.a', 'two', CREATE))).toBe('EEXIST');
    expect(await errnoOf(c.setXattr(fid, 'user.b', 'two', REPLACE))).toBe('ENODATA');
    await c.setXattr(fid, 'user.a', 'second', REPLACE);
    await c.setXattr(fid, 'user.b', '\0\xff');
    expect(await c.xattrs(fid)).toEqual(['user.a', 'user.b']);
    expect((await c.getXattr(fid, 'user.a')).toString()).toBe('second');
    expect((await c.getXattr(fid, 'user.b')).toString('latin1')).toBe('\0\xff');
    await c.setXattr(fid, 'user.a', '', REPLACE);
    expect(await c.xattrs(fid)).toEqual(['user.b']);
    expect(await errnoOf(c.setXattr(fid, 'user.a', '', REPLACE))).toBe('ENODATA');
  });

  it('change with the clunk, and only when all bytes have come (XA-2)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    await c.setXattr(file, 'user.a', 'old');
    const fid = await c.walk(file);
    await c.call('xattrcreate', { fid, name: 'user.a', attr_size: 6, flags: 0 });
    await c.write(fid, 0, 'new');
    expect((await c.getXattr(file, 'user.a')).toString()).toBe('old');
    expect(await errnoOf(c.clunk(fid))).toBe('EINVAL');
    expect(await errnoOf(c.clunk(fid))).toBe('EBADF');
    expect((await c.getXattr(file, 'user.a')).toString()).toBe('old');
    const again = await c.walk(file);
    await c.call('xattrcreate', { fid: again, name: 'user.a', attr_size: 6, flags: 0 });
    await c.write(again, 0, 'new');
    await c.write(again, 3, 'est');
    expect((await c.getXattr(file, 'user.a')).toString()).toBe('old');
    await c.clunk(again);
    expect((await c.getXattr(file, 'user.a')).toString()).toBe('newest');
  });

  it('take no more bytes than were announced, and 64 KiB at most (XA-3)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    const fid = await c.walk(file);
    await c.call('xattrcreate', { fid, name: 'user.a', attr_size: 4, flags: 0 });
    for (const [offset, data] of [
      [0, '12345'],
      [4, '5'],
      [2 ** 32, '5'],
      [3, '45'],
    ] as const)
      expect(['EINVAL', 'ENOSPC', 'EFBIG']).toContain(await errnoOf(c.write(fid, offset, data)));
    await c.write(fid, 0, '1234');
    await c.clunk(fid);
    expect((await c.getXattr(file, 'user.a')).toString()).toBe('1234');
    for (const attr_size of [65_537, 2 ** 32, 2n ** 64n - 1n]) {
      const big = await c.walk(file);
      const answer = c.call('xattrcreate', { fid: big, name: 'user.b', attr_size, flags: 0 });
      expect(await errnoOf(answer)).toBe('E2BIG');
      expect((await c.look(big)).type).toBe('file');
    }
    const largest = await errnoOf(c.setXattr(file, 'user.c', Buffer.alloc(65_536, 1)));
    expect(['none', 'ENOSPC', 'E2BIG']).toContain(largest);
    if (largest === 'none') expect(await c.getXattr(file, 'user.c')).toHaveLength(65_536);
  });

  it('that are not there leave newfid unused (XA-4)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f');
    const newfid = c.fid();
    const security = harness.backend.serverOwns ? 'EOPNOTSUPP' : 'ENODATA';
    const absent = { user: 'ENODATA', security, system: 'EOPNOTSUPP', strange: 'EOPNOTSUPP' };
    for (const [space, errno] of Object.entries(absent)) {
      const answer = c.call('xattrwalk', { fid, newfid, name: `${space}.absent` });
      expect([space, await errnoOf(answer)]).toEqual([space, errno]);
    }
    await c.call('walk', { fid, newfid, wname: [] });
  });

  it('are read as they were when the fid walked there (XA-5)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f');
    await c.setXattr(fid, 'user.a', 'the old value');
    const newfid = c.fid();
    const { size } = await c.call('xattrwalk', { fid, newfid, name: 'user.a' });
    expect(Number(size)).toBe(13);
    await c.setXattr(fid, 'user.a', 'new');
    expect((await c.read(newfid, 0, 100)).toString()).toBe('the old value');
    await c.setXattr(fid, 'user.a', '', REPLACE);
    expect((await c.read(newfid, 4, 3)).toString()).toBe('old');
  });

  it('are read in pieces, and no further than they go (XA-6)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f');
    await c.setXattr(fid, 'user.a', '0123456789');
    const newfid = c.fid();
    await c.call('xattrwalk', { fid, newfid, name: 'user.a' });
    const read = async (offset: number | bigint, count: number) =>
      (await c.read(newfid, offset, count)).toString();
    expect(await read(0, 4)).toBe('0123');
    expect(await read(8, 0xffff_ffff)).toBe('89');
    expect(await read(10, 4)).toBe('');
    expect(await read(2 ** 40, 4)).toBe('');
    expect(await errnoOf(c.write(newfid, 0, 'x'))).not.toBe('none');
  });

  it('may be empty, but an ACL of no bytes is none (XA-7)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f');
    await c.setXattr(fid, 'user.empty', '');
    expect(await c.getXattr(fid, 'user.empty')).toHaveLength(0);
    expect(await c.xattrs(fid)).toEqual(['user.empty']);
    await c.setXattr(fid, 'system.posix_acl_access', '');
    expect(await errnoOf(c.getXattr(fid, 'system.posix_acl_access'))).toBe('ENODATA');
  });

  it('of an object without any are an empty list (XA-8)', async () => {
    const { c, dir } = await harness.begin();
    for (const fid of [await c.file(dir, 'f'), dir]) {
      const newfid = c.fid();
      expect(Number((await c.call('xattrwalk', { fid, newfid, name: '' })).size)).toBe(0);
      expect(await c.read(newfid, 0, 100)).toHaveLength(0);
    }
  });

  it("of a symlink are its own and never its target's (XA-9)", async () => {
    const { c, dir } = await harness.begin();
    await c.setXattr(await c.file(dir, 'f'), 'user.a', 'x');
    await c.symlink(dir, 'l', 'f');
    const link = await c.walk(dir, 'l');
    expect(['ENODATA', 'EPERM']).toContain(await errnoOf(c.getXattr(link, 'user.a')));
    expect(await errnoOf(c.setXattr(link, 'user.a', 'x'))).toBe('EPERM');
    if (harness.backend.serverOwns) {
      expect(await errnoOf(c.setXattr(link, 'trusted.t', 'root only'))).toBe('EOPNOTSUPP');
      return;
    }
    await c.setXattr(link, 'trusted.t', 'root only');
    expect((await c.getXattr(link, 'trusted.t')).toString()).toBe('root only');
    expect(await errnoOf(c.getXattr(await c.walk(dir, 'f'), 'trusted.t'))).toBe('ENODATA');
  });

  it('of trusted.* exist for root alone (XA-9)', async () => {
    const { c, dir, name } = await harness.begin();
    const fid = await c.file(dir, 'f', '', 0o666);
    if (harness.backend.serverOwns) {
      expect(await errnoOf(c.setXattr(fid, 'trusted.t', 'x'))).toBe('EOPNOTSUPP');
      return;
    }
    await c.setXattr(fid, 'trusted.t', 'x');
    await c.setXattr(fid, 'user.u', 'x');
    const user = await harness.connect({ n_uname: 1000 });
    const theirs = await user.walk(0, name, 'f');
    expect(await user.xattrs(theirs)).toEqual(['user.u']);
    expect(await errnoOf(user.getXattr(theirs, 'trusted.t'))).toBe('ENODATA');
    expect(await errnoOf(user.setXattr(theirs, 'trusted.t', 'y'))).toBe('EPERM');
    expect((await c.xattrs(fid)).sort()).toEqual(['trusted.t', 'user.u']);
  });

  it('live on with an open fid of an unlinked file (XA-10)', async () => {
    const { c, dir } = await harness.begin();
    const open = await c.create(dir, 'f');
    await c.unlink(dir, 'f');
    await c.setXattr(open, 'user.a', 'x');
    expect((await c.getXattr(open, 'user.a')).toString()).toBe('x');
    expect((await c.read(open, 0, 1)).length).toBe(0);
  });

  it('do not change when the client goes before the clunk (XA-11)', async () => {
    const { c, dir, name } = await harness.begin();
    const fid = await c.file(dir, 'f');
    const other = await harness.connect();
    const theirs = await other.walk(0, name, 'f');
    await other.call('xattrcreate', { fid: theirs, name: 'user.a', attr_size: 1, flags: 0 });
    await other.write(theirs, 0, 'x');
    await other.close();
    await harness.settle(2);
    expect(await c.xattrs(fid)).toEqual([]);
  });

  it('keep the bytes of an ACL (XA-12)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f', '', 0o644);
    // struct posix_acl_xattr_header, version 2, then tag u16, perm u16, id u32 of each entry.
    const entry = (tag: number, perm: number, id = 0xffff_ffff) => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt16LE(tag, 0);
      bytes.writeUInt16LE(perm, 2);
      bytes.writeUInt32LE(id, 4);
      return bytes;
    };
    const head = Buffer.from([2, 0, 0, 0]);
    const acl = Buffer.concat([
      head,
      entry(1, 6),
      entry(2, 4, 1000),
      entry(4, 4),
      entry(0x10, 4),
      entry(0x20, 4),
    ]);
    await c.setXattr(fid, 'system.posix_acl_access', acl);
    expect(await c.getXattr(fid, 'system.posix_acl_access')).toEqual(acl);
    await c.setXattr(fid, 'system.posix_acl_access', '');
    expect(await errnoOf(c.getXattr(fid, 'system.posix_acl_access'))).toBe('ENODATA');
  });

  it('are no files: other messages on their fids are refused', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    await c.setXattr(file, 'user.a', 'x');
    const reading = c.fid();
    await c.call('xattrwalk', { fid: file, newfid: reading, name: 'user.a' });
    const writing = await c.walk(file);
    await c.call('xattrcreate', { fid: writing, name: 'user.b', attr_size: 0, flags: 0 });
    for (const fid of [reading, writing]) {
      const answers = [
        c.call('lopen', { fid, flags: O.RDONLY }),
        c.call('lcreate', { fid, name: 'x', flags: 2, mode: 0o644, gid: 0 }),
        c.call('xattrcreate', { fid, name: 'user.c', attr_size: 1, flags: 0 }),
        c.walk(fid, 'x'),
        c.readdir(fid, 0),
        c.mkdir(fid, 'x'),
      ];
      expect(await Promise.all(answers.map(errnoOf))).not.toContain('none');
    }
    await c.clunk(reading);
    await c.clunk(writing);
    expect((await c.xattrs(file)).sort()).toEqual(['user.a', 'user.b']);
  });
}
