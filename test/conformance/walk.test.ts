import { expect, it } from 'vitest';
import { conform } from './server-harness.ts';
import { errnoOf, NOFID, NONUNAME, O } from './test-client.ts';

conform('Tattach', harness => {
  it('gives the root of the export, a directory, to the names "" and "/" (AT-2)', async () => {
    const c = await harness.connect();
    for (const aname of ['', '/']) {
      const fid = c.fid();
      const qid = await c.attach(fid, { aname });
      expect(qid.type).toBe(0x80);
      expect((await c.look(fid)).qid).toEqual(qid);
    }
  });

  it('refuses an unknown export and leaves the fid unused (AT-3)', async () => {
    const c = await harness.connect();
    const fid = c.fid();
    expect(await errnoOf(c.attach(fid, { aname: 'nowhere' }))).toBe('ENOENT');
    expect(await errnoOf(c.look(fid))).toBe('EBADF');
    await c.attach(fid);
  });

  it('takes no path for the name of an export (AT-4)', async () => {
    const c = await harness.connect();
    for (const aname of ['../..', '..', '/etc', 'a\0b', '/../../etc', 'x'.repeat(4096)]) {
      expect(await errnoOf(c.attach(c.fid(), { aname }))).not.toBe('none');
    }
  });

  it('leaves a fid that is in use as it is (AT-5)', async () => {
    const { c, dir } = await harness.begin();
    const before = await c.look(dir);
    expect(['EBADF', 'EINVAL']).toContain(await errnoOf(c.attach(dir)));
    expect((await c.look(dir)).qid).toEqual(before.qid);
  });

  it('refuses an authentication fid, and Tauth itself (AT-6, AT-1)', async () => {
    const c = await harness.connect();
    expect(['EBADF', 'EINVAL']).toContain(await errnoOf(c.attach(c.fid(), { afid: 0 })));
    const auth = c.call('auth', { afid: c.fid(), uname: 'root', aname: '', n_uname: 0 });
    expect(await errnoOf(auth)).toBe('EOPNOTSUPP');
    expect(await errnoOf(c.attach(NOFID))).not.toBe('none');
  });

  it('gives every user a root of their own (AT-7)', async () => {
    const c = await harness.connect();
    const fids = [NONUNAME, 0, 1000].map(n_uname => ({ fid: c.fid(), n_uname }));
    for (const { fid, n_uname } of fids) await c.attach(fid, { n_uname });
    await c.clunk(fids[0]!.fid);
    expect((await c.look(fids[1]!.fid)).qid).toEqual((await c.look(fids[2]!.fid)).qid);
  });

  it('keeps the fids of two connections apart (AT-9)', async () => {
    const a = await harness.begin();
    const b = await harness.begin();
    await a.c.call('walk', { fid: a.dir, newfid: 77, wname: [] });
    expect(await errnoOf(b.c.look(77))).toBe('EBADF');
    await b.c.call('walk', { fid: b.dir, newfid: 77, wname: [] });
    expect((await a.c.look(77)).qid).not.toEqual((await b.c.look(77)).qid);
  });
});

conform('Twalk', harness => {
  it('without names clones a fid, and each lives without the other (WA-1)', async () => {
    const { c, dir } = await harness.begin();
    const newfid = c.fid();
    expect((await c.call('walk', { fid: dir, newfid, wname: [] })).wqid).toEqual([]);
    await c.clunk(dir);
    expect((await c.look(newfid)).type).toBe('directory');
    await c.mkdir(newfid, 'd');
  });

  it('clones fids of symlinks, FIFOs, sockets and devices (WA-2)', async () => {
    const { c, dir } = await harness.begin();
    await c.symlink(dir, 'l', 'nowhere');
    await c.mknod(dir, 'p', 0o010644);
    await c.mknod(dir, 's', 0o140644);
    const { serverOwns } = harness.backend;
    if (!serverOwns) await c.mknod(dir, 'c', 0o020644, 1, 3);
    for (const name of serverOwns ? ['l', 'p', 's'] : ['l', 'p', 's', 'c']) {
      const fid = await c.walk(dir, name);
      const clone = await c.walk(fid);
      expect((await c.look(clone)).qid).toEqual((await c.look(fid)).qid);
    }
  });

  it('gives a qid for every step (WA-3)', async () => {
    const { c, dir } = await harness.begin();
    const a = await c.mkdir(dir, 'a');
    const b = await c.mkdir(a, 'b');
    await c.file(b, 'c');
    const newfid = c.fid();
    const { wqid } = await c.call('walk', { fid: dir, newfid, wname: ['a', 'b', 'c'] });
    expect(wqid.map(qid => qid.type)).toEqual([0x80, 0x80, 0]);
    expect((await c.look(newfid)).qid).toEqual(c.qid(wqid[2]!));
    expect((await c.look(b)).qid.path).toBe(c.qid(wqid[1]!).path);
  });

  it('takes 16 names and no more (WA-4)', async () => {
    const { c, dir } = await harness.begin();
    let at = dir;
    for (let depth = 0; depth < 17; depth++) at = await c.mkdir(at, 'd');
    const names = Array.from({ length: 17 }, () => 'd');
    const fid = await c.walk(dir, ...names.slice(1));
    await c.walk(fid, 'd');
    expect(await errnoOf(c.call('walk', { fid: dir, newfid: c.fid(), wname: names }))).toBe('EINVAL');
  });

  it('whose first name is missing fails and leaves newfid unused (WA-5)', async () => {
    const { c, dir } = await harness.begin();
    const newfid = c.fid();
    expect(await errnoOf(c.call('walk', { fid: dir, newfid, wname: ['x', 'y'] }))).toBe('ENOENT');
    await c.call('walk', { fid: dir, newfid, wname: [] });
  });

  it('that fails midway tells how far it came and leaves newfid unused (WA-6)', async () => {
    const { c, dir } = await harness.begin();
    await c.mkdir(dir, 'a');
    const newfid = c.fid();
    const { wqid } = await c.call('walk', { fid: dir, newfid, wname: ['a', 'x', 'y'] });
    expect(wqid).toHaveLength(1);
    expect(await errnoOf(c.clunk(newfid))).toBe('EBADF');
    await c.call('walk', { fid: dir, newfid, wname: [] });
  });

  it('never goes through a file or a symlink (WA-7)', async () => {
    const { c, dir } = await harness.begin();
    await c.mkdir(dir, 'd');
    await c.file(dir, 'f');
    await c.symlink(dir, 'l', 'd');
    for (const name of ['f', 'l']) {
      const fid = await c.walk(dir, name);
      expect(await errnoOf(c.walk(fid, 'x'))).toBe('ENOTDIR');
      expect(await errnoOf(c.walk(fid, '..'))).toBe('ENOTDIR');
      const { wqid } = await c.call('walk', { fid: dir, newfid: c.fid(), wname: [name, 'x'] });
      expect(wqid).toHaveLength(1);
    }
    expect(await errnoOf(c.walk(dir, 'l', '..', '..'))).toBe('ENOENT');
  });

  it('in place moves the fid only when all names are there (WA-8)', async () => {
    const { c, dir } = await harness.begin();
    const a = await c.mkdir(dir, 'a');
    const b = await c.mkdir(a, 'b');
    const fid = await c.walk(dir);
    await c.call('walk', { fid, newfid: fid, wname: ['a', 'x'] });
    expect((await c.look(fid)).qid.path).toBe((await c.look(dir)).qid.path);
    await c.call('walk', { fid, newfid: fid, wname: ['a', 'b'] });
    expect((await c.look(fid)).qid.path).toBe((await c.look(b)).qid.path);
  });

  it('to a fid in use changes neither of them (WA-9)', async () => {
    const { c, dir } = await harness.begin();
    const a = await c.mkdir(dir, 'a');
    const before = await c.look(a);
    expect(['EBADF', 'EINVAL']).toContain(await errnoOf(c.call('walk', { fid: dir, newfid: a, wname: [] })));
    expect((await c.look(a)).qid).toEqual(before.qid);
    expect(await errnoOf(c.call('walk', { fid: dir, newfid: NOFID, wname: [] }))).not.toBe('none');
  });

  it('never leaves the export (WA-10)', async () => {
    const { c, dir, name } = await harness.begin();
    const root = await c.look(0);
    expect((await c.look(await c.walk(0, '..'))).qid.path).toBe(root.qid.path);
    await c.mkdir(dir, 'a');
    const up = await c.walk(dir, 'a', '..', '..', '..', '..', '..');
    expect((await c.look(up)).qid.path).toBe(root.qid.path);
    const down = await c.walk(dir, '..', name, 'a', '..');
    expect((await c.look(down)).qid.path).toBe((await c.look(dir)).qid.path);
    for (const step of ['x/y', '', 'a\0b', '.', 'a/..', '../..']) {
      expect(await errnoOf(c.walk(dir, step))).not.toBe('none');
    }
  });

  it('starts from open directories and clones open files (WA-12)', async () => {
    const { c, dir } = await harness.begin();
    await c.file(dir, 'f', 'content');
    const open = await c.open(dir, O.RDONLY | O.DIRECTORY);
    const file = await c.walk(open, 'f');
    for (const flags of [O.RDONLY, O.WRONLY, O.RDWR]) {
      const opened = await c.open(file, flags);
      const clone = await c.walk(opened);
      expect(await errnoOf(c.read(clone, 0, 10))).toBe('EBADF');
      await c.call('lopen', { fid: clone, flags: O.RDONLY });
      expect((await c.read(clone, 0, 10)).toString()).toBe('content');
    }
    const clone = await c.walk(open);
    expect(await errnoOf(c.readdir(clone, 0))).toBe('EBADF');
    await c.call('lopen', { fid: clone, flags: 0 });
    expect(await c.readdir(clone, 0)).toHaveLength(3);
  });

  it('clones an open fid of an unlinked file, which can then be opened (WA-13)', async () => {
    const { c, dir } = await harness.begin();
    await c.file(dir, 'f', 'content');
    const open = await c.open(await c.walk(dir, 'f'), O.RDONLY);
    await c.unlink(dir, 'f');
    const again = await c.open(open, O.RDWR);
    expect((await c.read(again, 0, 10)).toString()).toBe('content');
  });

  it('takes names of 255 bytes and no longer (WA-14)', async () => {
    const { c, dir } = await harness.begin();
    const name = 'n'.repeat(255);
    await c.file(dir, name);
    await c.walk(dir, name);
    expect(await errnoOf(c.walk(dir, `${name}n`))).toBe('ENAMETOOLONG');
  });

  it('gives the qid that every other message gives (WA-15)', async () => {
    const { c, dir } = await harness.begin();
    await c.file(dir, 'f', 'x');
    const fid = c.fid();
    const { wqid } = await c.call('walk', { fid: dir, newfid: fid, wname: ['f'] });
    const qid = c.qid(wqid[0]!);
    expect((await c.look(fid)).qid).toEqual(qid);
    const opened = await c.call('lopen', { fid, flags: O.RDONLY });
    expect(c.qid(opened.qid)).toEqual(qid);
    expect((await c.look(fid)).qid).toEqual(qid);
    expect((await c.list(dir)).find(({ name }) => name === 'f')?.qid.path).toBe(qid.path);
  });

  it('from an unknown fid is EBADF (WA-16)', async () => {
    const { c } = await harness.begin();
    expect(await errnoOf(c.walk(12_345, 'x'))).toBe('EBADF');
    expect(await errnoOf(c.walk(NOFID))).toBe('EBADF');
  });
});
