import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { NewNode } from '#backend/tree.ts';
import { Attr, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '#base/attr.ts';
import { EINVAL, ENOENT, ENOTEMPTY } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { MappedFileTree, meta } from '../../support/mapped-file-tree.ts';

const rw = { read: true, write: true, truncate: false, sync: 'none' } as const;

let t: MappedFileTree;
const refusal = (act: () => unknown) => expect(Promise.resolve().then(act)).rejects;

beforeEach(async () => {
  t = await MappedFileTree.open();
});
afterEach(() => t.remove());

describe('the files of mapped-file', () => {
  it('are those of QEMU, byte for byte', async () => {
    await t.touch('f');
    await t.mkdir('d');
    await t.make('d/link', { type: 'symlink', target: '/to/here', gid: 7 });
    await t.make('d/c', { type: 'special', mode: S_IFCHR | 0o620, rdev: 0x103, gid: 0 });
    await t.make('d/p', { type: 'special', mode: S_IFIFO | 0o600, rdev: 0, gid: 0 });
    await t.change('f', { uid: 4_000_000_000, gid: 3_000_000_000, mode: 0o4755 });
    expect(t.record('f')).toBe('virtfs.uid=-294967296\nvirtfs.gid=-1294967296\nvirtfs.mode=35309\n');
    expect(t.record('d')).toBe('virtfs.uid=1000\nvirtfs.gid=1001\nvirtfs.mode=16877\n');
    expect(t.record('link', 'd')).toBe('virtfs.uid=1000\nvirtfs.gid=7\nvirtfs.mode=41471\n');
    expect(t.record('c', 'd')).toBe('virtfs.uid=1000\nvirtfs.gid=0\nvirtfs.mode=8592\nvirtfs.rdev=259\n');
    expect(t.record('p', 'd')).toBe('virtfs.uid=1000\nvirtfs.gid=0\nvirtfs.mode=4480\nvirtfs.rdev=0\n');
    expect(
      [t.at(meta), t.at(meta, 'f'), t.at('f'), t.at('d')].map(path => statSync(path).mode.toString(8)),
    ).toEqual(['40700', '100600', '100600', '40700']);
    expect(readFileSync(t.at('d/link'), 'utf8')).toBe('/to/here');
    expect(readdirSync(t.at(meta)).sort()).toEqual(['d', 'f']);
    expect(await t.seen('f')).toBe('104755 4000000000:3000000000');
  });

  it('have the root’s record in the root', async () => {
    await t.change('', { uid: 5, mode: 0o1777 });
    expect(readFileSync(t.at('.virtfs_metadata_root'), 'utf8')).toBe('virtfs.uid=5\nvirtfs.mode=17407\n');
    expect(await t.seen('')).toBe(`41777 5:${process.getgid!()}`);
  });

  it('count when QEMU has written them, whatever else is in them', async () => {
    writeFileSync(t.at('x'), 'target');
    mkdirSync(t.at(meta));
    const write = (text: string) => writeFileSync(t.at(meta, 'x'), text);
    const host = `${process.getuid!()}:${process.getgid!()}`;
    for (const [text, shown] of [
      ['virtfs.uid=1\nvirtfs.gid=2\nvirtfs.mode=33188\n', '100644 1:2'],
      ['virtfs.uid=-2\nvirtfs.gid=-3\nvirtfs.mode=41471\n', '120777 4294967294:4294967293'],
      ['virtfs.uid=4294967294\nvirtfs.gid=1\nother=1\nvirtfs.gid=2\n', '100666 4294967294:2'],
      ['virtfs.mode=33188', `100644 ${host}`],
      ['virtfs.uid=-1\nvirtfs.gid=4294967295\nvirtfs.mode=-1\n', `100666 ${host}`],
      ['virtfs.uid=99999999999999999999\nvirtfs.mode=33188\n', `100644 ${host}`],
      // A directory cannot be a file, nor a file a directory: CVE-2017-7493 shows what comes of it.
      ['virtfs.mode=16877\n', `100755 ${host}`],
    ] as const) {
      write(text);
      expect([text, await t.seen('x')]).toEqual([text, shown]);
    }
    write('virtfs.uid=1\nvirtfs.unknown=9\nvirtfs.mode=33188\n');
    await t.change('x', { gid: 4 });
    expect(t.record('x')).toBe('virtfs.uid=1\nvirtfs.gid=4\nvirtfs.mode=33188\n');
    expect(t.warnings).toEqual([]);
  });

  it('are read again when QEMU has emptied one to write it anew', async () => {
    await t.touch('f');
    writeFileSync(t.at(meta, 'f'), '');
    const shown = t.seen('f');
    await Promise.resolve();
    writeFileSync(t.at(meta, 'f'), 'virtfs.uid=9\nvirtfs.gid=9\nvirtfs.mode=33184\n');
    expect(await shown).toBe('100640 9:9');
  });

  it('are hidden, and refused as names of anything', async () => {
    await t.touch('f');
    await t.mkdir('d');
    await t.change('', { mode: 0o755 });
    const file = await t.find('f');
    const d = await t.find('d');
    for (const text of [meta, `${meta}_root`, meta.toUpperCase(), '.ninepd-new-1']) {
      const name = nameOf(text);
      const how = { ...rw, exclusive: true, mode: 0o644, gid: 0 };
      expect(await t.tree.walk(t.root, t.tree.root, name, new Attr())).toBe(ENOENT);
      const making: NewNode[] = [
        { type: 'directory', mode: 0o755, gid: 0 },
        { type: 'symlink', target: 'x', gid: 0 },
        { type: 'special', mode: S_IFREG | 0o644, rdev: 0, gid: 0 },
      ];
      for (const what of making)
        await refusal(() => t.tree.make(t.root, d, name, what, new Attr())).toBe(EINVAL);
      await refusal(() => t.tree.create(t.root, d, name, how, new Attr())).toBe(EINVAL);
      await refusal(() => t.tree.link(t.root, file, d, name)).toBe(EINVAL);
      await refusal(() => t.tree.rename(t.root, t.tree.root, name, d, nameOf('x'))).toBe(ENOENT);
      await refusal(() => t.tree.rename(t.root, t.tree.root, nameOf('f'), d, name)).toBe(EINVAL);
      await refusal(() => t.tree.unlink(t.root, t.tree.root, name, 'directory')).toBe(ENOENT);
      await refusal(() => t.tree.unlink(t.root, t.tree.root, name, 'file')).toBe(ENOENT);
    }
    t.tree.release(file);
    t.tree.release(d);
    // As from QEMU, the type of what may have a record is for the client to ask.
    expect((await t.list('')).sort((a, b) => a.type - b.type)).toEqual([
      { name: 'f', type: 0 },
      { name: 'd', type: 4 },
    ]);
    expect(await t.list('d')).toEqual([]);
  });

  it('are not reached by another name of the same object, as vfat and casefold directories have them', async () => {
    await t.touch('f');
    linkSync(t.at('.virtfs_metadata_root'), t.at('ROOT~1'));
    await refusal(() => t.find('ROOT~1')).toBe(ENOENT);
    await refusal(() => t.unlink('ROOT~1')).toBe(ENOENT);
    await refusal(() => t.rename('ROOT~1', 'mine')).toBe(ENOENT);
    await refusal(() => t.rename('f', 'ROOT~1')).toBe(EINVAL);
    expect(readdirSync(t.dir).sort()).toEqual([meta, '.virtfs_metadata_root', 'ROOT~1', 'f'].sort());
  });
});

describe('a record', () => {
  it('moves with its object: in a directory, to another, over an object with one and over one without', async () => {
    for (const name of ['d', 'e', 'e/deep']) await t.mkdir(name);
    await t.touch('a', 0o600);
    await t.rename('a', 'b');
    await t.rename('b', 'd/c');
    await t.touch('d/victim', 0o444, t.root);
    await t.rename('d/c', 'd/victim');
    writeFileSync(t.at('plain'), '');
    await t.rename('d/victim', 'plain');
    await t.rename('plain', 'd/last');
    expect(await t.seen('d/last')).toBe('100600 1000:1001');
    await t.rename('e', 'd/moved');
    expect(await t.seen('d/moved')).toBe('40755 1000:1001');
    expect(await t.seen('d/moved/deep')).toBe('40755 1000:1001');
    expect(readdirSync(t.at('d', meta)).sort()).toEqual(['last', 'moved']);
    expect(readdirSync(t.at(meta))).toEqual(['d']);
  });

  it('does not fall to what is renamed over its object and has none', async () => {
    await t.touch('public', 0o644);
    writeFileSync(t.at('secret'), '', { mode: 0o600 });
    await t.rename('secret', 'public');
    expect(await t.seen('public')).toBe(`100600 ${process.getuid!()}:${process.getgid!()}`);
  });

  it('stays when a rename or an unlink fails', async () => {
    for (const name of ['full', 'full/x', 'other']) await t.mkdir(name);
    await refusal(() => t.rename('other', 'full')).toBe(ENOTEMPTY);
    await refusal(() => t.unlink('full', 'directory')).toBe(ENOTEMPTY);
    for (const name of ['full', 'full/x', 'other']) expect(await t.seen(name)).toBe('40755 1000:1001');
    expect(readdirSync(t.at(meta)).sort()).toEqual(['full', 'other']);
  });

  it('is shared by hard links, and stays shared when it changes', async () => {
    await t.mkdir('d');
    await t.touch('a');
    await t.link('a', 'd/b');
    expect(statSync(t.at(meta, 'a')).ino).toBe(statSync(t.at('d', meta, 'b')).ino);
    await t.change('d/b', { uid: 4_000_000_000, mode: 0o4711 });
    await t.change('a', { uid: 1, gid: 2 });
    expect(await t.seen('d/b')).toBe('100711 1:2');
    expect(t.record('b', 'd')).toBe('virtfs.uid=1\nvirtfs.gid=2\nvirtfs.mode=33225\n');
    await t.rename('a', 'c');
    expect(statSync(t.at(meta, 'c')).ino).toBe(statSync(t.at('d', meta, 'b')).ino);
    await t.rename('c', 'd/b');
    expect(existsSync(t.at('c'))).toBe(true);
    await t.unlink('d/b');
    expect(await t.seen('c')).toBe('100711 1:2');
    expect(readdirSync(t.at('d', meta))).toEqual([]);
  });

  it('is not left for the next object of the name', async () => {
    await t.touch('a', 0o4755);
    await t.unlink('a');
    expect(readdirSync(t.at(meta))).toEqual([]);
    writeFileSync(t.at(meta, 'a'), 'virtfs.mode=41471\n');
    await t.touch('b');
    await t.link('b', 'a');
    expect(await t.seen('a')).toBe('100640 1000:1001');
    writeFileSync(t.at(meta, 'd'), 'virtfs.mode=41471\n');
    await t.mkdir('d');
    expect(await t.seen('d')).toBe('40755 1000:1001');
  });

  it('is kept in memory for an object that a client holds and whose name is gone or not known', async () => {
    await t.touch('unlinked', 0o600);
    await t.touch('renamed', 0o600);
    const [unlinked, renamed] = [await t.find('unlinked'), await t.find('renamed')];
    await t.unlink('unlinked');
    renameSync(t.at('renamed'), t.at('elsewhere'));
    await t.touch('renamed', 0o777, t.root);
    for (const node of [unlinked, renamed]) {
      expect(await t.look(node)).toBe('100600 1000:1001');
      await t.tree.change(t.root, node, { mode: 0o640 });
      expect(await t.look(node)).toBe('100640 1000:1001');
      t.tree.release(node);
    }
    expect(await t.seen('renamed')).toBe('100777 0:1001');
  });

  it('moves the object’s ctime when it changes, of which qid.version is made', async () => {
    await t.touch('f');
    await t.withNode('f', async node => {
      const [before, after] = [new Attr(), new Attr()];
      await t.tree.stat(t.root, node, before);
      await vi.waitFor(async () => {
        await t.tree.change(t.root, node, { mode: 0o600 });
        await t.tree.stat(t.root, node, after);
        expect([after.ctimeSec, after.ctimeNsec]).not.toEqual([before.ctimeSec, before.ctimeNsec]);
      });
    });
  });
});

describe('a directory', () => {
  it('can be removed when nothing but metadata is in it', async () => {
    await t.mkdir('d');
    await t.touch('d/f');
    await t.unlink('d/f');
    writeFileSync(t.at('d', meta, 'stale'), 'virtfs.uid=1\n');
    for (let i = 0; i < 300; i++) writeFileSync(t.at('d', meta, `${'stale'.repeat(20)}${i}`), '');
    writeFileSync(t.at('d', '.virtfs_metadata_root'), '');
    await t.unlink('d', 'directory');
    expect(readdirSync(t.dir).sort()).toEqual([meta, '.virtfs_metadata_root']);
    expect(readdirSync(t.at(meta))).toEqual([]);
  });

  it('can be replaced when nothing but metadata is in it', async () => {
    for (const name of ['d', 'e', 'e/x']) await t.mkdir(name);
    await t.touch('d/f');
    await t.unlink('d/f');
    await t.rename('e', 'd');
    expect(await t.seen('d/x')).toBe('40755 1000:1001');
    expect(readdirSync(t.at(meta))).toEqual(['d']);
  });

  it('keeps records when it is not empty', async () => {
    await t.mkdir('d');
    await t.touch('d/f');
    await refusal(() => t.unlink('d', 'directory')).toBe(ENOTEMPTY);
    expect(await t.seen('d/f')).toBe('100640 1000:1001');
  });

  it('is not removed when its metadata contain what is no record, and the log says so', async () => {
    await t.mkdir('d');
    mkdirSync(t.at('d', meta, 'foreign'), { recursive: true });
    await refusal(() => t.unlink('d', 'directory')).toBe(ENOTEMPTY);
    expect(t.warnings.join()).toMatch(
      /cannot be removed, since its \.virtfs_metadata contains what is no record/,
    );
  });
});

it('knows types that only records tell', async () => {
  await t.make('link', { type: 'symlink', target: 'x', gid: 0 });
  await t.mkdir('d');
  const types = await Promise.all(['link', 'd'].map(name => t.withNode(name, node => node.type)));
  expect(types).toEqual([S_IFLNK, S_IFDIR]);
  unlinkSync(t.at('link'));
  writeFileSync(t.at('link'), '');
  // A program of the host does not know of records: the new object has the old one's.
  expect(await t.withNode('link', node => node.type)).toBe(S_IFLNK);
});
