import {
  closeSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import * as errno from '#base/errno.ts';
import { asOwned } from '#base/owned.ts';
import { F_RDLCK, F_UNLCK, F_WRLCK, O_RDONLY, O_RDWR, XATTR_CREATE, XATTR_REPLACE } from '#host/constants.ts';
import { inline, pool } from '#host/linux.ts';
import { serverCreds as server } from '#host/syscalls.ts';
import { freshDirectory, n, refusal } from './host-fixture.ts';

describe.each([
  ['inline', inline],
  ['on the pool', pool],
])('%s', (_, sys) => {
  const { path, fd: dir } = freshDirectory();
  const at = (name: string) => join(path, name);
  const made = async (name: string, content: string | Uint8Array = '') => {
    writeFileSync(at(name), content);
    return sys.lookup(server, dir, n(name));
  };
  const opened = async (name: string, flags: number) => {
    const held = await sys.lookup(server, dir, n(name));
    const fd = await sys.reopen(server, held, flags);
    await sys.close(held);
    return fd;
  };

  describe('reading and writing', () => {
    test('segments are filled and written in order, up to 1024 of them', async () => {
      const parts = Array.from({ length: 1024 }, (_x, i) => Buffer.from(String(i).padStart(5, '.')));
      const whole = Buffer.concat(parts);
      await sys.close(await made('segments'));
      const fd = await opened('segments', O_RDWR);
      expect(await sys.write(server, fd, parts.map(asOwned), 3)).toBe(whole.length);
      const into = parts.map(part => Buffer.alloc(part.length));
      expect(await sys.read(server, fd, into.map(asOwned), 3)).toBe(whole.length);
      expect(Buffer.concat(into).equals(whole)).toBe(true);
      expect(await sys.write(server, fd, [...parts, Buffer.from('more')].map(asOwned), 0)).toBe(whole.length);
      await sys.close(fd);
    });

    test('a read at the end gives 0, and no or empty segments move nothing', async () => {
      await sys.close(await made('short', 'abc'));
      const fd = await opened('short', O_RDWR);
      expect(await sys.read(server, fd, [asOwned(Buffer.alloc(8))], 3)).toBe(0);
      expect(await sys.read(server, fd, [asOwned(Buffer.alloc(8))], 2)).toBe(1);
      expect(await sys.read(server, fd, [], 0)).toBe(0);
      expect(await sys.read(server, fd, [asOwned(Buffer.alloc(0))], 0)).toBe(0);
      expect(await sys.write(server, fd, [asOwned(Buffer.alloc(0))], 0)).toBe(0);
      await sys.close(fd);
    });

    test('only the part of the memory that a view shows is read into', async () => {
      await sys.close(await made('view', 'abcdef'));
      const fd = await opened('view', O_RDONLY);
      const memory = Buffer.alloc(8, '.');
      await sys.read(server, fd, [asOwned(memory.subarray(2, 4))], 1);
      expect(memory.toString('latin1')).toBe('..bc....');
      await sys.close(fd);
    });

    test('an offset beyond 2^32 is exact, and one that is none is refused', async () => {
      await sys.close(await made('far'));
      const fd = await opened('far', O_RDWR);
      const far = 2 ** 40 + 12345;
      const into = Buffer.alloc(2);
      await sys.write(server, fd, [asOwned(Buffer.from('ab'))], far);
      expect(await sys.read(server, fd, [asOwned(into)], far)).toBe(2);
      expect(into.toString('latin1')).toBe('ab');
      expect(await refusal(() => sys.read(server, fd, [asOwned(into)], -1))).toBe(errno.EINVAL);
      expect(await refusal(() => sys.write(server, fd, [asOwned(into)], 1.5))).toBe(errno.EINVAL);
      await sys.close(fd);
    });

    test('writing through a read-only descriptor is EBADF, truncating its object is not', async () => {
      const held = await made('kept', 'abcdef');
      const fd = await opened('kept', O_RDONLY);
      expect(await refusal(() => sys.write(server, fd, [asOwned(Buffer.from('x'))], 0))).toBe(errno.EBADF);
      expect(await refusal(() => sys.ftruncate(server, fd, 1))).toBe(errno.EINVAL);
      await sys.truncate(server, fd, 4);
      await sys.truncate(server, held, 3);
      expect(readFileSync(at('kept'), 'latin1')).toBe('abc');
      await sys.close(fd);
      await sys.close(held);
    });

    test('ftruncate and both kinds of fsync succeed on a descriptor open for writing', async () => {
      await sys.close(await made('synced', 'abcdef'));
      const fd = await opened('synced', O_RDWR);
      await sys.ftruncate(server, fd, 2);
      await sys.fsync(server, fd, false);
      await sys.fsync(server, fd, true);
      expect(readFileSync(at('synced'), 'latin1')).toBe('ab');
      await sys.close(fd);
    });
  });

  describe('extended attributes', () => {
    test('are set, read, listed and removed by an O_PATH descriptor', async () => {
      const fd = await made('x');
      const into = Buffer.alloc(64);
      await sys.setxattr(server, fd, 'user.bytes', asOwned(Buffer.from([0, 255, 128])), XATTR_CREATE);
      expect(await refusal(() => sys.setxattr(server, fd, 'user.bytes', asOwned(into), XATTR_CREATE))).toBe(
        errno.EEXIST,
      );
      expect(await sys.getxattr(server, fd, 'user.bytes', asOwned(into))).toBe(3);
      expect([...into.subarray(0, 3)]).toEqual([0, 255, 128]);
      expect(await sys.listxattr(server, fd, asOwned(into))).toBe(11);
      expect(into.toString('latin1', 0, 11)).toBe('user.bytes\0');
      await sys.removexattr(server, fd, 'user.bytes');
      expect(await sys.getxattr(server, fd, 'user.bytes', asOwned(into))).toBe(-errno.ENODATA.code);
      expect(await refusal(() => sys.removexattr(server, fd, 'user.bytes'))).toBe(errno.ENODATA);
      expect(await refusal(() => sys.setxattr(server, fd, 'user.y', asOwned(into), XATTR_REPLACE))).toBe(
        errno.ENODATA,
      );
      await sys.close(fd);
    });

    test('an empty buffer asks for the size, one too small is ERANGE, an empty value is a value', async () => {
      const fd = await made('sizes');
      await sys.setxattr(server, fd, 'user.a', asOwned(Buffer.alloc(100)), 0);
      await sys.setxattr(server, fd, 'user.empty', asOwned(Buffer.alloc(0)), 0);
      expect(await sys.getxattr(server, fd, 'user.a', asOwned(Buffer.alloc(0)))).toBe(100);
      expect(await sys.listxattr(server, fd, asOwned(Buffer.alloc(0)))).toBe('user.a\0user.empty\0'.length);
      expect(await sys.getxattr(server, fd, 'user.a', asOwned(Buffer.alloc(99)))).toBe(-errno.ERANGE.code);
      expect(await sys.listxattr(server, fd, asOwned(Buffer.alloc(3)))).toBe(-errno.ERANGE.code);
      expect(await sys.getxattr(server, fd, 'user.empty', asOwned(Buffer.alloc(9)))).toBe(0);
      await sys.close(fd);
    });

    test('of a symlink are those of the link', async () => {
      writeFileSync(at('pointed'), '');
      symlinkSync('pointed', at('pointer'));
      const link = await sys.lookup(server, dir, n('pointer'));
      const file = await sys.lookup(server, dir, n('pointed'));
      await sys.setxattr(server, link, 'trusted.a', asOwned(Buffer.from('1')), 0);
      expect(await sys.getxattr(server, link, 'trusted.a', asOwned(Buffer.alloc(1)))).toBe(1);
      expect(await sys.getxattr(server, file, 'trusted.a', asOwned(Buffer.alloc(1)))).toBe(
        -errno.ENODATA.code,
      );
      await sys.close(link);
      await sys.close(file);
    });
  });

  describe('locks', () => {
    test('belong to the open file, and a conflicting one is refused without waiting', async () => {
      await sys.close(await made('locked', '0123456789'));
      const one = await opened('locked', O_RDWR);
      const two = await opened('locked', O_RDWR);
      expect(await sys.lock(server, one, F_WRLCK, 2, 3)).toBe(true);
      expect(await sys.lock(server, two, F_RDLCK, 4, 1)).toBe(false);
      expect(await sys.lock(server, two, F_WRLCK, 5, 0)).toBe(true);
      expect(await sys.testLock(server, two, F_RDLCK, 0, 0)).toEqual({
        type: 1,
        start: 2,
        length: 3,
        pid: -1,
      });
      expect(await sys.testLock(server, one, F_RDLCK, 100, 1)).toEqual({
        type: 1,
        start: 5,
        length: 0,
        pid: -1,
      });
      expect(await sys.testLock(server, two, F_RDLCK, 0, 2)).toBeUndefined();
      expect(await sys.lock(server, one, F_UNLCK, 0, 0)).toBe(true);
      expect(await sys.lock(server, two, F_RDLCK, 4, 1)).toBe(true);
      expect(await refusal(() => sys.lock(server, two, F_RDLCK, -1, 1))).toBe(errno.EINVAL);
      await sys.close(one);
      await sys.close(two);
    });

    test('are locks of the host, that its processes meet too', async () => {
      await sys.close(await made('shared', '0123456789'));
      const fd = await opened('shared', O_RDWR);
      await sys.lock(server, fd, F_WRLCK, 3, 4);
      const { ino } = statSync(at('shared'));
      const ours = () =>
        readFileSync('/proc/locks', 'latin1').match(new RegExp(`OFDLCK .* WRITE -1 .*:${ino} 3 6\\n`));
      expect(ours()).not.toBeNull();
      await sys.close(fd);
      expect(ours()).toBeNull();
    });
  });

  describe('file handles', () => {
    // Not every file system has handles (overlayfs has none): tmpfs does.
    const shm = freshDirectory('/dev/shm');

    test('survive a rename and are ESTALE after unlink', async () => {
      writeFileSync(join(shm.path, 'handled'), 'content');
      const fd = await sys.lookup(server, shm.fd, n('handled'));
      const handle = await sys.handle(fd);
      await sys.close(fd);
      renameSync(join(shm.path, 'handled'), join(shm.path, 'elsewhere'));
      const again = await sys.openHandle(shm.fd, handle!);
      expect(again).toBeGreaterThan(2);
      expect(readFileSync(`/proc/self/fd/${again}`, 'latin1')).toBe('content');
      await sys.close(again);
      unlinkSync(join(shm.path, 'elsewhere'));
      expect(await sys.openHandle(shm.fd, handle!)).toBe(-errno.ESTALE.code);
    });

    test('a handle that never was one is refused', async () => {
      expect(await sys.openHandle(shm.fd, 'abc')).toBe(-errno.EINVAL.code);
      expect(await sys.openHandle(shm.fd, 'x'.repeat(133))).toBe(-errno.EINVAL.code);
      expect(await sys.openHandle(shm.fd, '\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff')).toBe(
        -errno.ESTALE.code,
      );
    });

    test('are undefined where the file system has none', async () => {
      const fd = openSync('/proc/self/status', 'r');
      expect(await sys.handle(fd)).toBeUndefined();
      closeSync(fd);
    });
  });
});
