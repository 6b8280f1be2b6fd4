import { expect, it } from 'vitest';
import { noId } from '#base/ids.ts';
import { conform } from './server-harness.ts';
import { AT_REMOVEDIR, errnoOf, O, SET } from './test-client.ts';

conform('Tlopen', harness => {
  it('opens a file for reading, for writing and for both, and knows no fourth way (OP-1)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f', 'x');
    for (const flags of [O.RDONLY, O.WRONLY, O.RDWR]) await c.open(file, flags);
    expect(await errnoOf(c.open(file, O.NOACCESS))).toBe('EINVAL');
  });

  it('of an open fid is refused and leaves it open (OP-2)', async () => {
    const { c, dir } = await harness.begin();
    const open = await c.open(await c.file(dir, 'f', 'x'), O.RDONLY);
    expect(['EBADF', 'EINVAL']).toContain(await errnoOf(c.call('lopen', { fid: open, flags: O.RDWR })));
    expect((await c.read(open, 0, 1)).toString()).toBe('x');
    expect(await errnoOf(c.write(open, 0, 'y'))).toBe('EBADF');
  });

  it('opens directories for reading only (OP-3, OP-11)', async () => {
    const { c, dir } = await harness.begin();
    for (const flags of [0, 0o2304000]) {
      const fid = await c.walk(dir);
      expect((await c.call('lopen', { fid, flags })).iounit).toBe(0);
    }
    expect(await errnoOf(c.open(dir, O.WRONLY))).toBe('EISDIR');
    expect(await errnoOf(c.open(dir, O.RDWR))).toBe('EISDIR');
  });

  it('with the DIRECTORY flag opens nothing but directories (OP-4)', async () => {
    const { c, dir } = await harness.begin();
    expect(await errnoOf(c.open(await c.file(dir, 'f'), O.RDONLY | O.DIRECTORY))).toBe('ENOTDIR');
  });

  it("ignores what is the client's own business among the flags (OP-5)", async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f', 'some content');
    const noise =
      O.CREATE | O.EXCL | O.NOCTTY | O.NOFOLLOW | O.DIRECT | O.LARGEFILE | O.CLOEXEC | O.FASYNC | O.NONBLOCK;
    const open = await c.open(file, O.RDWR | noise);
    expect(await c.write(open, 3, 'abc')).toBe(3);
    expect((await c.read(open, 1, 7)).toString()).toBe('omabcon');
  });

  it('with TRUNC empties the file at once, and only then (OP-6)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f', 'content');
    await c.open(file, O.WRONLY);
    expect((await c.look(file)).size).toBe(7);
    await c.open(file, O.WRONLY | O.TRUNC);
    expect((await c.look(file)).size).toBe(0);
  });

  it('of what is no file or directory fails at once (OP-8)', async () => {
    const { c, dir } = await harness.begin();
    await c.symlink(dir, 'l', '/etc/passwd');
    await c.mknod(dir, 'p', 0o010644);
    await c.mknod(dir, 's', 0o140644);
    const { serverOwns } = harness.backend;
    if (!serverOwns) await c.mknod(dir, 'c', 0o020644, 1, 5);
    const before = performance.now();
    for (const name of serverOwns ? ['l', 'p', 's'] : ['l', 'p', 's', 'c']) {
      const fid = await c.walk(dir, name);
      for (const flags of [O.RDONLY, O.WRONLY, O.RDWR | O.TRUNC]) {
        const expected = name === 'l' ? ['ELOOP'] : ['ENXIO', 'EOPNOTSUPP'];
        expect(expected).toContain(await errnoOf(c.call('lopen', { fid, flags })));
      }
    }
    expect(performance.now() - before).toBeLessThan(1000);
  });

  it('gives an iounit that a message can carry (OP-11)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f');
    const { iounit } = await c.call('lopen', { fid, flags: 0 });
    expect(iounit).toBeLessThanOrEqual(c.msize - 24);
  });

  it('gives a version that moves when somebody else changed the content, and is never 0 (OP-13)', async () => {
    const a = await harness.begin();
    const file = await a.c.file(a.dir, 'f', 'x');
    const b = await harness.connect();
    const theirs = await b.open(await b.walk(0, a.name, 'f'), O.RDWR);
    const version = async () => {
      const fid = await a.c.walk(file);
      const { qid } = await a.c.call('lopen', { fid, flags: 0 });
      await a.c.clunk(fid);
      return a.c.qid(qid).version;
    };
    const seen = [await version()];
    for (const content of ['y', 'zz', 'zz']) {
      await b.write(theirs, 0, content);
      seen.push(await version());
    }
    expect(new Set(seen).size).toBe(4);
    expect(seen).not.toContain(0);
  });
});

conform('Tlcreate', harness => {
  it('turns the fid of the directory into that of the new, open file (CR-1)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.create(dir, 'f');
    expect(await c.write(fid, 0, 'content')).toBe(7);
    const seen = await c.look(fid);
    expect([seen.type, seen.size]).toEqual(['file', 7]);
    expect(await errnoOf(c.walk(fid, 'x'))).toBe('ENOTDIR');
    expect(await errnoOf(c.call('mkdir', { dfid: fid, name: 'd', mode: 0o755, gid: 0 }))).toBe('ENOTDIR');
  });

  it('gives exactly the mode and owner that were asked for (CR-2, CR-3)', async () => {
    const { c, dir } = await harness.begin();
    for (const mode of [0o100666, 0o666, 0o4755, 0o6711, 0o100000]) {
      const fid = await c.create(dir, `f${mode}`, { mode, gid: 1234 });
      const seen = await c.look(fid);
      const wanted = harness.fileMode(0o100000 | (mode & 0o7777));
      expect(seen.mode.toString(8)).toBe(wanted.toString(8));
      expect(seen).toMatchObject(harness.owner(0, 1234));
    }
  });

  it('opens an existing file as it is, unless EXCL forbids (CR-4)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f', 'content', 0o600);
    const again = await c.create(dir, 'f', { flags: O.RDWR | O.CREATE, mode: 0o777 });
    expect((await c.read(again, 0, 10)).toString()).toBe('content');
    expect((await c.look(again)).mode & 0o7777).toBe(0o600);
    expect(await errnoOf(c.create(dir, 'f', { flags: O.RDWR | O.CREATE | O.EXCL }))).toBe('EEXIST');
    await c.create(dir, 'f', { flags: O.RDWR | O.CREATE | O.TRUNC });
    expect((await c.look(file)).size).toBe(0);
  });

  it('leaves the fid at the directory when it fails (CR-5)', async () => {
    const { c, dir } = await harness.begin();
    await c.file(dir, 'f');
    const fid = await c.walk(dir);
    const body = { fid, name: 'f', flags: O.EXCL | O.RDWR, mode: 0o644, gid: 0 };
    expect(await errnoOf(c.call('lcreate', body))).toBe('EEXIST');
    expect((await c.look(fid)).type).toBe('directory');
    await c.call('lcreate', { ...body, name: 'g' });
    expect((await c.look(fid)).type).toBe('file');
  });

  it('does not follow a symlink that has the name (CR-6)', async () => {
    const { c, dir } = await harness.begin();
    await c.symlink(dir, 'dangling', 'nowhere');
    await c.symlink(dir, 'outside', '/etc/hostname');
    for (const name of ['dangling', 'outside']) {
      for (const flags of [O.RDWR, O.RDWR | O.EXCL, O.RDWR | O.TRUNC]) {
        expect(['EEXIST', 'ELOOP']).toContain(await errnoOf(c.create(dir, name, { flags })));
      }
    }
    expect(await errnoOf(c.walk(dir, 'nowhere'))).toBe('ENOENT');
  });

  it('does not open a directory or a FIFO that has the name (CR-7)', async () => {
    const { c, dir } = await harness.begin();
    await c.mkdir(dir, 'd');
    await c.mknod(dir, 'p', 0o010644);
    expect(['EEXIST', 'EISDIR']).toContain(await errnoOf(c.create(dir, 'd')));
    expect(['EEXIST', 'ENXIO', 'EOPNOTSUPP']).toContain(await errnoOf(c.create(dir, 'p')));
  });

  it('lets its fid write and cut what the mode forbids (CR-9)', async () => {
    const { c, dir } = await harness.begin(1000);
    const fid = await c.create(dir, 'f', { flags: O.WRONLY, mode: 0o444, gid: noId });
    await c.write(fid, 0, 'content');
    await c.call('setattr', { ...c.noChange, fid, valid: SET.SIZE, size: 3 });
    expect((await c.look(fid)).size).toBe(3);
  });

  it('in a removed directory is ENOENT (CR-10)', async () => {
    const { c, dir } = await harness.begin();
    const d = await c.mkdir(dir, 'd');
    await c.call('unlinkat', { dirfid: dir, name: 'd', flags: AT_REMOVEDIR });
    expect(await errnoOf(c.create(d, 'f'))).toBe('ENOENT');
    expect(await errnoOf(c.mkdir(d, 'g'))).toBe('ENOENT');
  });

  it('works through a clone of an open directory fid (CR-11)', async () => {
    const { c, dir } = await harness.begin();
    const open = await c.open(dir, O.RDONLY);
    await c.create(open, 'f');
    await c.walk(dir, 'f');
  });
});
