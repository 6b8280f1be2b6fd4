import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Attr, encodeDevice, S_IFBLK, S_IFIFO, S_IFLNK, u64 } from '#base/attr.ts';
import * as errno from '#base/errno.ts';
import { P9_STATS_BTIME, QTDIR, QTSYMLINK } from '#base/layout.ts';
import { asOwned } from '#base/owned.ts';
import {
  O_DIRECTORY,
  O_EXCL,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
} from '#host/constants.ts';
import { inline, pool } from '#host/linux.ts';
import { serverCreds as server } from '#host/syscalls.ts';
import { descriptorsOpen, freshDirectory, n, refusal } from './host-fixture.ts';

describe.each([
  ['inline', inline],
  ['on the pool', pool],
])('%s', (_, sys) => {
  const { path, fd: dir } = freshDirectory();
  const at = (name: string) => join(path, name);
  const lookup = async (name: string) => {
    const fd = await sys.lookup(server, dir, n(name));
    expect(fd).toBeGreaterThan(2);
    return fd;
  };
  const holding = async <T>(name: string, act: (fd: number) => T | Promise<T>): Promise<T> => {
    const fd = await lookup(name);
    try {
      return await act(fd);
    } finally {
      await sys.close(fd);
    }
  };
  const statOf = (name: string) =>
    holding(name, async fd => {
      const attr = new Attr();
      await sys.stat(server, fd, attr);
      return attr;
    });

  describe('looking up and opening', () => {
    test('a missing name comes back as −ENOENT and is not thrown', async () => {
      expect(await sys.lookup(server, dir, n('missing'))).toBe(-errno.ENOENT.code);
    });

    test('an object that was unlinked is still read, stated, changed and opened by its descriptor', async () => {
      writeFileSync(at('gone'), 'still here');
      await holding('gone', async fd => {
        unlinkSync(at('gone'));
        const attr = new Attr();
        await sys.chmod(server, fd, 0o640);
        await sys.truncate(server, fd, 5);
        await sys.setxattr(server, fd, 'user.a', asOwned(Buffer.from('b')), 0);
        await sys.stat(server, fd, attr);
        expect([attr.nlink, attr.size, attr.mode & 0o7777]).toEqual([0, 5, 0o640]);
        const open = await sys.reopen(server, fd, O_RDONLY);
        const into = Buffer.alloc(10);
        expect(await sys.read(server, open, [asOwned(into)], 0)).toBe(5);
        expect(into.toString('latin1', 0, 5)).toBe('still');
        await sys.close(open);
      });
    });

    test('a symlink is held as itself and never followed', async () => {
      writeFileSync(at('target'), 'secret');
      symlinkSync('target', at('link'));
      expect((await statOf('link')).type).toBe(S_IFLNK);
      await holding('link', async fd => {
        expect(await refusal(() => sys.reopen(server, fd, O_RDONLY))).toBe(errno.ELOOP);
        expect(await sys.readlink(server, fd)).toBe('target');
        expect(await refusal(() => sys.chmod(server, fd, 0o600))).toBe(errno.EOPNOTSUPP);
        await sys.chown(server, fd, 5, 6);
        await sys.utimens(server, fd, { sec: 1, nsec: 2 }, { sec: 3, nsec: 4 });
      });
      expect([lstatSync(at('link')).uid, lstatSync(at('link')).mtimeMs]).toEqual([5, 3000.000004]);
      expect([statSync(at('target')).uid, statSync(at('target')).mode & 0o777]).toEqual([0, 0o644]);
      expect(await refusal(() => sys.create(server, dir, n('link'), O_WRONLY, 0o600))).toBe(errno.ELOOP);
      const attr = new Attr();
      expect(await sys.statAt(server, dir, n('link'), attr)).toBe(0);
      expect([attr.type, attr.qidType]).toEqual([S_IFLNK, QTSYMLINK]);
    });

    test('a symlink on the way and .. are refused by the kernel even when a name got past the checks', async () => {
      mkdirSync(at('inner'));
      writeFileSync(at('inner/file'), '');
      symlinkSync('inner', at('way'));
      expect(await sys.lookup(server, dir, 'way/file' as never)).toBe(-errno.ELOOP.code);
      expect(await sys.lookup(server, dir, '../' as never)).toBe(-errno.EXDEV.code);
    });

    test('a text with a NUL in it is refused instead of cut short', async () => {
      expect(await refusal(() => sys.mkdir(server, dir, 'cut\0short' as never, 0o700))).toBe(errno.EINVAL);
      expect(await refusal(() => sys.symlink(server, dir, n('nul'), 'a\0b'))).toBe(errno.EINVAL);
      expect(existsSync(at('cut'))).toBe(false);
    });

    test('creating makes the file with the mode, and O_EXCL refuses one that is there', async () => {
      const fd = await sys.create(server, dir, n('made'), O_RDWR | O_EXCL, 0o604);
      await sys.close(fd);
      expect(statSync(at('made')).mode & 0o7777).toBe(0o604 & ~process.umask());
      expect(await refusal(() => sys.create(server, dir, n('made'), O_RDWR | O_EXCL, 0o600))).toBe(
        errno.EEXIST,
      );
    });

    test('opening a FIFO that nobody writes to does not wait', async () => {
      await sys.mknod(server, dir, n('fifo'), S_IFIFO | 0o600, 0);
      await holding('fifo', async fd => sys.close(await sys.reopen(server, fd, O_RDONLY)));
    });

    test('a file without a name gets one by link', async () => {
      const fd = await sys.createUnnamed(server, dir, 0o600);
      await sys.write(server, fd, [asOwned(Buffer.from('whole'))], 0);
      await sys.link(server, fd, dir, n('named'));
      await sys.close(fd);
      expect(readFileSync(at('named'), 'latin1')).toBe('whole');
    });
  });

  describe('attributes', () => {
    test('the record says what the kernel says', async () => {
      writeFileSync(at('file'), Buffer.alloc(5000));
      linkSync(at('file'), at('second'));
      chmodSync(at('file'), 0o4751);
      const real = lstatSync(at('file'), { bigint: true });
      const { bytes, ...attr } = await statOf('file').then(a => ({ ...fields(a), bytes: a.bytes }));
      expect(attr).toEqual({
        mode: 0o104751,
        uid: 0,
        gid: 0,
        nlink: 2,
        size: 5000,
        blksize: Number(real.blksize),
        ctimeSec: Number(real.ctimeNs / 1_000_000_000n),
        ctimeNsec: Number(real.ctimeNs % 1_000_000_000n),
        dev: encodeDevice(Number(real.dev >> 8n), Number(real.dev & 0xffn)),
      });
      expect(bytes.readBigUInt64LE(13)).toBe(real.ino);
      expect(bytes.readBigUInt64LE(160)).toBe(real.ino);
      expect(u64(bytes, 65)).toBe(Number(real.blocks));
      expect(bytes.readBigUInt64LE(0) & ~BigInt(P9_STATS_BTIME)).toBe(0x17ffn);
      expect(bytes.readBigUInt64LE(121)).toBe(real.birthtimeNs / 1_000_000_000n);
      expect((await statOf('second')).gen).toBe(bytes.readUInt32LE(137));
    });

    test('a directory has the directory bit in its qid, and another mount has another id', async () => {
      mkdirSync(at('folder'));
      expect((await statOf('folder')).qidType).toBe(QTDIR);
      const proc = openSync('/proc', O_RDONLY);
      const attr = new Attr();
      await sys.stat(server, proc, attr);
      closeSync(proc);
      expect(attr.mountId).not.toBe((await statOf('folder')).mountId);
    });

    test('a time before 1970 is kept', async () => {
      writeFileSync(at('old'), '');
      await holding('old', fd => sys.utimens(server, fd, { sec: -86400, nsec: 5 }, { sec: -1, nsec: 0 }));
      const { bytes } = await statOf('old');
      expect([bytes.readBigInt64LE(73), bytes.readBigInt64LE(81), bytes.readBigInt64LE(89)]).toEqual([
        -86400n,
        5n,
        -1n,
      ]);
    });

    // ext4 keeps 34 bits and a sign, tmpfs all.
    test.each(['/tmp', '/dev/shm'])(
      'a time is the nearest that a file system keeps, as from touch, in %s',
      async where => {
        const folder = mkdtempSync(join(where, 'ninepd-times-'));
        const [ours, touched] = ['ours', 'touched'].map(name => join(folder, name)) as [string, string];
        for (const name of [ours, touched]) writeFileSync(name, '');
        const fd = openSync(ours, O_RDONLY);
        const seen = (name: string) =>
          execFileSync('stat', ['-c', '%X', name], { encoding: 'latin1' }).trim();
        for (const bits of [31n, 32n, 33n, 34n, 53n, 62n, 63n]) {
          for (const sec of [-(2n ** bits), 2n ** bits - 1n]) {
            await sys.utimens(server, fd, { sec: Number(sec), nsec: 0 }, 'omit');
            execFileSync('touch', ['-a', '-d', `@${BigInt.asIntN(64, sec)}`, touched]);
            // 2^62 − 1 is no number: 2^62 is the nearest.
            if (bits === 62n && sec > 0n) execFileSync('touch', ['-a', '-d', `@${2n ** 62n}`, touched]);
            expect([sec, seen(ours)]).toEqual([sec, seen(touched)]);
          }
        }
        closeSync(fd);
        rmSync(folder, { recursive: true });
      },
    );

    test('a time may be now or stay as it is', async () => {
      writeFileSync(at('times'), '');
      await holding('times', fd => sys.utimens(server, fd, { sec: 7, nsec: 0 }, { sec: 8, nsec: 0 }));
      await holding('times', fd => sys.utimens(server, fd, 'omit', 'now'));
      const { bytes } = await statOf('times');
      expect(u64(bytes, 73)).toBe(7);
      expect(Math.abs(u64(bytes, 89) - Date.now() / 1000)).toBeLessThan(5);
    });

    test('an owner of −1 stays as it is', async () => {
      writeFileSync(at('owned'), '');
      await holding('owned', fd => sys.chown(server, fd, 70000, 4_000_000_000));
      await holding('owned', fd => sys.chown(server, fd, -1, 5));
      expect([lstatSync(at('owned')).uid, lstatSync(at('owned')).gid]).toEqual([70000, 5]);
    });

    test('a file that was removed and made anew has another generation', async () => {
      writeFileSync(at('again'), '');
      const before = (await statOf('again')).gen;
      unlinkSync(at('again'));
      await new Promise(resolve => setTimeout(resolve, 20));
      writeFileSync(at('again'), '');
      expect((await statOf('again')).gen).not.toBe(before);
    });

    test('statfs fills 60 bytes in the order of Rstatfs', async () => {
      const into = Buffer.alloc(64);
      const real = statfsSync(path, { bigint: true });
      await sys.statfs(server, dir, asOwned(into));
      expect(into.readUInt32LE(0)).toBe(Number(real.type));
      expect([into.readBigUInt64LE(8), into.readBigUInt64LE(32)]).toEqual([real.blocks, real.files]);
      expect(into.readUInt32LE(56)).toBe(255);
    });

    test('a size beyond 2^53, negative or broken is refused', async () => {
      writeFileSync(at('sized'), '');
      await holding('sized', async fd => {
        for (const size of [-1, 0.5, Number.NaN, 2 ** 64]) {
          expect(await refusal(() => sys.truncate(server, fd, size))).toBe(errno.EINVAL);
        }
        await sys.truncate(server, fd, 2 ** 40 + 1);
      });
      expect(statSync(at('sized')).size).toBe(2 ** 40 + 1);
    });
  });

  describe('names', () => {
    test('directories, devices and symlinks are made, and removed by their kind', async () => {
      await sys.mkdir(server, dir, n('d'), 0o701);
      await sys.mknod(server, dir, n('b'), S_IFBLK | 0o600, encodeDevice(259, 70000));
      await sys.symlink(server, dir, n('s'), '/no/where\xff');
      expect(lstatSync(at('d')).mode & 0o777).toBe(0o701 & ~process.umask());
      expect((await statOf('b')).rdev).toBe(encodeDevice(259, 70000));
      expect(readlinkSync(at('s'), 'latin1')).toBe('/no/where\xff');
      expect(await refusal(() => sys.unlink(server, dir, n('d'), false))).toBe(errno.EISDIR);
      expect(await refusal(() => sys.unlink(server, dir, n('b'), true))).toBe(errno.ENOTDIR);
      await sys.unlink(server, dir, n('d'), true);
      await sys.unlink(server, dir, n('b'), false);
      await sys.unlink(server, dir, n('s'), false);
    });

    test('a target of 4095 bytes is kept whole, and one byte more is refused', async () => {
      await sys.symlink(server, dir, n('long'), 'x'.repeat(4095));
      expect(await holding('long', fd => sys.readlink(server, fd))).toBe('x'.repeat(4095));
      expect(await refusal(() => sys.symlink(server, dir, n('longer'), 'x'.repeat(4096)))).toBe(
        errno.ENAMETOOLONG,
      );
    });

    test('renaming may refuse to replace, and may exchange', async () => {
      writeFileSync(at('r1'), '1');
      writeFileSync(at('r2'), '2');
      const act = (flags: number) => sys.rename(server, dir, n('r1'), dir, n('r2'), flags);
      expect(await refusal(() => act(RENAME_NOREPLACE))).toBe(errno.EEXIST);
      await act(RENAME_EXCHANGE);
      expect(readFileSync(at('r1'), 'latin1')).toBe('2');
      await act(0);
      expect(readFileSync(at('r2'), 'latin1')).toBe('2');
    });

    test('a hard link names the object itself, a symlink included', async () => {
      symlinkSync('nowhere', at('soft'));
      await holding('soft', fd => sys.link(server, fd, dir, n('hard')));
      expect(lstatSync(at('hard')).ino).toBe(lstatSync(at('soft')).ino);
    });

    test('names are bytes: what is no UTF-8 is made, found and removed', async () => {
      const name = Array.from({ length: 128 }, (_x, i) => String.fromCharCode(0x80 + i)).join('');
      await sys.close(await sys.create(server, dir, n(name), O_WRONLY, 0o600));
      expect(existsSync(Buffer.concat([Buffer.from(`${path}/`), Buffer.from(name, 'latin1')]))).toBe(true);
      await holding(name, () => undefined);
      await sys.unlink(server, dir, n(name), false);
      expect(await sys.lookup(server, dir, n(name))).toBe(-errno.ENOENT.code);
    });
  });

  test('calling everything over and over leaves no descriptor open', async () => {
    writeFileSync(at('leak'), 'x');
    const round = () =>
      holding('leak', async fd => {
        await sys.close(await sys.reopen(server, fd, O_RDONLY));
        await sys.close(await sys.reopen(server, fd, O_PATH));
        await sys.close(await sys.createUnnamed(server, dir, 0o600));
        await sys.lookup(server, dir, n('missing'));
        await refusal(() => sys.reopen(server, fd, O_DIRECTORY));
        await sys.handle(fd);
        await sys.readdir(server, dir, 0, 0, asOwned(Buffer.alloc(8192)), '', 'user.none');
      });
    await round();
    const before = descriptorsOpen();
    for (let i = 0; i < 100; i++) await round();
    expect(descriptorsOpen()).toBe(before);
  });

  test('a descriptor that is not open is EBADF everywhere, and closing it is nothing', async () => {
    await sys.close(99_999);
    expect(await sys.lookup(server, 99_999, n('x'))).toBe(-errno.EBADF.code);
    expect(await refusal(() => sys.stat(server, 99_999, new Attr()))).toBe(errno.EBADF);
    expect(await refusal(() => sys.read(server, 99_999, [asOwned(Buffer.alloc(1))], 0))).toBe(errno.EBADF);
    expect(await refusal(() => sys.reopen(server, 99_999, O_RDONLY))).toBe(errno.ENOENT);
  });

  test('an object that was renamed by somebody else is still the one that is held', async () => {
    writeFileSync(at('before'), 'same');
    await holding('before', async fd => {
      renameSync(at('before'), at('after'));
      writeFileSync(at('before'), 'other');
      const open = await sys.reopen(server, fd, O_RDONLY);
      const into = Buffer.alloc(4);
      await sys.read(server, open, [asOwned(into)], 0);
      expect(into.toString('latin1')).toBe('same');
      await sys.close(open);
    });
  });
});

const fields = ({ mode, uid, gid, nlink, size, blksize, ctimeSec, ctimeNsec, dev }: Attr) => ({
  mode,
  uid,
  gid,
  nlink,
  size,
  blksize,
  ctimeSec,
  ctimeNsec,
  dev,
});
