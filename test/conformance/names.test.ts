import { expect, it } from 'vitest';
import { conform } from './server-harness.ts';
import { AT_REMOVEDIR, errnoOf, O } from './test-client.ts';

conform('Tmkdir', harness => {
  it('gives exactly the mode and group, in a set-gid directory too (NS-1)', async () => {
    const { c, dir } = await harness.begin();
    const d = await c.mkdir(dir, 'd', 0o042775, 1234);
    const e = await c.mkdir(d, 'e', 0o042755, 1234);
    const f = await c.mkdir(d, 'f', 0o041777, 77);
    for (const [fid, mode, gid] of [
      [d, 0o042775, 1234],
      [e, 0o042755, 1234],
    ] as const)
      expect(await c.look(fid)).toMatchObject({ mode, ...harness.owner(0, gid) });
    expect((await c.look(f)).mode & 0o1777).toBe(0o1777);
    expect(await errnoOf(c.mkdir(dir, 'd'))).toBe('EEXIST');
    await c.file(dir, 'x');
    expect(await errnoOf(c.mkdir(dir, 'x'))).toBe('EEXIST');
    expect((await c.look(d)).nlink).toBe(harness.backend.differs.directoryLinks === 'one' ? 1 : 4);
  });
});

conform('Tsymlink and Treadlink', harness => {
  it('keep the bytes of the target (NS-2)', async () => {
    const { c, dir } = await harness.begin();
    // With `mapped` the target is the content of a file.
    const { real, differs } = harness.backend;
    const longest = (real && differs.targetBytesMax) || 4095;
    for (const [i, target] of [
      '/etc/passwd',
      '../..',
      'x'.repeat(longest),
      '\xff\xfe',
      'a//b/',
      '.',
    ].entries()) {
      await c.symlink(dir, `l${i}`, target);
      const fid = await c.walk(dir, `l${i}`);
      expect((await c.call('readlink', { fid })).target).toBe(target);
      expect(await c.look(fid)).toMatchObject({ mode: 0o120777, size: target.length });
    }
    expect(await errnoOf(c.symlink(dir, 'l0', 'x'))).toBe('EEXIST');
    expect(await errnoOf(c.symlink(dir, 'e', ''))).toBe('ENOENT');
    expect(await errnoOf(c.symlink(dir, 'e', 'x'.repeat(4096)))).toBe('ENAMETOOLONG');
    expect(await errnoOf(c.symlink(dir, 'e', 'a\0b'))).not.toBe('none');
    const file = await c.file(dir, 'f');
    for (const fid of [file, dir]) expect(await errnoOf(c.call('readlink', { fid }))).toBe('EINVAL');
  });
});

conform('Tmknod', harness => {
  it('makes every type with its mode, owner and device number (NS-3)', async () => {
    const { c, dir } = await harness.begin();
    const made = [
      ['r', 0o100640, 0, 0],
      ['p', 0o010644, 0, 0],
      ['s', 0o140666, 0, 0],
      ['c', 0o020600, 1, 3],
      ['b', 0o060660, 259, 70_000],
    ] as const;
    for (const [name, mode, major, minor] of made) {
      if (harness.backend.serverOwns && major > 0) {
        expect(await errnoOf(c.mknod(dir, name, mode, major, minor, 55))).toBe('EPERM');
        continue;
      }
      await c.mknod(dir, name, mode, major, minor, 55);
      const seen = await c.look(await c.walk(dir, name));
      expect(seen).toMatchObject({ mode, ...harness.owner(0, 55), nlink: 1 });
      if (major > 0) expect(seen.rdev).toBe(((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0);
    }
    expect(await errnoOf(c.mknod(dir, 'r', 0o100644))).toBe('EEXIST');
    const file = await c.open(await c.walk(dir, 'r'), O.RDWR);
    expect(await c.write(file, 0, 'x')).toBe(1);
  });

  it('takes a mode without a type for a regular file, and makes no directory', async () => {
    const { c, dir } = await harness.begin();
    await c.mknod(dir, 'f', 0o644);
    expect((await c.look(await c.walk(dir, 'f'))).mode).toBe(0o100644);
    expect(await errnoOf(c.mknod(dir, 'd', 0o040755))).not.toBe('none');
    expect(await errnoOf(c.mknod(dir, 'l', 0o120777))).not.toBe('none');
    expect(await errnoOf(c.mknod(dir, 'x', 0o030644))).not.toBe('none');
    expect(await c.list(dir)).toHaveLength(3);
  });
});

conform('Tlink', harness => {
  it('gives files and symlinks a second name (NS-4)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    await c.symlink(dir, 's', 'f');
    await c.link(dir, file, 'g');
    await c.link(dir, await c.walk(dir, 's'), 't');
    expect((await c.look(file)).nlink).toBe(2);
    expect((await c.look(await c.walk(dir, 't'))).type).toBe('symlink');
    await c.link(await c.open(dir, 0), await c.open(file, O.WRONLY), 'h');
    expect((await c.look(file)).nlink).toBe(3);
  });

  it('refuses directories, names that exist and files that are gone (NS-4)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    const d = await c.mkdir(dir, 'd');
    expect(await errnoOf(c.link(dir, d, 'e'))).toBe('EPERM');
    expect(await errnoOf(c.link(dir, file, 'f'))).toBe('EEXIST');
    expect(await errnoOf(c.link(dir, file, 'd'))).toBe('EEXIST');
    const open = await c.open(file, O.RDONLY);
    await c.unlink(dir, 'f');
    for (const fid of [file, open]) expect(await errnoOf(c.link(dir, fid, 'h'))).toBe('ENOENT');
    expect((await c.list(dir)).map(({ name }) => name).sort()).toEqual(['.', '..', 'd']);
  });
});

conform('Trenameat', harness => {
  it('moves to new names and over existing ones, whose open fids live on (NS-5)', async () => {
    const { c, dir } = await harness.begin();
    const d = await c.mkdir(dir, 'd');
    const file = await c.file(dir, 'f', 'moved');
    const victim = await c.open(await c.file(d, 'v', 'victim'), O.RDONLY);
    await c.rename(dir, 'f', dir, 'g');
    await c.rename(dir, 'g', d, 'v');
    expect((await c.read(victim, 0, 10)).toString()).toBe('victim');
    expect((await c.look(victim)).nlink).toBe(0);
    const moved = await c.walk(d, 'v');
    expect((await c.look(moved)).qid.path).toBe((await c.look(file)).qid.path);
    expect(await errnoOf(c.walk(dir, 'f'))).toBe('ENOENT');
    const e = await c.mkdir(dir, 'e');
    await c.rename(dir, 'd', dir, 'e');
    expect((await c.look(e)).nlink).toBe(0);
    await c.walk(dir, 'e', 'v');
  });

  it('says what Linux says when it cannot (NS-5)', async () => {
    const { c, dir } = await harness.begin();
    const d = await c.mkdir(dir, 'd');
    const below = await c.mkdir(d, 'below');
    await c.mkdir(dir, 'empty');
    await c.file(dir, 'f');
    expect(['EEXIST', 'ENOTEMPTY']).toContain(await errnoOf(c.rename(dir, 'empty', dir, 'd')));
    expect(await errnoOf(c.rename(dir, 'f', dir, 'd'))).toBe('EISDIR');
    expect(await errnoOf(c.rename(dir, 'd', dir, 'f'))).toBe('ENOTDIR');
    expect(await errnoOf(c.rename(dir, 'd', d, 'x'))).toBe('EINVAL');
    expect(await errnoOf(c.rename(dir, 'd', below, 'x'))).toBe('EINVAL');
    expect(['EEXIST', 'ENOTEMPTY']).toContain(await errnoOf(c.rename(d, 'below', dir, 'd')));
    expect(await errnoOf(c.rename(dir, 'absent', dir, 'x'))).toBe('ENOENT');
    expect((await c.list(dir)).map(({ name }) => name).sort()).toEqual(['.', '..', 'd', 'empty', 'f']);
  });

  it('onto itself or another name of the same file does nothing (NS-5)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    await c.link(dir, file, 'g');
    await c.mkdir(dir, 'd');
    await c.rename(dir, 'f', dir, 'f');
    await c.rename(dir, 'f', dir, 'g');
    await c.rename(dir, 'd', dir, 'd');
    expect((await c.list(dir)).map(({ name }) => name).sort()).toEqual(['.', '..', 'd', 'f', 'g']);
  });
});

conform('Trename', harness => {
  it('moves the object of a fid, which stays valid, or is not supported at all (NS-6)', async () => {
    const { c, dir } = await harness.begin();
    const d = await c.mkdir(dir, 'd');
    const file = await c.file(dir, 'f', 'content');
    const answer = await errnoOf(c.call('rename', { fid: file, dfid: d, name: 'g' }));
    expect(['none', 'EOPNOTSUPP']).toContain(answer);
    const [at, name] = answer === 'none' ? [d, 'g'] : [dir, 'f'];
    expect((await c.look(await c.walk(at, name))).qid.path).toBe((await c.look(file)).qid.path);
    if (answer === 'none') {
      await c.call('rename', { fid: file, dfid: dir, name: 'h' });
      await c.walk(dir, 'h');
      expect(await errnoOf(c.call('rename', { fid: d, dfid: d, name: 'x' }))).toBe('EINVAL');
      await c.unlink(dir, 'h');
      expect(await errnoOf(c.call('rename', { fid: file, dfid: dir, name: 'i' }))).toBe('ENOENT');
    }
  });
});

conform('Tunlinkat', harness => {
  it('removes files, symlinks and empty directories, each with its own flag (NS-7)', async () => {
    const { c, dir } = await harness.begin();
    const remove = (name: string, flags: number) => errnoOf(c.call('unlinkat', { dirfid: dir, name, flags }));
    await c.file(dir, 'f');
    const d = await c.mkdir(dir, 'd');
    await c.file(d, 'x');
    await c.symlink(dir, 'l', 'd');
    await c.mknod(dir, 'p', 0o010644);
    expect(['EISDIR', 'EPERM']).toContain(await remove('d', 0));
    expect(await remove('f', AT_REMOVEDIR)).toBe('ENOTDIR');
    expect(await remove('l', AT_REMOVEDIR)).toBe('ENOTDIR');
    expect(['EEXIST', 'ENOTEMPTY']).toContain(await remove('d', AT_REMOVEDIR));
    expect(await remove('absent', 0)).toBe('ENOENT');
    for (const flags of [1, 0x100, 0x400, 0xffff_ffff, AT_REMOVEDIR | 1])
      expect(await remove('f', flags)).toBe('EINVAL');
    for (const name of ['f', 'l', 'p']) expect(await remove(name, 0)).toBe('none');
    await c.walk(d, 'x');
    await c.unlink(d, 'x');
    expect(await remove('d', AT_REMOVEDIR)).toBe('none');
    expect(await c.list(dir)).toHaveLength(2);
  });
});

conform('every message that names an entry', harness => {
  it('refuses what is no name, and changes nothing (NS-9, CR-8)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    const d = await c.mkdir(dir, 'd');
    for (const name of ['', '.', '..', 'a/b', '/', 'd/', 'a\0b', '\0', 'n'.repeat(256)]) {
      const answers: Promise<unknown>[] = [
        c.create(dir, name, { flags: O.RDWR | O.CREATE }),
        c.mkdir(dir, name),
        c.symlink(dir, name, 'x'),
        c.mknod(dir, name, 0o100644),
        c.link(dir, file, name),
        c.rename(dir, 'f', dir, name),
        c.rename(dir, name, dir, 'g'),
        c.call('rename', { fid: file, dfid: dir, name }),
        c.unlink(dir, name),
        c.rmdir(d, name),
      ];
      for (const errno of await Promise.all(answers.map(errnoOf))) {
        if (name.length === 256) expect(errno).toBe('ENAMETOOLONG');
        else expect(errno).toMatch(/^(ENOENT|EINVAL|EEXIST|EISDIR|ENOTEMPTY|EOPNOTSUPP|EBADF|EBUSY)$/);
      }
    }
    expect((await c.list(dir)).map(({ name }) => name).sort()).toEqual(['.', '..', 'd', 'f']);
  });

  it('wants a directory for a directory (NS-10)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    for (const [fid, errno] of [
      [file, 'ENOTDIR'],
      [9999, 'EBADF'],
    ] as const) {
      const answers = [
        c.call('mkdir', { dfid: fid, name: 'x', mode: 0o755, gid: 0 }),
        c.call('symlink', { dfid: fid, name: 'x', symtgt: 'y', gid: 0 }),
        c.call('mknod', { dfid: fid, name: 'x', mode: 0o100644, major: 0, minor: 0, gid: 0 }),
        c.link(fid, file, 'x'),
        c.rename(fid, 'x', dir, 'y'),
        c.rename(dir, 'f', fid, 'y'),
        c.unlink(fid, 'x'),
        c.rmdir(fid, 'x'),
      ];
      expect(new Set(await Promise.all(answers.map(errnoOf)))).toEqual(new Set([errno]));
    }
    await c.walk(dir, 'f');
  });
});

conform('a read-only export', harness => {
  it('refuses every change with EROFS and lets everything be read (NS-11, OP-10)', async () => {
    const { c, dir, name } = await harness.begin();
    await c.file(dir, 'f', 'content');
    const ro = await harness.connect({ aname: 'readonly' });
    const d = await ro.walk(0, name);
    const file = await ro.walk(d, 'f');
    const refused = {
      lcreate: ro.create(d, 'g'),
      symlink: ro.symlink(d, 'g', 'x'),
      mknod: ro.mknod(d, 'g', 0o100644),
      mkdir: ro.mkdir(d, 'g'),
      link: ro.link(d, file, 'g'),
      rename: ro.call('rename', { fid: file, dfid: d, name: 'g' }),
      renameat: ro.rename(d, 'f', d, 'g'),
      unlinkat: ro.unlink(d, 'f'),
      setattr: ro.call('setattr', { ...ro.noChange, fid: file, valid: 1, mode: 0o777 }),
      'setattr of nothing': ro.call('setattr', { ...ro.noChange, fid: file, valid: 0 }),
      xattrcreate: ro.setXattr(file, 'user.a', 'x'),
      'lopen for writing': ro.open(file, O.WRONLY),
      'lopen for both': ro.open(file, O.RDWR),
      'lopen with TRUNC': ro.open(file, O.RDONLY | O.TRUNC),
    };
    const answers = Object.entries(refused).map(async ([what, answer]) => [what, await errnoOf(answer)]);
    for (const [what, errno] of await Promise.all(answers)) expect([what, errno]).toEqual([what, 'EROFS']);
    const open = await ro.open(file, O.RDONLY);
    expect((await ro.read(open, 0, 10)).toString()).toBe('content');
    expect(await ro.list(d)).toHaveLength(3);
    await ro.call('fsync', { fid: open, datasync: 0 });
    const gone = await ro.walk(file);
    expect(await errnoOf(ro.call('remove', { fid: gone }))).toBe('EROFS');
    expect(await errnoOf(ro.clunk(gone))).toBe('EBADF');
    expect((await c.look(await c.walk(dir, 'f'))).size).toBe(7);
  });
});
