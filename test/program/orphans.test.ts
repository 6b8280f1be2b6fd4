import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { CallContext } from '#backend/tree.ts';
import { EEXIST, ENOTEMPTY } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { noSession } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { contextOf } from '../support/context.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests mount file systems: run them as root (sudo npm test).');
}

const MiB = 1024 * 1024;
const old = new Date(Date.now() - 60_000);

// rename(2) fails with EEXIST or ENOTEMPTY over a non-empty directory. Programs: e2fsprogs, xfsprogs, btrfs-progs.
describe.each(['ext4', 'xfs', 'btrfs'])('what a killed server has left in a directory on %s', type => {
  let top: string;
  let path: string;
  let tree: LocalTree;
  let actor: CallContext;

  beforeAll(async () => {
    top = mkdtempSync(join(tmpdir(), `ninepd-${type}-`));
    path = join(top, 'mounted');
    mkdirSync(path);
    const image = join(top, 'image');
    writeFileSync(image, '');
    truncateSync(image, 512 * MiB);
    execFileSync(`mkfs.${type}`, ['-q', type === 'ext4' ? '-F' : '-f', image]);
    execFileSync('mount', ['-o', 'loop', image, path]);
    const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined);
    tree = await LocalTree.open(path, { descriptors: new FdBudget(64), model });
    actor = contextOf(await tree.credentials(noSession, 0));
  });
  afterAll(() => {
    tree.close();
    execFileSync('umount', [path]);
    rmSync(top, { recursive: true });
  });

  /** A directory with a staged object of a killed server. */
  function leaveIn(name: string): void {
    const unfinished = join(path, name, `.ninepd-new-${'1'.repeat(24)}`);
    mkdirSync(unfinished, { recursive: true });
    utimesSync(unfinished, old, old);
  }
  const remove = async (name: string) => tree.unlink(actor, tree.root, nameOf(name), 'directory');
  const rename = async (from: string, to: string) =>
    tree.rename(actor, tree.root, nameOf(from), tree.root, nameOf(to));

  it('is cleared away when the directory is removed', async () => {
    leaveIn('gone');
    await remove('gone');
    expect(existsSync(join(path, 'gone'))).toBe(false);
  });

  it('is cleared away when another directory is renamed over it', async () => {
    leaveIn('replaced');
    mkdirSync(join(path, 'replacing/content'), { recursive: true });
    await rename('replacing', 'replaced');
    expect(readdirSync(join(path, 'replaced'))).toEqual(['content']);
  });

  it('does not let more than that be removed', async () => {
    leaveIn('full');
    writeFileSync(join(path, 'full/file'), '');
    mkdirSync(join(path, 'other'));
    const refused = await rename('other', 'full').catch(error => error);
    expect([EEXIST, ENOTEMPTY]).toContain(refused);
    await expect(remove('full')).rejects.toBe(ENOTEMPTY);
    expect(existsSync(join(path, 'full/file'))).toBe(true);
  });

  it('is looked for without a trace in the directory', async () => {
    mkdirSync(join(path, 'looked/at'), { recursive: true });
    // With relatime, the next read changes its atime.
    utimesSync(join(path, 'looked'), 1, 2);
    await expect(remove('looked')).rejects.toBe(ENOTEMPTY);
    expect(statSync(join(path, 'looked')).atimeMs).toBe(1000);
  });
});
