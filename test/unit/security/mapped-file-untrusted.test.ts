import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { EIO } from '#base/errno.ts';
import { MappedFileTree, meta } from '../../support/mapped-file-tree.ts';

let t: MappedFileTree;
const refusal = (act: () => unknown) => expect(Promise.resolve().then(act)).rejects;

beforeEach(async () => {
  t = await MappedFileTree.open();
});
afterEach(() => t.remove());

describe('what somebody has put in the place of a record', () => {
  const outside = () => t.at('..', `${t.dir.split('/').pop()}-outside`);
  afterEach(() => rmSync(outside(), { recursive: true, force: true }));

  it.each([
    ['a symlink', () => symlinkSync(outside(), t.at(meta, 'x'))],
    ['a FIFO', () => execFileSync('mkfifo', [t.at(meta, 'x')])],
    ['a directory', () => mkdirSync(t.at(meta, 'x'))],
    [
      'a huge file',
      () => {
        writeFileSync(t.at(meta, 'x'), 'virtfs.uid=5\n');
        truncateSync(t.at(meta, 'x'), 2 ** 40);
      },
    ],
    ['something else', () => writeFileSync(t.at(meta, 'x'), Buffer.alloc(4096, 0xfe))],
  ])('is ignored with a line in the log, and not followed: %s', async (what, put) => {
    writeFileSync(outside(), 'virtfs.uid=5\nvirtfs.mode=33188\n');
    writeFileSync(t.at('x'), '', { mode: 0o600 });
    mkdirSync(t.at(meta));
    put();
    const host = `100600 ${process.getuid!()}:${process.getgid!()}`;
    expect(await t.seen('x')).toBe(host);
    expect(new Set(t.warnings).size).toBe(1);
    expect(t.warnings[0]).toMatch(/^a file in \.virtfs_metadata .*: ignored$/);
    if (what === 'a directory') {
      await refusal(() => t.change('x', { uid: 7 })).toBe(EIO);
      expect(t.warnings.at(-1)).toMatch(/something else has the place .*: remove it/);
      expect(await t.seen('x')).toBe(host);
    } else {
      await t.change('x', { uid: 7 });
      expect(t.record('x')).toBe('virtfs.uid=7\n');
    }
    expect(readFileSync(outside(), 'utf8')).toBe('virtfs.uid=5\nvirtfs.mode=33188\n');
    expect(readdirSync(t.at(meta))).toEqual(['x']);
  });

  it.each(['a symlink', 'a file', 'a FIFO'])('is not followed as the metadata directory: %s', async what => {
    mkdirSync(outside());
    writeFileSync(join(outside(), 'x'), 'virtfs.uid=5\n');
    writeFileSync(t.at('x'), '', { mode: 0o600 });
    if (what === 'a symlink') symlinkSync(outside(), t.at(meta));
    else if (what === 'a file') writeFileSync(t.at(meta), '');
    else execFileSync('mkfifo', [t.at(meta)]);
    expect(await t.seen('x')).toBe(`100600 ${process.getuid!()}:${process.getgid!()}`);
    await refusal(() => t.change('x', { uid: 7 })).toBe(EIO);
    await refusal(() => t.touch('y')).toBe(EIO);
    expect(t.warnings.join()).toMatch(/cannot be used \(ENOTDIR\).*has the place/);
    expect(readdirSync(outside())).toEqual(['x']);
    expect(existsSync(t.at('y'))).toBe(false);
  });
});

describe('what a killed server has left', () => {
  const old = new Date(Date.now() - 60_000);
  const pendingOf = (name: string) =>
    `.ninepd-new-record-${statSync(t.at(name)).ino.toString(16).padStart(16, '0')}`;

  it('is the record of the object that was about to get it, and not of the one that had the name', async () => {
    await t.touch('a', 0o600);
    await t.touch('b', 0o777, t.root);
    const pending = pendingOf('a');
    linkSync(t.at(meta, 'a'), t.at(meta, pending));
    expect([await t.seen('a'), await t.seen('b')]).toEqual(['100600 1000:1001', '100777 0:1001']);
    renameSync(t.at('a'), t.at('b'));
    expect(await t.seen('b')).toBe('100600 1000:1001');
    await t.change('b', { uid: 5 });
    expect(readdirSync(t.at(meta)).sort()).toEqual(['a', 'b']);
    expect(await t.seen('b')).toBe('100600 5:1001');
  });

  it('moves on with its object', async () => {
    await t.mkdir('d');
    await t.touch('a', 0o600);
    renameSync(t.at(meta, 'a'), t.at(meta, pendingOf('a')));
    await t.link('a', 'b');
    await t.rename('a', 'd/c');
    expect([await t.seen('b'), await t.seen('d/c')]).toEqual(['100600 1000:1001', '100600 1000:1001']);
    expect([readdirSync(t.at(meta)).sort(), readdirSync(t.at('d', meta))]).toEqual([['b', 'd'], ['c']]);
  });

  it('is cleared away by the first listing, and by the removal of the directory', async () => {
    await t.mkdir('d');
    await t.touch('d/a');
    const pending = `.ninepd-new-record-${statSync(t.at('d/a')).ino.toString(16).padStart(16, '0')}`;
    renameSync(t.at('d', meta, 'a'), t.at('d', meta, pending));
    const leave = (name: string) => {
      writeFileSync(t.at('d', meta, name), 'virtfs.uid=1\n');
      utimesSync(t.at('d', meta, name), old, old);
    };
    utimesSync(t.at('d', meta, pending), old, old);
    leave(`.ninepd-new-${'1'.repeat(24)}`);
    leave(`.ninepd-new-record-${'f'.repeat(16)}`);
    writeFileSync(t.at('d', meta, `.ninepd-new-${'2'.repeat(24)}`), '');
    expect(await t.list('d')).toEqual([{ name: 'a', type: 0 }]);
    await vi.waitFor(() =>
      expect(readdirSync(t.at('d', meta)).sort()).toEqual([`.ninepd-new-${'2'.repeat(24)}`, 'a']),
    );
    await t.unlink('d/a');
    await t.unlink('d', 'directory');
    expect(readdirSync(t.dir).sort()).toEqual([meta, '.virtfs_metadata_root']);
  });

  it('is left alone by a read-only export, which shows what is right', async () => {
    await t.touch('a', 0o600);
    renameSync(t.at(meta, 'a'), t.at(meta, pendingOf('a')));
    utimesSync(t.at(meta, pendingOf('a')), old, old);
    await t.reopen(true);
    expect(await t.list('')).toHaveLength(1);
    expect(await t.seen('a')).toBe('100600 1000:1001');
    expect(readdirSync(t.at(meta))).toEqual([pendingOf('a')]);
  });
});
