import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setAttributeSync } from 'fs-xattr';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { CallContext, NewNode } from '#backend/tree.ts';
import { Attr, S_IFIFO, S_IFREG } from '#base/attr.ts';
import { nameOf } from '#base/name.ts';
import { asOwned } from '#base/owned.ts';
import { noSession } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { contextOf } from '../../support/context.ts';

let dir: string;
let tree: LocalTree;
let user: CallContext;
const at = (name: string) => join(dir, name);

beforeEach(async () => {
  process.umask(0);
  dir = mkdtempSync(join(tmpdir(), 'ninepd-types-'));
  const model = mapped({ fmode: 0o600, dmode: 0o700 }, () => {});
  tree = await LocalTree.open(dir, { descriptors: new FdBudget(64), model });
  user = contextOf(await tree.credentials(noSession, 1000));
});
afterEach(() => {
  tree.close();
  rmSync(dir, { recursive: true });
});

async function make(name: string, what: NewNode) {
  return tree.make(user, tree.root, nameOf(name), what, new Attr());
}

/** The types of all entries, listed two or three at a time. */
async function types(): Promise<Record<string, number>> {
  const open = await tree.openDir(user, tree.root);
  const seen: Record<string, number> = {};
  const into = Buffer.alloc(80);
  let cookie: [number, number] = [0, 0];
  for (;;) {
    const bytes = await tree.readdir(user, open, ...cookie, asOwned(into));
    if (bytes === 0) break;
    for (let at = 0; at < bytes; at += 24 + into.readUInt16LE(at + 22)) {
      const name = into.toString('latin1', at + 24, at + 24 + into.readUInt16LE(at + 22));
      seen[name] = into[at + 21]!;
      expect(into[at]).toBe(into[at + 21] === 4 ? 0x80 : into[at + 21] === 10 ? 0x02 : 0);
      cookie = [into.readUInt32LE(at + 13), into.readUInt32LE(at + 17)];
    }
  }
  tree.closeDir(open);
  return seen;
}

it('reads the types of an unchanged directory from the records once, and again after a change', async () => {
  const listing = vi.spyOn(tree.root.volume.inline!, 'readdir');
  /** The xattrs that were read since the last call. */
  const asked = () => {
    const names = new Set(listing.mock.calls.map(args => args[6]));
    listing.mockClear();
    return [...names];
  };
  for (const name of ['link', 'gone']) {
    tree.release(await make(name, { type: 'symlink', target: 'x', gid: 0 }));
  }
  tree.release(await make('pipe', { type: 'special', mode: S_IFIFO | 0o600, rdev: 0, gid: 0 }));
  tree.release(await make('file', { type: 'special', mode: S_IFREG | 0o644, rdev: 0, gid: 0 }));
  mkdirSync(at('folder'));
  symlinkSync('x', at('native'));
  const all = { '.': 4, '..': 4, link: 10, gone: 10, pipe: 1, file: 8, folder: 4, native: 10 };
  expect(await types()).toEqual(all);
  // A directory that was changed just now may contain objects without records yet.
  expect(await types()).toEqual(all);
  expect(asked()).toEqual(['user.virtfs.mode']);
  await new Promise(resolve => setTimeout(resolve, 2100));
  expect(await types()).toEqual(all);
  expect(asked()).toEqual(['user.virtfs.mode']);
  expect(await types()).toEqual(all);
  expect(asked()).toEqual(['']);
  listing.mockRestore();

  unlinkSync(at('gone'));
  // Probably with the same inode number, and with the same name.
  writeFileSync(at('gone'), '');
  renameSync(at('link'), at('moved'));
  writeFileSync(at('link'), '');
  writeFileSync(at('new'), '');
  setAttributeSync(at('new'), 'user.virtfs.mode', Buffer.from('ffa10000', 'hex'));
  const now = { ...all, gone: 8, link: 8, moved: 10, new: 10 };
  expect(await types()).toEqual(now);
  expect(await types()).toEqual(now);
});
