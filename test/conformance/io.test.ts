import { expect, it } from 'vitest';
import { noId } from '#base/ids.ts';
import { operations } from '#protocol/operations.ts';
import { frame } from './raw-connection.ts';
import { conform } from './server-harness.ts';
import { errnoOf, O, SET } from './test-client.ts';

conform('Tread and Twrite', harness => {
  it('read at the start, in the middle, across the end and beyond it (IO-1)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.open(await c.file(dir, 'f', '0123456789'), O.RDONLY);
    const read = async (offset: number, count: number) => (await c.read(fid, offset, count)).toString();
    expect(await read(0, 4)).toBe('0123');
    expect(await read(4, 4)).toBe('4567');
    expect(await read(8, 4)).toBe('89');
    expect(await read(10, 4)).toBe('');
    expect(await read(1e9, 4)).toBe('');
  });

  it('take a count of 0 (IO-2)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.create(dir, 'f');
    expect(await c.write(fid, 5, '')).toBe(0);
    expect(await c.read(fid, 0, 0)).toHaveLength(0);
    expect((await c.look(fid)).size).toBe(0);
  });

  it('answer the largest count with what fits a message (IO-3, IO-4)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.create(dir, 'f');
    const chunk = Buffer.alloc(c.msize - 24, 7);
    for (let i = 0; i < 3; i++) expect(await c.write(fid, i * chunk.length, chunk)).toBe(chunk.length);
    for (const count of [0xffff_ffff, 0x8000_0000, 0xffff_fff0, c.msize]) {
      const data = await c.read(fid, 0, count);
      expect(data.length).toBeGreaterThanOrEqual(c.msize - 24);
      expect(data.length).toBeLessThanOrEqual(c.msize - 11);
    }
    expect(await c.read(fid, 1, c.msize - 24)).toEqual(chunk);
  });

  it('reach offsets beyond 4 GiB exactly (IO-5)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.create(dir, 'f');
    for (const offset of [2 ** 32 + 1, 2 ** 40 + 4095]) {
      await c.write(fid, offset, 'here');
      expect((await c.look(fid)).size).toBe(offset + 4);
      expect((await c.read(fid, offset - 1, 9)).toString('latin1')).toBe('\0here');
    }
    expect((await c.read(fid, 2 ** 32 + 1, 4)).toString()).toBe('here');
    expect((await c.read(fid, 1, 4)).toString('latin1')).toBe('\0\0\0\0');
  });

  it('reach no offset that a number cannot hold, rather than another one (IO-5, IO-6)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.create(dir, 'f');
    for (const offset of [2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]) {
      const write = c.loose('write', { fid, offset, data: Buffer.from('x') });
      expect(['EINVAL', 'EFBIG']).toContain(await errnoOf(write));
      const read = await errnoOf(c.loose('read', { fid, offset, count: 4 }));
      expect(offset < 2n ** 63n ? ['none', 'EINVAL', 'EFBIG'] : ['EINVAL']).toContain(read);
    }
    expect((await c.look(fid)).size).toBe(0);
  });

  it('need a fid that is open, and open for this (IO-8)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f', 'content');
    const reader = await c.open(file, O.RDONLY);
    const writer = await c.open(file, O.WRONLY);
    expect(await errnoOf(c.read(writer, 0, 1))).toBe('EBADF');
    expect(await errnoOf(c.write(reader, 0, 'x'))).toBe('EBADF');
    expect(await errnoOf(c.read(file, 0, 1))).toBe('EBADF');
    expect(await errnoOf(c.write(file, 0, 'x'))).toBe('EBADF');
    expect((await c.read(reader, 0, 10)).toString()).toBe('content');
  });

  it('do not work on directories (IO-9)', async () => {
    const { c, dir } = await harness.begin();
    const open = await c.open(dir, O.RDONLY);
    expect(await errnoOf(c.read(open, 0, 100))).toBe('EISDIR');
    expect(['EBADF', 'EISDIR']).toContain(await errnoOf(c.write(open, 0, 'x')));
  });

  it('may run side by side on one fid (IO-11)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.create(dir, 'f');
    const pieces = Array.from({ length: 64 }, (_, i) => Buffer.alloc(3000, i + 1));
    await Promise.all(pieces.map((piece, i) => c.write(fid, i * 3000, piece)));
    const read = await Promise.all(pieces.map((_, i) => c.read(fid, i * 3000, 3000)));
    expect(Buffer.concat(read).equals(Buffer.concat(pieces))).toBe(true);
  });

  it('write where they are told, on a fid opened for appending too (IO-12)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.open(await c.file(dir, 'f', 'abcdef'), O.RDWR | O.APPEND);
    await c.write(fid, 0, 'XY');
    expect((await c.read(fid, 0, 100)).toString()).toBe('XYcdef');
  });

  it('append where the fid was opened to write only and append, wherever they are told (IO-12)', async () => {
    const { c, dir } = await harness.begin();
    const one = await c.open(await c.file(dir, 'f', 'abcdef'), O.WRONLY | O.APPEND);
    const two = await c.open(await c.walk(dir, 'f'), O.WRONLY | O.APPEND);
    await c.write(one, 6, '1');
    await c.write(two, 6, '2');
    await c.write(one, 0, '3');
    const created = await c.create(dir, 'g', { flags: O.WRONLY | O.APPEND });
    await c.write(created, 0, 'x');
    await c.write(created, 0, 'y');
    const reader = await c.open(await c.walk(dir, 'f'), O.RDONLY);
    expect((await c.read(reader, 0, 100)).toString()).toBe('abcdef123');
    const other = await c.open(await c.walk(dir, 'g'), O.RDONLY);
    expect((await c.read(other, 0, 100)).toString()).toBe('xy');
  });

  it('work on an unlinked file (IO-13)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.create(dir, 'f');
    await c.unlink(dir, 'f');
    await c.write(fid, 0, 'content');
    expect((await c.read(fid, 0, 100)).toString()).toBe('content');
  });

  it('write through fids opened for synchronous writing (IO-14)', async () => {
    const { c, dir } = await harness.begin();
    for (const flags of [O.SYNC, O.DSYNC, O.SYNC | O.DSYNC]) {
      const made = await c.create(dir, `f${flags}`, { flags: O.RDWR | flags });
      expect(await c.write(made, 0, 'content')).toBe(7);
      const opened = await c.open(made, O.RDWR | flags);
      expect(await c.write(opened, 7, ' more')).toBe(5);
      expect((await c.read(made, 0, 100)).toString()).toBe('content more');
    }
  });

  it('take set-id bits away when another than root writes (IO-15)', async () => {
    const { c, dir } = await harness.begin(1000);
    const fid = await c.create(dir, 'f', { mode: 0o4755, gid: noId });
    expect((await c.look(fid)).mode & 0o7777).toBe(harness.fileMode(0o4755));
    await c.write(fid, 0, 'x');
    expect((await c.look(fid)).mode & 0o7777).toBe(0o755);
  });
});

conform('Tclunk', harness => {
  it('makes the number free for the very next walk (CL-1)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.walk(dir);
    await c.clunk(fid);
    expect(await errnoOf(c.look(fid))).toBe('EBADF');
    await c.call('walk', { fid: dir, newfid: fid, wname: [] });
  });

  it('keeps up with a client that does not wait for answers (CL-2)', async () => {
    const { c, dir } = await harness.begin();
    await c.file(dir, 'f', 'content');
    const fid = c.fid();
    const answers: Promise<unknown>[] = [];
    for (let round = 0; round < 250; round++) {
      answers.push(c.call('walk', { fid: dir, newfid: fid, wname: ['f'] }));
      answers.push(c.call('lopen', { fid, flags: O.RDONLY }));
      answers.push(c.read(fid, 0, 7).then(data => expect(data.toString()).toBe('content')));
      answers.push(c.clunk(fid));
    }
    const errnos = new Set(await Promise.all(answers.map(errnoOf)));
    // While a walk waits its newfid does not exist; while an lopen waits the fid is not open.
    if (harness.backend.differs.requests === 'may wait') errnos.delete('EBADF');
    expect([...errnos]).toEqual(['none']);
  });

  it('during reads of the fid lets no other file show through (CL-3)', async () => {
    const { c, dir } = await harness.begin();
    const mine = await c.file(dir, 'mine', Buffer.alloc(60_000, 1));
    await c.file(dir, 'other', Buffer.alloc(60_000, 2));
    for (let round = 0; round < 20; round++) {
      const fid = await c.open(mine, O.RDONLY);
      const reads = Array.from({ length: 4 }, () => c.read(fid, 0, 60_000).catch(() => Buffer.alloc(0)));
      const clunked = c.clunk(fid);
      const other = c.walk(dir, 'other').then(at => c.open(at, O.RDONLY));
      for (const data of await Promise.all(reads)) expect(data.includes(2)).toBe(false);
      await clunked;
      await c.clunk(await other);
    }
  });

  it('of an unknown fid is EBADF (CL-4)', async () => {
    const { c } = await harness.begin();
    expect(await errnoOf(c.clunk(4242))).toBe('EBADF');
  });

  it('of the root fid leaves the others alone (CL-6)', async () => {
    const { c, dir, name } = await harness.begin();
    const other = c.fid();
    await c.attach(other);
    await c.clunk(0);
    await c.look(dir);
    await c.walk(other, name);
  });
});

conform('Tremove', harness => {
  it('removes the object and clunks the fid, or fails and clunks the fid (CL-5)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    const empty = await c.mkdir(dir, 'empty');
    const full = await c.mkdir(dir, 'full');
    await c.file(full, 'f');
    const answers = [];
    for (const fid of [file, empty, full]) {
      answers.push(await errnoOf(c.call('remove', { fid })));
      expect(await errnoOf(c.clunk(fid))).toBe('EBADF');
    }
    if (answers.includes('EOPNOTSUPP')) expect(new Set(answers).size).toBe(1);
    else {
      expect(answers).toEqual(['none', 'none', 'ENOTEMPTY']);
      expect((await c.list(dir)).map(({ name }) => name).sort()).toEqual(['.', '..', 'full']);
    }
  });
});

conform('Tfsync', harness => {
  it('works on fids open for writing, for reading, and on directories (LK-9)', async () => {
    const { c, dir } = await harness.begin();
    const writer = await c.create(dir, 'f');
    await c.write(writer, 0, 'x');
    const reader = await c.open(writer, O.RDONLY);
    const open = await c.open(dir, O.RDONLY);
    for (const fid of [writer, reader, open]) {
      for (const datasync of [0, 1]) await c.call('fsync', { fid, datasync });
    }
    expect(await errnoOf(c.call('fsync', { fid: dir, datasync: 0 }))).toBe('EBADF');
  });

  it('may lack its datasync, as old clients leave it out (LK-9)', async () => {
    const { a } = await harness.contended();
    a.send(frame(operations.fsync.type, 3, Buffer.from([1, 0, 0, 0])));
    expect(await a.next()).toMatchObject({ type: 51, tag: 3 });
  });
});

conform('a file that is cut', harness => {
  it('changes its size through every kind of fid (SA-4)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f', 'content');
    const writer = await c.open(file, O.RDWR);
    const reader = await c.open(file, O.RDONLY);
    const cut = (fid: number, size: number) =>
      c.call('setattr', { ...c.noChange, fid, valid: SET.SIZE | SET.MTIME | SET.CTIME, size });
    for (const [i, fid] of [file, writer, reader].entries()) {
      await cut(fid, 3);
      expect((await c.read(reader, 0, 100)).toString()).toBe('con');
      await cut(fid, 3);
      await cut(fid, 6 + i);
      expect((await c.read(reader, 0, 100)).toString('latin1')).toBe(`con${'\0'.repeat(3 + i)}`);
    }
    await c.unlink(dir, 'f');
    for (const fid of [file, writer, reader]) {
      await cut(fid, 1);
      await cut(fid, 2);
    }
    expect((await c.read(reader, 0, 100)).toString('latin1')).toBe('c\0');
    expect(['EISDIR', 'EINVAL']).toContain(await errnoOf(cut(dir, 0)));
    for (const size of [2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n]) {
      const change = { ...c.noChange, fid: file, valid: SET.SIZE, size };
      expect(['EINVAL', 'EFBIG']).toContain(await errnoOf(c.call('setattr', change)));
    }
    expect((await c.look(file)).size).toBe(2);
  });
});
