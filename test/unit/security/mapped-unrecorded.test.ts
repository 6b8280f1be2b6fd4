import { chmodSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getAttributeSync, setAttributeSync } from 'fs-xattr';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { CallContext } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { EACCES, ENODATA, Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { asOwned } from '#base/owned.ts';
import { noSession } from '#host/syscalls.ts';
import { parseDirents } from '#protocol/dirent.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { type MappedOptions, mapped } from '#security/mapped.ts';
import { overrideXattr, parseOverrideStat } from '#security/override-stat.ts';
import { contextOf } from '../../support/context.ts';

let dir: string;
let tree: LocalTree;
let user: CallContext;
let complaints: string[];
const at = (name: string) => join(dir, name);

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'ninepd-unrecorded-'));
  complaints = [];
});
afterEach(() => {
  tree.close();
  rmSync(dir, { recursive: true });
});

async function open(options: Partial<MappedOptions>): Promise<void> {
  const model = mapped({ fmode: 0o600, dmode: 0o700, ...options }, text => complaints.push(text));
  tree = await LocalTree.open(dir, { descriptors: new FdBudget(64), model });
  user = contextOf(await tree.credentials(noSession, 1000));
}

async function node(name: string) {
  const found = await tree.walk(user, tree.root, nameOf(name), new Attr());
  if (found instanceof Errno) throw found;
  return found;
}

async function look(name: string) {
  const found = await node(name);
  const attr = new Attr();
  await tree.stat(user, found, attr);
  tree.release(found);
  return { mode: attr.mode.toString(8), uid: attr.uid, gid: attr.gid, rdev: attr.rdev };
}

async function errorOf(act: () => unknown): Promise<unknown> {
  try {
    await act();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('objects of mapped without a record', () => {
  it('are shown with owner=, file_mode= and dir_mode=, until a record says otherwise', async () => {
    await open({ owner: { uid: 1000, gid: 100 }, fileMode: 0o640, dirMode: 0o750 });
    writeFileSync(at('f'), '', { mode: 0o600 });
    mkdirSync(at('d'), 0o700);
    symlinkSync('f', at('l'));
    expect(await look('f')).toMatchObject({ mode: '100640', uid: 1000, gid: 100 });
    expect(await look('d')).toMatchObject({ mode: '40750', uid: 1000, gid: 100 });
    expect(await look('l')).toMatchObject({ mode: '120777', uid: 1000, gid: 100 });
    const f = await node('f');
    await tree.change(user, f, { gid: 7 });
    expect(await look('f')).toMatchObject({ mode: '100640', uid: 1000, gid: 7 });
    await tree.change(user, f, { mode: 0o4711, uid: 5 });
    expect(await look('f')).toMatchObject({ mode: '104711', uid: 5, gid: 7 });
    tree.release(f);
    expect((lstatSync(at('f')).mode & 0o7777).toString(8)).toBe('600');
  });

  it('are shown as the host has them without options', async () => {
    await open({});
    writeFileSync(at('f'), '');
    chmodSync(at('f'), 0o711);
    expect(await look('f')).toMatchObject({ mode: '100711', uid: process.getuid!(), gid: process.getgid!() });
  });
});

describe('records=override_stat', () => {
  const write = (name: string, value: string) => {
    writeFileSync(at(name), '');
    setAttributeSync(at(name), overrideXattr, Buffer.from(value));
  };

  it("reads what Podman and libkrun keep of files, where QEMU's record or a part of it is missing", async () => {
    await open({ overrideStat: true, owner: { uid: 9, gid: 9 } });
    chmodSync(dir, 0o755);
    write('podman', '33:44:04755:file');
    write('libkrun', '1000:1000:0100640');
    write('unknown', 'x:7:x');
    write('null', '0:6:0666:char-1-3');
    write('disk', '0:6:0660:block-259-70000');
    write('pipe', '0:0:0600:pipe-more');
    expect(await look('podman')).toMatchObject({ mode: '104755', uid: 33, gid: 44 });
    expect(await look('libkrun')).toMatchObject({ mode: '100640', uid: 1000, gid: 1000 });
    expect(await look('unknown')).toMatchObject({ uid: 9, gid: 7 });
    expect(await look('null')).toMatchObject({ mode: '20666', rdev: 0x103 });
    expect(await look('disk')).toMatchObject({ mode: '60660', rdev: 0x70 | (259 << 8) | (0x11100 << 12) });
    expect((await look('pipe')).mode).toBe('10600');
    const f = await node('podman');
    await tree.change(user, f, { uid: 1 });
    // chown(2) clears set-id bits.
    expect(await look('podman')).toMatchObject({ mode: '100755', uid: 1, gid: 44 });
    tree.release(f);
    expect(getAttributeSync(at('podman'), overrideXattr).toString()).toBe('33:44:04755:file');
    expect(complaints).toEqual([]);
    write('broken', 'root:root:rwx');
    const { uid, gid } = await look('broken');
    expect([uid, gid, complaints]).toEqual([9, 9, [`${overrideXattr} of a file is malformed: ignored`]]);
  });

  it('lists what may be something else than a file without a type', async () => {
    await open({ overrideStat: true });
    write('null', '0:6:0666:char-1-3');
    mkdirSync(at('d'));
    const listing = await tree.openDir(user, tree.root);
    const into = new Uint8Array(4096);
    const bytes = await tree.readdir(user, listing, 0, 0, asOwned(into));
    tree.closeDir(listing);
    const types = parseDirents(Buffer.from(into.buffer, 0, bytes)).map(({ name, type }) => [name, type]);
    expect(types.sort()).toEqual(
      [
        ['.', 4],
        ['..', 4],
        ['d', 4],
        ['null', 0],
      ].sort(),
    );
  });

  it('keeps the xattr from guests, who could become root by it; without the option it is one as others', async () => {
    await open({ overrideStat: true });
    write('f', '0:0:0600:file');
    const value = asOwned(Buffer.from('0:0:04755:file'));
    const f = await node('f');
    expect(await errorOf(() => tree.getXattr(user, f, overrideXattr))).toBe(ENODATA);
    expect(await errorOf(() => tree.setXattr(user, f, overrideXattr, value, 0))).toBe(EACCES);
    expect(await errorOf(() => tree.removeXattr(user, f, overrideXattr))).toBe(EACCES);
    expect((await tree.listXattr(user, f)).length).toBe(0);
    tree.release(f);
    tree.close();
    await open({});
    const again = await node('f');
    expect(Buffer.from(await tree.getXattr(user, again, overrideXattr)).toString()).toBe('0:0:0600:file');
    expect((await look('f')).uid).toBe(process.getuid!());
    tree.release(again);
  });

  it('has a format', () => {
    expect(parseOverrideStat('0:0:0755')).toEqual({ uid: 0, gid: 0, mode: 0o755 });
    expect(parseOverrideStat('0:0:040755:dir\0')).toEqual({ uid: 0, gid: 0, mode: 0o40755 });
    expect(parseOverrideStat('1:2:07777:socket')).toEqual({ uid: 1, gid: 2, mode: 0o147777 });
    expect(parseOverrideStat('1:2:0777:symlink')).toEqual({ uid: 1, gid: 2, mode: 0o777 });
    expect(parseOverrideStat('1:2:0600:char-5-1-new:more')).toMatchObject({ mode: 0o20600, rdev: 0x501 });
    for (const text of [
      ...['', '0', '0:0', '0:0:', '-1:0:0755', '0:0:0855', '0:0:0755:tree', '4294967295:0:0755'],
      ...[
        '0:0:0600:char',
        '0:0:0600:char-5',
        '0:0:0600:block-4096-0',
        '0:0:0600:block-1-1048576',
        '0:0:x:char-5-1',
      ],
      ...['0:0:07777777777', ' 0:0:0755', '0:0:0755\n'],
    ])
      expect([text, parseOverrideStat(text)]).toEqual([text, undefined]);
  });
});
