import { execFileSync } from 'node:child_process';
import { lstatSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { S_IFLNK } from '#base/attr.ts';
import * as errno from '#base/errno.ts';
import { serverCreds as server } from '#host/syscalls.ts';
import { freshDirectory, n, refusal } from './host-fixture.ts';

// The addon as on a kernel before 6.6: fchmodat2 and getxattrat fail with ENOSYS.
const shims = fileURLToPath(new URL('../../native-shims', import.meta.url));
execFileSync(process.execPath, [join(shims, 'build.mjs'), '--old-kernel'], { stdio: 'inherit' });
process.env.NINEPD_ADDON = join(shims, 'build/old-kernel/native-shims.node');
const { inline } = await import('#host/linux.ts');

const { path, fd: dir } = freshDirectory();
const lookup = (name: string) => inline.lookup(server, dir, n(name)) as number;

test('chmod acts on an O_PATH descriptor also when its object was unlinked, and not through a symlink', async () => {
  writeFileSync(join(path, 'file'), '', { mode: 0o600 });
  symlinkSync('file', join(path, 'link'));
  const link = lookup('link');
  expect(await refusal(() => inline.chmod(server, link, 0o777))).toBe(errno.EOPNOTSUPP);
  inline.close(link);
  const file = lookup('file');
  inline.chmod(server, file, 0o4640);
  expect(lstatSync(join(path, 'file')).mode & 0o7777).toBe(0o4640);
  unlinkSync(join(path, 'file'));
  inline.chmod(server, file, 0o600);
  inline.close(file);
});

test('readdir finds the stored types, and is refused none by a symlink', () => {
  writeFileSync(join(path, 'stored'), '');
  symlinkSync('stored', join(path, 'real'));
  const file = lookup('stored');
  const mode = Buffer.alloc(4);
  mode.writeUInt32LE(S_IFLNK | 0o777);
  inline.setxattr(server, file, 'user.virtfs.mode', mode, 0);
  inline.close(file);
  writeFileSync(join(path, 'plain'), '');
  const into = Buffer.alloc(4096);
  const bytes = inline.readdir(server, dir, 0, 0, into, '', 'user.virtfs.mode') as number;
  const types: Record<string, number> = {};
  for (let at = 0; at < bytes; at += 24 + into.readUInt16LE(at + 22)) {
    types[into.toString('latin1', at + 24, at + 24 + into.readUInt16LE(at + 22))] = into[at + 21]!;
  }
  expect(types).toMatchObject({ stored: 10, plain: 8, real: 10 });
});
