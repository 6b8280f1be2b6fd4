import { expect, it } from 'vitest';
import { conform } from './server-harness.ts';
import { errnoOf, O, SET } from './test-client.ts';

const basic = 0x7ff;
const second = 1_000_000_000n;

conform('Tgetattr', harness => {
  it('fills every basic field whatever is asked for (GA-1)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f', 'content', 0o640);
    for (const mask of [0, 1, 0x7ff, 0x17ff, 0x3fff]) {
      const seen = await c.look(fid, mask);
      expect(seen.valid & basic).toBe(basic);
      expect(seen).toMatchObject({ mode: 0o100640, size: 7, nlink: 1, ...harness.owner(0, 0) });
    }
  });

  it('tells all types apart (GA-2)', async () => {
    const { c, dir } = await harness.begin();
    await c.file(dir, 'file');
    await c.mkdir(dir, 'directory');
    await c.symlink(dir, 'symlink', 'the target');
    await c.mknod(dir, 'fifo', 0o010600);
    await c.mknod(dir, 'socket', 0o140600);
    const look = async (name: string) => c.look(await c.walk(dir, name));
    for (const name of ['file', 'directory', 'symlink', 'fifo', 'socket'])
      expect((await look(name)).type).toBe(name);
    expect((await look('symlink')).size).toBe(10);
    expect((await look('symlink')).qid.type).toBe(0x02);
    if (harness.backend.serverOwns) return;
    await c.mknod(dir, 'char', 0o020600, 8, 1);
    await c.mknod(dir, 'block', 0o060600, 259, 70_000);
    for (const name of ['char', 'block']) expect((await look(name)).type).toBe(name);
    expect((await look('char')).rdev).toBe(0x801);
    // new_encode_dev: (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)
    expect((await look('block')).rdev).toBe(0x70 | (259 << 8) | (0x11100 << 12));
    expect((await look('block')).qid.type).toBe(0);
  });

  it('works on unlinked objects, walked to or opened before (GA-3)', async () => {
    const { c, dir } = await harness.begin();
    const walked = await c.file(dir, 'f', 'content');
    const opened = await c.open(walked, O.RDONLY);
    const d = await c.mkdir(dir, 'd');
    await c.unlink(dir, 'f');
    await c.rmdir(dir, 'd');
    for (const fid of [walked, opened]) {
      const seen = await c.look(fid);
      expect([seen.nlink, seen.size]).toEqual([0, 7]);
    }
    expect((await c.look(d)).nlink).toBe(0);
  });

  it('follows the object when it or a parent is renamed by somebody else (GA-4)', async () => {
    const { c, dir, name } = await harness.begin();
    const d = await c.mkdir(dir, 'd');
    const file = await c.file(d, 'f', 'content');
    const before = await c.look(file);
    const other = await harness.connect();
    const theirs = await other.walk(0, name);
    await other.rename(theirs, 'd', theirs, 'e');
    await other.rename(await other.walk(theirs, 'e'), 'f', theirs, 'g');
    const { sessions, renamedElsewhere } = harness.backend.differs;
    if (sessions === 'apart' && renamedElsewhere === 'ESTALE') {
      expect(await errnoOf(c.look(file))).toBe('ESTALE');
      return;
    }
    expect((await c.look(file)).qid.path).toBe(before.qid.path);
    const open = await c.open(file, O.RDWR);
    expect((await c.read(open, 0, 10)).toString()).toBe('content');
    expect((await c.look(await c.walk(dir, 'g'))).qid.path).toBe(before.qid.path);
    const up = await c.walk(await c.walk(dir, 'e'), '..');
    expect((await c.look(up)).qid.path).toBe((await c.look(dir)).qid.path);
  });

  it('counts blocks of 512 bytes, and none for holes (GA-5)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.create(dir, 'f');
    await c.write(fid, 1_000_000, Buffer.alloc(4096, 1));
    const seen = await c.look(fid);
    expect(seen.blocks).toBeGreaterThanOrEqual(8);
    expect(seen.blocks).toBeLessThan(100);
    expect(seen.blksize).toBeGreaterThanOrEqual(512);
    expect(seen.blksize % 512).toBe(0);
  });

  it('gives one qid.path to all names of a file and another to every other file (GA-7)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    await c.link(dir, file, 'g');
    await c.file(dir, 'h');
    const path = async (name: string) => (await c.look(await c.walk(dir, name))).qid.path;
    expect(await path('g')).toBe(await path('f'));
    expect(await path('h')).not.toBe(await path('f'));
    expect((await c.look(file)).nlink).toBe(2);
  });

  it('shows a version that moves with the changes of others, and not with reading (GA-8)', async () => {
    const { c, dir, name } = await harness.begin();
    const file = await c.file(dir, 'f', 'content');
    const other = await harness.connect();
    const theirs = await other.open(await other.walk(0, name, 'f'), O.RDWR);
    const seen = [(await c.look(file)).qid.version];
    const changes = [
      () => other.write(theirs, 0, 'CONTENT'),
      () => other.write(theirs, 0, 'CONTENT'),
      () => other.call('setattr', { ...other.noChange, fid: theirs, valid: SET.SIZE, size: 3 }),
      () => other.call('setattr', { ...other.noChange, fid: theirs, valid: SET.MODE, mode: 0o600 }),
    ];
    for (const change of changes) {
      await change();
      seen.push((await c.look(file)).qid.version);
    }
    expect(new Set(seen).size).toBe(seen.length);
    await other.read(theirs, 0, 3);
    expect((await c.look(file)).qid.version).toBe(seen.at(-1));
    expect(seen).not.toContain(0);
  });

  it('shows a version that stays through the changes of this client', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.create(dir, 'f');
    const before = (await c.look(file)).qid.version;
    await c.write(file, 0, 'content');
    await c.call('setattr', { ...c.noChange, fid: file, valid: SET.SIZE, size: 3 });
    expect((await c.look(file)).qid.version).toBe(before);
    expect((await c.look(await c.walk(dir, 'f'))).qid.version).toBe(before);
  });
});

conform('Tsetattr', harness => {
  it('takes the permission bits of a mode and leaves the type (SA-1)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    const d = await c.mkdir(dir, 'd');
    for (const [fid, mode, seen] of [
      [file, 0o100640, 0o100640],
      [file, 0o7777, harness.fileMode(0o107777)],
      [file, 0, 0o100000],
      [d, 0o040755, 0o040755],
      [d, 0o041777, 0o041777],
      [d, 0o100700, 0o040700],
    ] as const) {
      await c.call('setattr', { ...c.noChange, fid, valid: SET.MODE | SET.CTIME, mode });
      expect((await c.look(fid)).mode.toString(8)).toBe(seen.toString(8));
    }
  });

  it('changes owner and group apart, of a symlink too (SA-2)', async () => {
    const { c, dir } = await harness.begin();
    await c.symlink(dir, 'l', 'nowhere');
    const link = await c.walk(dir, 'l');
    for (const fid of [await c.file(dir, 'f'), link]) {
      const owner = async () => {
        const { uid, gid } = await c.look(fid);
        return { uid, gid };
      };
      await c.call('setattr', { ...c.noChange, fid, valid: SET.UID, uid: 1000 });
      expect(await owner()).toEqual(harness.owner(1000, 0));
      await c.call('setattr', { ...c.noChange, fid, valid: SET.GID, gid: 1001 });
      expect(await owner()).toEqual(harness.owner(1000, 1001));
      await c.call('setattr', { ...c.noChange, fid, valid: SET.UID | SET.GID | SET.CTIME, uid: 7, gid: 8 });
      expect(await owner()).toEqual(harness.owner(7, 8));
    }
    expect((await c.look(link)).type).toBe('symlink');
  });

  it('keeps set-id bits that come with the owner, and drops them without (SA-3)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f', '', 0o6755);
    await c.call('setattr', { ...c.noChange, fid, valid: SET.UID | SET.MODE, uid: 1000, mode: 0o104755 });
    expect((await c.look(fid)).mode).toBe(harness.fileMode(0o104755));
    await c.call('setattr', { ...c.noChange, fid, valid: SET.UID, uid: 1001 });
    expect((await c.look(fid)).mode).toBe(0o100755);
  });

  it('sets times to the nanosecond, each by itself, or to now (SA-5)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f');
    const times = { atime_sec: 1_000_000_001, atime_nsec: 123_456_789, mtime_sec: 5, mtime_nsec: 1 };
    const both = SET.ATIME | SET.ATIME_SET | SET.MTIME | SET.MTIME_SET;
    const set = (valid: number, change = {}) =>
      c.call('setattr', { ...c.noChange, fid, valid, ...times, ...change });
    const atime = 1_000_000_001n * second + 123_456_789n;
    await set(both);
    expect(await c.look(fid)).toMatchObject({ atime, mtime: 5n * second + 1n });
    await set(SET.MTIME | SET.MTIME_SET, { mtime_sec: 6 });
    expect(await c.look(fid)).toMatchObject({ atime, mtime: 6n * second + 1n });
    // Half a second before 1970.
    await set(SET.ATIME | SET.ATIME_SET, { atime_sec: -1, atime_nsec: 500_000_000 });
    expect((await c.look(fid)).atime).toBe(-second / 2n);
    await set(SET.MTIME);
    const now = BigInt(Date.now()) * 1_000_000n;
    const { mtime } = await c.look(fid);
    expect(mtime > now - 2n * second && mtime < now + 2n * second).toBe(true);
    expect((await c.look(fid)).atime).toBe(-second / 2n);
    await set(SET.ATIME_SET | SET.MTIME_SET);
    expect((await c.look(fid)).mtime).toBe(mtime);
    const given = { ...c.noChange, fid, valid: SET.MTIME | SET.MTIME_SET, mtime_sec: 1n };
    for (const mtime_nsec of [10n ** 9n, -1n, 2n ** 53n, 2n ** 63n])
      expect(await errnoOf(c.loose('setattr', { ...given, mtime_nsec }))).toBe('EINVAL');
  });

  it('lets a given mtime win over a change of size in the same message (SA-6)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f', 'content');
    const valid = SET.SIZE | SET.MTIME | SET.MTIME_SET;
    await c.call('setattr', { ...c.noChange, fid, valid, size: 2, mtime_sec: 9, mtime_nsec: 8 });
    expect(await c.look(fid)).toMatchObject({ size: 2, mtime: 9n * second + 8n });
  });

  it('succeeds when there is nothing to change (SA-7)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f', 'content');
    for (const valid of [0, SET.CTIME]) await c.call('setattr', { ...c.noChange, fid, valid });
    expect(await c.look(fid)).toMatchObject({ size: 7, mode: 0o100644 });
  });

  it('works on open fids of unlinked files', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.create(dir, 'f', { flags: O.RDONLY });
    await c.unlink(dir, 'f');
    const valid = SET.MODE | SET.UID | SET.MTIME | SET.MTIME_SET | SET.SIZE;
    await c.call('setattr', { ...c.noChange, fid, valid, mode: 0o600, uid: 5, mtime_sec: 4, size: 100 });
    const { uid } = harness.owner(5, 0);
    expect(await c.look(fid)).toMatchObject({ mode: 0o100600, uid, mtime: 4n * second, size: 100 });
  });

  it('lets root change what the mode forbids (SA-9)', async () => {
    const { c, dir } = await harness.begin();
    const fid = await c.file(dir, 'f', 'content', 0o444);
    const size = c.call('setattr', { ...c.noChange, fid, valid: SET.SIZE, size: 1 });
    if (harness.backend.differs.rights === 'of the owner') {
      expect(await errnoOf(size)).toBe('EACCES');
      expect(await errnoOf(c.open(fid, O.RDWR))).toBe('EACCES');
      await c.call('setattr', { ...c.noChange, fid, valid: SET.MODE, mode: 0o644 });
      await c.call('setattr', { ...c.noChange, fid, valid: SET.SIZE, size: 1 });
    } else await size;
    await c.open(fid, O.RDWR);
  });
});

conform('Tstatfs', harness => {
  it('answers on every fid, in units that fit together (SF-1)', async () => {
    const { c, dir } = await harness.begin();
    const file = await c.file(dir, 'f');
    for (const fid of [0, dir, file, await c.open(file, O.RDONLY), await c.open(dir, O.RDONLY)]) {
      const seen = await c.statfs(fid);
      expect(seen.namelen).toBe(255);
      expect(seen.type).toBe(0x01021997);
      expect(seen.bsize).toBeGreaterThanOrEqual(512);
      expect(seen.bavail).toBeLessThanOrEqual(seen.bfree);
      expect(seen.bfree).toBeLessThanOrEqual(seen.blocks);
      expect(seen.ffree).toBeLessThanOrEqual(seen.files);
    }
    expect(await errnoOf(c.statfs(999))).toBe('EBADF');
  });
});
