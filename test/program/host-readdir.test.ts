import { mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { S_IFCHR, S_IFLNK, S_IFSOCK } from '#base/attr.ts';
import * as errno from '#base/errno.ts';
import { asOwned } from '#base/owned.ts';
import { O_DIRECTORY, O_RDONLY, READDIR_HID } from '#host/constants.ts';
import { inline, pool } from '#host/linux.ts';
import { serverCreds as server } from '#host/syscalls.ts';
import { freshDirectory, n, refusal } from './host-fixture.ts';

interface Entry {
  readonly name: string;
  readonly qidType: number;
  readonly ino: bigint;
  readonly type: number;
  readonly low: number;
  readonly high: number;
  readonly bytes: number;
}

function unpack(packed: Buffer): Entry[] {
  const entries: Entry[] = [];
  for (let at = 0; at < packed.length; ) {
    const bytes = 24 + packed.readUInt16LE(at + 22);
    expect(packed.readUInt32LE(at + 1)).toBe(0);
    entries.push({
      name: packed.toString('latin1', at + 24, at + bytes),
      qidType: packed[at]!,
      ino: packed.readBigUInt64LE(at + 5),
      type: packed[at + 21]!,
      low: packed.readUInt32LE(at + 13),
      high: packed.readUInt32LE(at + 17),
      bytes,
    });
    at += bytes;
  }
  return entries;
}

const DT = { fifo: 1, char: 2, directory: 4, regular: 8, symlink: 10, socket: 12 };

describe.each([
  ['inline', inline],
  ['on the pool', pool],
])('readdir %s', (_, sys) => {
  const { path, fd: parent } = freshDirectory();
  const open = async (name: string) => {
    mkdirSync(join(path, name), { recursive: true });
    const held = await sys.lookup(server, parent, n(name));
    const fd = await sys.reopen(server, held, O_RDONLY | O_DIRECTORY);
    await sys.close(held);
    return fd;
  };
  const from = async (fd: number, low: number, high: number, count: number, hide = '', xattr = '') => {
    const into = Buffer.alloc(count, 0xee);
    const result = await sys.readdir(server, fd, low, high, asOwned(into), hide, xattr);
    if (hide === '') expect(result & READDIR_HID).toBe(0);
    const bytes = result & ~READDIR_HID;
    expect(into.subarray(bytes).every(byte => byte === 0xee)).toBe(true);
    return unpack(into.subarray(0, bytes));
  };
  const all = async (fd: number, count: number, hide = '', xattr = '') => {
    const entries: Entry[] = [];
    for (let last: Entry | undefined; ; last = entries.at(-1)) {
      const more = await from(fd, last?.low ?? 0, last?.high ?? 0, count, hide, xattr);
      if (more.length === 0) return entries;
      entries.push(...more);
    }
  };

  test('gives each entry once, with its inode number and type', async () => {
    const fd = await open('kinds');
    const kinds = join(path, 'kinds');
    writeFileSync(join(kinds, 'file'), '');
    mkdirSync(join(kinds, 'folder'));
    symlinkSync('file', join(kinds, 'link'));
    const held = await sys.lookup(server, parent, n('kinds'));
    await sys.mknod(server, held, n('socket'), S_IFSOCK | 0o600, 0);
    await sys.close(held);
    const entries = await all(fd, 8192);
    const seen = Object.fromEntries(entries.map(e => [e.name, [e.qidType, e.type]]));
    expect(seen).toEqual({
      '.': [0x80, DT.directory],
      '..': [0x80, DT.directory],
      file: [0, DT.regular],
      folder: [0x80, DT.directory],
      link: [0x02, DT.symlink],
      socket: [0, DT.socket],
    });
    expect(entries.length).toBe(6);
    expect(entries.find(e => e.name === 'file')!.ino).toBe(
      statSync(join(kinds, 'file'), { bigint: true }).ino,
    );
    await sys.close(fd);
  });

  test('a reply holds whole entries only, whatever the count, and the next goes on behind them', async () => {
    const fd = await open('many');
    for (let i = 0; i < 300; i++) writeFileSync(join(path, 'many', `${i}-${'x'.repeat(i % 200)}`), '');
    const expected = ['.', '..', ...readdirSync(join(path, 'many'))].sort();
    for (const count of [280, 511, 4096, 100_000]) {
      const names = (await all(fd, count)).map(e => e.name);
      expect(names.sort()).toEqual(expected);
    }
    await sys.close(fd);
  });

  test('every cookie is not 0 and leads to the entry behind it, in any order and on another descriptor', async () => {
    const fd = await open('many');
    const other = await open('many');
    const entries = await all(fd, 4096);
    for (const i of [...entries.keys()].reverse()) {
      const { low, high } = entries[i]!;
      expect(low + high).toBeGreaterThan(0);
      expect((await from(other, low, high, 280))[0]?.name).toBe(entries[i + 1]?.name);
    }
    await sys.close(fd);
    await sys.close(other);
  });

  test('an entry that fits to the byte is given, and one byte less is EINVAL', async () => {
    const fd = await open('fit');
    writeFileSync(join(path, 'fit', 'y'.repeat(255)), '');
    const entries = await all(fd, 4096);
    const before = entries[entries.findIndex(e => e.name.length === 255) - 1];
    const [low, high] = [before?.low ?? 0, before?.high ?? 0];
    expect((await from(fd, low, high, 279)).map(e => e.bytes)).toEqual([279]);
    expect(await refusal(() => from(fd, low, high, 278))).toBe(errno.EINVAL);
    expect(await refusal(() => from(fd, 0, 0, 0))).toBe(errno.EINVAL);
    await sys.close(fd);
  });

  test('names with the hidden prefix are left out without ending the listing', async () => {
    const fd = await open('hide');
    for (let i = 0; i < 200; i++) writeFileSync(join(path, 'hide', `.own-${'h'.repeat(200)}${i}`), '');
    writeFileSync(join(path, 'hide', '.ow'), '');
    expect((await all(fd, 300, '.own-')).map(e => e.name).sort()).toEqual(['.', '..', '.ow']);
    const into = Buffer.alloc(4096);
    expect((await sys.readdir(server, fd, 0, 0, asOwned(into), '.own-', '')) & READDIR_HID).toBe(READDIR_HID);
    expect((await sys.readdir(server, fd, 0, 0, asOwned(into), '.other-', '')) & READDIR_HID).toBe(0);
    await sys.close(fd);
  });

  test('a regular file takes its type from the mode in the xattr, other objects do not', async () => {
    const fd = await open('typed');
    const typed = join(path, 'typed');
    const mode = (value: number) => Buffer.from([value & 0xff, (value >> 8) & 0xff, 0, 0]);
    const mark = async (name: string, value: Uint8Array) => {
      const file = await sys.lookup(server, fd, n(name));
      await sys.setxattr(server, file, 'user.virtfs.mode', asOwned(value), 0);
      await sys.close(file);
    };
    for (const name of ['link', 'device', 'plain', 'bare', 'broken', 'zero'])
      writeFileSync(join(typed, name), '');
    mkdirSync(join(typed, 'folder'));
    await mark('link', mode(S_IFLNK | 0o777));
    await mark('device', mode(S_IFCHR | 0o600));
    await mark('plain', mode(0o100644));
    await mark('broken', Buffer.from([1, 2, 3]));
    await mark('zero', mode(0o644));
    await mark('folder', mode(S_IFLNK | 0o777));
    const types = Object.fromEntries(
      (await all(fd, 4096, '', 'user.virtfs.mode')).map(e => [e.name, e.type]),
    );
    expect(types).toMatchObject({
      link: DT.symlink,
      device: DT.char,
      plain: DT.regular,
      bare: DT.regular,
      broken: DT.regular,
      zero: DT.regular,
      folder: DT.directory,
    });
    expect((await all(fd, 4096)).find(e => e.name === 'link')!.type).toBe(DT.regular);
    await sys.close(fd);
  });

  test('names are bytes', async () => {
    const fd = await open('bytes');
    const name = '\x80\xff\xc3(';
    writeFileSync(Buffer.concat([Buffer.from(join(path, 'bytes/')), Buffer.from(name, 'latin1')]), '');
    expect((await all(fd, 4096)).map(e => e.name)).toContain(name);
    await sys.close(fd);
  });

  test('a position that the kernel could never give ends the listing or is refused', async () => {
    const fd = await open('many');
    expect(await from(fd, 0xffffffff, 0x7fffffff, 4096)).toEqual([]);
    expect(await from(fd, 0xffffffff, 0xffffffff, 4096)).toEqual([]);
    await sys.close(fd);
  });

  test('a file is ENOTDIR and an O_PATH descriptor EBADF', async () => {
    writeFileSync(join(path, 'file'), '');
    const held = await sys.lookup(server, parent, n('file'));
    const fd = await sys.reopen(server, held, O_RDONLY);
    expect(await refusal(() => from(fd, 0, 0, 4096))).toBe(errno.ENOTDIR);
    expect(await refusal(() => from(held, 0, 0, 4096))).toBe(errno.EBADF);
    await sys.close(fd);
    await sys.close(held);
  });
});
