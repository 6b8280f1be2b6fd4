import { expect, it } from 'vitest';
import { conform } from './server-harness.ts';
import { errnoOf, O } from './test-client.ts';

const DT = { fifo: 1, char: 2, directory: 4, block: 6, file: 8, symlink: 10, socket: 12 };

conform('Treaddir', harness => {
  it('lists everything once, with its type, and then stays at the end (RD-1)', async () => {
    const { c, dir } = await harness.begin();
    await c.file(dir, 'file');
    await c.mkdir(dir, 'directory');
    await c.symlink(dir, 'symlink', 'x');
    await c.mknod(dir, 'fifo', 0o010600);
    await c.mknod(dir, 'socket', 0o140600);
    const { char, block, ...types } = DT;
    const expected = harness.backend.serverOwns ? types : DT;
    if (expected === DT) {
      await c.mknod(dir, 'char', 0o020600, 1, 3);
      await c.mknod(dir, 'block', 0o060600, 8, 1);
    }
    const open = await c.open(dir, O.RDONLY);
    const entries = await c.readdir(open, 0);
    const seen = Object.fromEntries(entries.map(({ name, type }) => [name, type]));
    const shown =
      harness.backend.differs.listedTypes === 'directories'
        ? Object.fromEntries(Object.keys(DT).map(name => [name, name === 'directory' ? DT.directory : 0]))
        : expected;
    expect(seen).toEqual({ '.': DT.directory, '..': DT.directory, ...shown });
    expect(entries).toHaveLength(2 + Object.keys(expected).length);
    for (let i = 0; i < 3; i++) expect(await c.readdir(open, entries.at(-1)!.offset)).toEqual([]);
  });

  it('gives the qid.path that Tgetattr gives (RD-7)', async () => {
    const { c, dir } = await harness.begin();
    await c.file(dir, 'f');
    await c.mkdir(dir, 'd');
    const path = async (fid: number) => (await c.look(fid)).qid.path;
    for (const { name, qid } of await c.list(dir)) {
      if (name === '..' && harness.backend.differs.mounts === 'below') continue;
      const fid = name === '.' ? dir : await c.walk(dir, name);
      expect(qid.path).toBe(await path(fid));
    }
    const root = await path(0);
    const top = await c.list(0);
    expect(top.find(({ name }) => name === '..')?.qid.path).toBe(root);
    expect(top.find(({ name }) => name === '.')?.qid.path).toBe(root);
  });

  it('starts anew at offset 0 and sees what was added (RD-5)', async () => {
    const { c, dir } = await harness.begin();
    const open = await c.open(dir, O.RDONLY);
    expect(await c.readdir(open, 0)).toHaveLength(2);
    await c.file(dir, 'f');
    expect((await c.readdir(open, 0)).map(({ name }) => name)).toContain('f');
  });

  it('resumes behind every single cookie (RD-3)', async () => {
    const { c, dir } = await harness.begin();
    for (let i = 0; i < 30; i++) await c.file(dir, `file-${i}`);
    const open = await c.open(dir, O.RDONLY);
    const all = await c.readdir(open, 0);
    expect(all).toHaveLength(32);
    for (let i = all.length - 1; i >= 0; i--) {
      const rest = await c.readdir(open, all[i]!.offset);
      expect(rest.map(({ name }) => name)).toEqual(all.slice(i + 1).map(({ name }) => name));
    }
  });

  it('skips nothing when entries are removed as they come (RD-4, NS-8)', async () => {
    const { c, dir } = await harness.begin();
    for (let i = 0; i < 300; i++) await c.file(dir, `file-${i}`);
    const open = await c.open(dir, O.RDONLY);
    let removed = 0;
    for (let offset = 0n; ; ) {
      const entries = await c.readdir(open, offset, 400);
      if (entries.length === 0) break;
      for (const entry of entries) {
        offset = entry.offset;
        if (!entry.name.startsWith('file-')) continue;
        await c.call('unlinkat', { dirfid: open, name: entry.name, flags: 0 });
        removed++;
      }
    }
    expect(removed).toBe(300);
    expect(await c.list(dir)).toHaveLength(2);
  });

  it('refuses a count in which no entry fits (RD-6)', async () => {
    const { c, dir } = await harness.begin();
    const open = await c.open(dir, O.RDONLY);
    for (const count of [20, 24]) expect(await errnoOf(c.readdir(open, 0, count))).toBe('EINVAL');
    // `.` or `..`, depending on the file system; both do not fit by one byte.
    expect(await c.readdir(open, 0, 26)).toHaveLength(1);
  });

  it('works on open directories only (RD-8)', async () => {
    const { c, dir } = await harness.begin();
    expect(await errnoOf(c.readdir(dir, 0))).toBe('EBADF');
    expect(await errnoOf(c.readdir(await c.create(dir, 'f'), 0))).toBe('ENOTDIR');
    expect(await errnoOf(c.readdir(9999, 0))).toBe('EBADF');
  });

  it('of a removed directory finds nothing (RD-9)', async () => {
    const { c, dir } = await harness.begin();
    const open = await c.open(await c.mkdir(dir, 'd'), O.RDONLY);
    await c.rmdir(dir, 'd');
    const answer = await c.readdir(open, 0).catch(error => error.name);
    expect([[], 'ENOENT']).toContainEqual(answer);
  });

  it('has a position for each fid (RD-10)', async () => {
    const { c, dir } = await harness.begin();
    for (let i = 0; i < 20; i++) await c.file(dir, `file-${i}`);
    const a = await c.open(dir, O.RDONLY);
    const b = await c.open(a, O.RDONLY);
    const seen = { a: 0, b: 0 };
    let [atA, atB] = [0n, 0n];
    for (let done = false; !done; ) {
      const [fromA, fromB] = await Promise.all([c.readdir(a, atA, 100), c.readdir(b, atB, 300)]);
      seen.a += fromA.length;
      seen.b += fromB.length;
      atA = fromA.at(-1)?.offset ?? atA;
      atB = fromB.at(-1)?.offset ?? atB;
      done = fromA.length === 0 && fromB.length === 0;
    }
    expect(seen).toEqual({ a: 22, b: 22 });
  });

  it('answers calls that overlap on one fid as if one came after the other', async () => {
    const { c, dir } = await harness.begin();
    for (let i = 0; i < 40; i++) await c.file(dir, `file-${i}`);
    const open = await c.open(dir, O.RDONLY);
    const all = (await c.readdir(open, 0)).map(({ name }) => name);
    const lists = await Promise.all(Array.from({ length: 20 }, () => c.readdir(open, 0)));
    for (const list of lists) expect(list.map(({ name }) => name)).toEqual(all);
  });

  it('keeps the bytes of names, whatever they are (RD-11)', async () => {
    const { c, dir } = await harness.begin();
    const names = ['new\nline', '\xff\xfe\x80', 'n'.repeat(255), ' ', '\x01', '...', '\\', 'é'];
    for (const name of names) await c.file(dir, name);
    const listed = (await c.list(dir)).map(({ name }) => name);
    expect(listed.sort()).toEqual(['.', '..', ...names].sort());
    for (const name of names) await c.walk(dir, name);
  });

  it('lists many entries in small pieces, each once, with small cookies (RD-2)', async () => {
    const { c, dir } = await harness.begin();
    const count = harness.work(3000);
    const names = Array.from({ length: count }, (_, i) => `entry-${i}`);
    await Promise.all(names.map(name => c.mknod(dir, name, 0o100644)));
    const entries = await c.list(dir, 4072);
    expect(entries).toHaveLength(count + 2);
    expect(new Set(entries.map(({ name }) => name)).size).toBe(count + 2);
    for (const { offset } of entries) expect(offset > 0n && offset < 2n ** 63n).toBe(true);
  });
});
