import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { getAttributeSync, setAttributeSync } from 'fs-xattr';
import { expect, it } from 'vitest';
import { O_RDWR } from '#host/constants.ts';
import { inline } from '#host/linux.ts';
import { serverCreds } from '#host/syscalls.ts';
import { namesIn } from '../support/names-in.ts';
import { conform, type ServerHarness, soon } from './server-harness.ts';
import { errnoOf, O, SET } from './test-client.ts';

const host = { host: true } as const;

conform(
  'what the host did to a file',
  harness => {
    it('shows: attributes are those of lstat(2) (GA-1, GA-2)', async () => {
      const { c, dir, name } = await harness.begin();
      const at = (entry: string) => harness.path(name, entry);
      writeFileSync(at('file'), 'content', { mode: 0o4711 });
      mkdirSync(at('directory'), 0o711);
      symlinkSync('the target', at('symlink'));
      execFileSync('mkfifo', ['-m', '640', at('fifo')]);
      execFileSync('mknod', [at('char'), 'c', '8', '1']);
      execFileSync('mknod', [at('block'), 'b', '259', '70000']);
      execFileSync('chown', ['-h', '12:34', at('file'), at('symlink'), at('fifo')]);
      linkSync(at('file'), at('again'));
      for (const entry of readdirSync(harness.path(name))) {
        const seen = await c.look(await c.walk(dir, entry));
        const real = lstatSync(at(entry), { bigint: true });
        expect(seen).toMatchObject({
          mode: Number(real.mode),
          ...harness.owner(Number(real.uid), Number(real.gid)),
          nlink: Number(real.nlink),
          size: Number(real.size),
          blocks: Number(real.blocks),
          atime: real.atimeNs,
          mtime: real.mtimeNs,
          ctime: real.ctimeNs,
        });
        if (entry === 'char') expect(seen.rdev).toBe(0x801);
        if (entry === 'block') expect(seen.rdev).toBe(0x70 | (259 << 8) | (0x11100 << 12));
      }
    });

    it('shows: times are exact, before 1970 too (GA-6)', async () => {
      const { c, dir, name } = await harness.begin();
      const file = await c.file(dir, 'f');
      const touch = (date: string) => execFileSync('touch', ['-d', date, harness.path(name, 'f')]);
      touch('2001-02-03 04:05:06.123456789 UTC');
      expect((await c.look(file)).mtime).toBe(981_173_106_123_456_789n);
      touch('1969-12-31 23:59:57.999999999 UTC');
      expect((await c.look(file)).mtime).toBe(-2_000_000_001n);
    });

    it('keeps the nearest of a time that the file system cannot keep, as for programs of the host (SA-5)', async () => {
      const { c, dir, name } = await harness.begin();
      const fid = await c.file(dir, 'f');
      const host = harness.path(name, 'touched');
      const change = { ...c.noChange, fid, valid: SET.MTIME | SET.MTIME_SET, mtime_nsec: 0n };
      const far = [2n ** 53n, 2n ** 63n - 1n, -(2n ** 53n), -(2n ** 63n)];
      for (const mtime_sec of far) {
        await c.loose('setattr', { ...change, mtime_sec });
        execFileSync('touch', ['-d', `@${mtime_sec}`, host]);
        // Node's mtimeNs overflows for such times (tmpfs, btrfs).
        const kept = execFileSync('stat', ['-c', '%Y', host], { encoding: 'utf8' });
        expect((await c.look(fid)).mtime).toBe(BigInt(kept) * 1_000_000_000n);
      }
    });

    it('leaves fids at the object: renamed, moved with its directory, replaced (OP-9, GA-4)', async () => {
      const { c, dir, name } = await harness.begin();
      const d = await c.mkdir(dir, 'd');
      const file = await c.file(d, 'f', 'content');
      const { path } = (await c.look(file)).qid;
      renameSync(harness.path(name, 'd'), harness.path(name, 'e'));
      renameSync(harness.path(name, 'e', 'f'), harness.path(name, 'g'));
      writeFileSync(harness.path(name, 'e', 'f'), 'another');
      if (harness.backend.differs.renamedElsewhere === 'ESTALE') {
        for (const fid of [file, d]) expect(await errnoOf(c.look(fid))).toBe('ESTALE');
        return;
      }
      const open = await c.open(file, O.RDWR);
      expect((await c.read(open, 0, 100)).toString()).toBe('content');
      expect((await c.look(open)).qid.path).toBe(path);
      await c.file(d, 'new');
      expect(namesIn(harness.path(name, 'e'))).toEqual(['f', 'new']);
    });

    it('is found by the bytes of its name (WA-11, RD-11)', async () => {
      const { c, dir, name } = await harness.begin();
      const bytes = Buffer.from([0xff, 0xfe, 0x80, 0x0a, 0x20]);
      writeFileSync(Buffer.concat([Buffer.from(`${harness.path(name)}/`), bytes]), 'found');
      const fid = await c.open(await c.walk(dir, bytes.toString('latin1')), O.RDONLY);
      expect((await c.read(fid, 0, 10)).toString()).toBe('found');
      expect((await c.list(dir)).map(entry => entry.name)).toContain(bytes.toString('latin1'));
    });

    it('moves the version when it is content (OP-13, GA-8)', async () => {
      const { c, dir, name } = await harness.begin();
      const file = await c.file(dir, 'f', 'content');
      const seen = new Set([(await c.look(file)).qid.version]);
      for (const content of ['CONTENT', 'longer content', '']) {
        writeFileSync(harness.path(name, 'f'), content);
        seen.add((await c.look(file)).qid.version);
      }
      expect(seen.size).toBe(4);
    });

    it('shows in listings of many entries, each once (RD-2)', async () => {
      const { c, dir, name } = await harness.begin();
      const names = Array.from({ length: harness.work(10_000) }, (_, i) => `entry-${i}`);
      for (const one of names) closeSync(openSync(harness.path(name, one), 'w'));
      const entries = await c.list(dir, 4072);
      expect(entries.map(entry => entry.name).sort()).toEqual(['.', '..', ...names].sort());
    });
  },
  host,
);

conform(
  'what a guest did to a file',
  harness => {
    it('is the same to programs of the host: content, times, size, xattrs', async () => {
      const { c, dir, name } = await harness.begin();
      const fid = await c.create(dir, 'f');
      await c.write(fid, 3, 'content');
      const times = SET.ATIME | SET.ATIME_SET | SET.MTIME | SET.MTIME_SET;
      const change = {
        ...c.noChange,
        fid,
        valid: times,
        atime_sec: 7,
        mtime_sec: 8,
        mtime_nsec: 123_456_789,
      };
      await c.call('setattr', change);
      const real = lstatSync(harness.path(name, 'f'), { bigint: true });
      expect([real.atimeNs, real.mtimeNs]).toEqual([7_000_000_000n, 8_123_456_789n]);
      expect(readFileSync(harness.path(name, 'f'), 'latin1')).toBe('\0\0\0content');
      if (harness.backend.differs.xattrs === 'none') return;
      await c.setXattr(fid, 'user.guest', 'from the guest');
      expect(getAttributeSync(harness.path(name, 'f'), 'user.guest').toString()).toBe('from the guest');
      setAttributeSync(harness.path(name, 'f'), 'user.host', 'from the host');
      expect((await c.getXattr(fid, 'user.host')).toString()).toBe('from the host');
    });

    it('reaches the host through a synchronous descriptor when the guest says so (IO-14)', async () => {
      const { c, dir, name } = await harness.begin();
      const file = await c.file(dir, 'f', 'x');
      const flagsOpenIn = (pid: number) =>
        readdirSync(`/proc/${pid}/fd`).flatMap(fd => {
          try {
            if (readlinkSync(`/proc/${pid}/fd/${fd}`) !== harness.path(name, 'f')) return [];
            const flags = /flags:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1'))?.[1];
            return [Number.parseInt(flags!, 8) & (O.SYNC | O.DSYNC)];
          } catch {
            return [];
          }
        });
      const flagsOpen = () => harness.serving.processes.flatMap(flagsOpenIn);
      const mayBeNone = harness.backend.differs.openFiles === 'without descriptor';
      const expectOpen = (flags: number) => {
        const open = flagsOpen();
        if (!mayBeNone || open.length > 0) expect(open).toContain(flags);
      };
      expectOpen(0);
      expect(flagsOpen().filter(flags => flags !== 0)).toEqual([]);
      const dsync = await c.open(file, O.WRONLY | O.DSYNC);
      expectOpen(O.DSYNC);
      await c.clunk(dsync);
      await c.open(file, O.WRONLY | O.SYNC);
      expectOpen(O.SYNC | O.DSYNC);
    });
  },
  host,
);

conform(
  'an export of the host',
  harness => {
    it('does not open what is no file or directory, nor what is being run (OP-8, OP-12)', async () => {
      const { c, dir, name } = await harness.begin();
      execFileSync('mkfifo', [harness.path(name, 'fifo')]);
      execFileSync('mknod', [harness.path(name, 'char'), 'c', '1', '3']);
      const before = performance.now();
      for (const entry of ['fifo', 'char']) {
        for (const flags of [O.RDONLY, O.WRONLY])
          expect(await errnoOf(c.open(await c.walk(dir, entry), flags))).toMatch(/ENXIO|EOPNOTSUPP/);
      }
      expect(performance.now() - before).toBeLessThan(400);
      copyFileSync('/bin/sleep', harness.path(name, 'program'));
      execFileSync('chmod', ['777', harness.path(name, 'program')]);
      const running = spawn(harness.path(name, 'program'), ['60']);
      await new Promise(resolve => running.once('spawn', resolve));
      const program = await c.walk(dir, 'program');
      expect(await errnoOf(c.open(program, O.WRONLY))).toBe('ETXTBSY');
      await ended(running);
      await c.open(program, O.WRONLY);
    });

    it('has the numbers of statvfs(3) (SF-1)', async () => {
      const { c } = await harness.begin();
      const seen = await c.statfs(0);
      const real = statfsSync(harness.path());
      expect([seen.bsize, seen.blocks, seen.files]).toEqual([real.bsize, real.blocks, real.files]);
      expect(Math.abs(seen.bavail - real.bavail)).toBeLessThan(real.blocks / 10);
    });

    it('is never left through a symlink that takes the place of a directory (WA-17)', async () => {
      const { c, dir, name } = await harness.begin();
      mkdirSync(harness.path(name, 'real'));
      writeFileSync(harness.path(name, 'real', 'passwd'), 'inside');
      symlinkSync('/etc', harness.path(name, 'link'));
      const swapper = spawn(process.execPath, ['-e', swapping, harness.path(name)]);
      const outside = lstatSync('/etc/passwd', { bigint: true }).ino;
      let found = 0;
      const end = performance.now() + 700;
      while (performance.now() < end || found === 0) {
        const newfid = c.fid();
        const answer = c.call('walk', { fid: dir, newfid, wname: ['changing', 'passwd'] });
        const { wqid } = await answer.catch(() => ({ wqid: [] }));
        if (wqid.length < 2) continue;
        found++;
        expect(c.qid(wqid[1]!).path).not.toBe(outside);
        await c.clunk(newfid);
      }
      await ended(swapper);
    });

    it('keeps apart the locks of its guests and of programs of the host (LK-1)', async () => {
      const { c, dir, name } = await harness.begin();
      const fid = await c.open(await c.file(dir, 'f'), O.RDWR);
      const program = openSync(harness.path(name, 'f'), O_RDWR);
      const lock = (type: number) => inline.lock(serverCreds, program, type, 10, 10);
      const guestLock = async (type: number, start: number) =>
        (await c.call('lock', { ...harness.lockFields, fid, type, start, length: 10 })).status;
      expect(await lock(1)).toBe(true);
      expect(await guestLock(1, 10)).toBe(1);
      expect(await guestLock(1, 30)).toBe(0);
      expect(
        (await c.call('getlock', { ...harness.lockFields, fid, type: 1, start: 15, length: 1 })).type,
      ).toBe(1);
      await lock(2);
      expect(await guestLock(1, 10)).toBe(0);
      expect(await lock(1)).toBe(false);
      await c.clunk(fid);
      await soon(async () => expect(await lock(1)).toBe(true));
      closeSync(program);
    });
  },
  host,
);

/** Alternates a directory and a symlink under one name in a tight loop. */
const swapping = `
  const { renameSync } = require('node:fs');
  process.chdir(process.argv[1]);
  for (;;) {
    for (const name of ['real', 'link']) {
      renameSync(name, 'changing');
      renameSync('changing', name);
    }
  }`;

async function ended(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  if (child.exitCode === null && child.signalCode === null)
    await new Promise(resolve => child.once('exit', resolve));
}

/** Mounts two small file systems in the export during a test. */
async function withMounts(path: string, act: () => Promise<void>): Promise<void> {
  for (const name of ['one', 'two']) {
    mkdirSync(`${path}/${name}`);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', `${path}/${name}`]);
  }
  try {
    await act();
  } finally {
    // Not a lazy unmount: without clients the server must not keep the file system busy.
    for (const name of ['one', 'two']) execFileSync('umount', [`${path}/${name}`]);
  }
}

conform(
  'an export of several file systems',
  (harness: ServerHarness) => {
    it('gives equal inode numbers different qid.paths, the same every time (GA-7)', async () => {
      const { c, dir, name } = await harness.begin();
      await withMounts(harness.path(name), async () => {
        const [one, two] = [await c.walk(dir, 'one'), await c.walk(dir, 'two')];
        await c.file(one, 'f');
        await c.file(two, 'f');
        const ino = (entry: string) => lstatSync(harness.path(name, entry, 'f')).ino;
        expect(ino('one')).toBe(ino('two'));
        const path = async (entry: string) => (await c.look(await c.walk(dir, entry, 'f'))).qid.path;
        const before = await path('one');
        expect(before).not.toBe(await path('two'));
        expect(await path('one')).toBe(before);
        expect((await c.list(one)).find(entry => entry.name === 'f')?.qid.path).toBe(before);
        expect(await errnoOf(c.rename(one, 'f', two, 'g'))).toBe('EXDEV');
        expect(await errnoOf(c.link(two, await c.walk(one, 'f'), 'g'))).toBe('EXDEV');
        await harness.endAll();
      });
    });

    it('writes as much as there is room for, and then says ENOSPC (IO-10)', async () => {
      const { c, dir, name } = await harness.begin();
      await withMounts(harness.path(name), async () => {
        const fid = await c.create(await c.walk(dir, 'one'), 'f');
        const data = Buffer.alloc(100_000, 1);
        let size = 0;
        let errno = 'none';
        while (errno === 'none' && size < 2_000_000) {
          errno = await errnoOf(
            c.write(fid, size, data).then(count => {
              expect(count).toBeGreaterThan(0);
              size += count;
            }),
          );
        }
        expect(errno).toBe('ENOSPC');
        expect(size).toBeGreaterThan(900_000);
        expect((await c.look(fid)).size).toBe(size);
        await harness.endAll();
      });
    });
  },
  host,
);

conform(
  'a server that checks permissions',
  harness => {
    it('says EOPNOTSUPP where the file system has no xattrs (XA-4)', async () => {
      const { c, dir, name } = await harness.begin();
      mkdirSync(harness.path(name, 'ramfs'));
      execFileSync('mount', ['-t', 'ramfs', 'ramfs', harness.path(name, 'ramfs')]);
      try {
        const fid = await c.file(await c.walk(dir, 'ramfs'), 'f');
        expect(await errnoOf(c.getXattr(fid, 'user.a'))).toBe('EOPNOTSUPP');
        expect(await errnoOf(c.setXattr(fid, 'user.a', 'x'))).toBe('EOPNOTSUPP');
        expect(await c.xattrs(fid)).toEqual([]);
        await harness.endAll();
      } finally {
        execFileSync('umount', [harness.path(name, 'ramfs')]);
      }
    });

    it("makes files the user's own and keeps others' from them (AT-8)", async () => {
      const { c, dir, name } = await harness.begin();
      await c.file(dir, 'secret', 'content', 0o600);
      const user = await harness.connect({ n_uname: 1000 });
      const place = await user.walk(0, name);
      const fid = await user.create(place, 'mine', { gid: 65534 });
      expect((await user.look(fid)).uid).toBe(1000);
      expect(lstatSync(harness.path(name, 'mine')).uid).toBe(1000);
      const secret = await user.walk(place, 'secret');
      expect(await errnoOf(user.open(secret, O.RDONLY))).toBe('EACCES');
    });

    it('leaves the fid as it was when opening is refused (OP-7)', async () => {
      const { c, dir, name } = await harness.begin();
      await c.file(dir, 'f', 'content', 0o644);
      const user = await harness.connect({ n_uname: 1000 });
      const fid = await user.walk(0, name, 'f');
      expect(await errnoOf(user.call('lopen', { fid, flags: O.RDWR }))).toBe('EACCES');
      await user.call('lopen', { fid, flags: O.RDONLY });
      expect((await user.read(fid, 0, 10)).toString()).toBe('content');
    });

    it("refuses changes of what is another's (SA-8)", async () => {
      const { c, dir, name } = await harness.begin();
      await c.file(dir, 'f', 'content', 0o644);
      const d = await c.mkdir(dir, 'd', 0o755);
      await c.file(d, 'g');
      const user = await harness.connect({ n_uname: 1000 });
      const fid = await user.walk(0, name, 'f');
      const theirs = await user.walk(0, name, 'd');
      const set = (valid: number, change = {}) =>
        errnoOf(user.call('setattr', { ...user.noChange, fid, valid, ...change }));
      expect(await set(SET.MODE, { mode: 0o777 })).toBe('EPERM');
      expect(await set(SET.UID, { uid: 1000 })).toBe('EPERM');
      expect(await set(SET.MTIME | SET.MTIME_SET, { mtime_sec: 1 })).toBe('EPERM');
      expect(await set(SET.SIZE, { size: 0 })).toBe('EACCES');
      expect(await errnoOf(user.unlink(theirs, 'g'))).toBe('EACCES');
      expect(await errnoOf(user.mkdir(theirs, 'h', 0o755, 65_534))).toBe('EACCES');
      expect(await errnoOf(user.rename(theirs, 'g', theirs, 'h'))).toBe('EACCES');
      expect(await errnoOf(user.setXattr(fid, 'user.a', 'x'))).toBe('EACCES');
    });
  },
  { permissions: true },
);
