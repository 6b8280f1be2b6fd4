import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { CallContext, OpenHow } from '#backend/tree.ts';
import { Attr, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '#base/attr.ts';
import {
  EEXIST,
  EISDIR,
  ELOOP,
  ENODATA,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  ENXIO,
  EOPNOTSUPP,
  EPERM,
  Errno,
  ESTALE,
} from '#base/errno.ts';
import type { Name } from '#base/name.ts';
import { nameOf } from '#base/name.ts';
import { asOwned } from '#base/owned.ts';
import { noSession } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import type { SecurityModel } from '#security/model.ts';
import { contextOf } from './context.ts';
import { namesIn } from './names-in.ts';

const rw: OpenHow = { read: true, write: true, truncate: false, sync: 'none' };

/** What is thrown, at once or later. */
const refusal = (act: () => unknown) => expect(Promise.resolve().then(act)).rejects;

/**
 * What every LocalTree must do, whatever its model. `handles` says whether this process may open file handles: without
 * them an object that lost its descriptor is found again by its name only.
 */
export function describeTree(modelName: string, model: () => SecurityModel, handles: boolean): void {
  /** With `none` the server owns everything, and set-id bits and devices are refused. */
  const serverOwns = modelName.startsWith('none');
  const xattrs = modelName !== 'mapped-file';
  const own = (uid: number, gid: number) =>
    serverOwns ? [process.geteuid!(), process.getegid!()] : [uid, gid];
  describe(`the local tree, ${modelName}`, () => {
    let dir: string;
    let tree: LocalTree;
    let root: CallContext;
    const name = (text: string): Name => nameOf(Buffer.from(text).toString('latin1'));

    beforeEach(async () => {
      process.umask(0);
      dir = mkdtempSync(join(tmpdir(), 'ninepd-tree-'));
      chmodSync(dir, 0o777);
      tree = await LocalTree.open(dir, { descriptors: new FdBudget(16), model: model() });
      root = contextOf(await tree.credentials(noSession, 0));
    });
    afterEach(() => {
      tree.close();
      // rm(1) goes deeper than a path is long, and on a busy machine needs a while for that.
      execFileSync('rm', ['-rf', dir]);
    }, 60_000);

    async function found(text: string) {
      const node = await tree.walk(root, tree.root, name(text), new Attr());
      if (node instanceof Errno) throw node;
      return node;
    }

    async function createFile(text: string, content = '', actor = root, mode = 0o644) {
      const how = { ...rw, exclusive: true, mode, gid: actor.creds.gid };
      const made = await tree.create(actor, tree.root, name(text), how, new Attr());
      if (content) await tree.write(actor, made.file, [asOwned(Buffer.from(content))], 0);
      return made;
    }

    it('creates a file with owner and mode exactly as asked', async () => {
      const user = contextOf(await tree.credentials(noSession, 1000));
      const attr = new Attr();
      const how = { ...rw, exclusive: true, mode: 0o4751, gid: 1234 };
      const { node, file } = await tree.create(user, tree.root, name('a'), how, attr);
      const shown = serverOwns ? 0o751 : 0o4751;
      expect(attr.type).toBe(S_IFREG);
      await tree.stat(root, node, attr);
      expect([attr.mode.toString(8), attr.uid, attr.gid, attr.nlink]).toEqual([
        (S_IFREG | shown).toString(8),
        ...own(1000, 1234),
        1,
      ]);
      expect(statSync(join(dir, 'a')).mode & 0o7777).toBe(modelName.startsWith('mapped') ? 0o600 : shown);
      tree.closeFile(file);
      tree.release(node);
    });

    it('reads back what was written, beyond 4 GiB too', async () => {
      const { node, file } = await createFile('big');
      const offset = 5 * 2 ** 30 + 7;
      expect(await tree.write(root, file, [asOwned(Buffer.from('hello'))], offset)).toBe(5);
      const into = Buffer.alloc(10);
      expect(await tree.read(root, file, [asOwned(into)], offset)).toBe(5);
      expect(into.toString('latin1', 0, 5)).toBe('hello');
      tree.closeFile(file);
      tree.release(node);
    });

    it('answers an absent name with ENOENT by value and a file in the way with ENOTDIR', async () => {
      expect(await tree.walk(root, tree.root, name('none'), new Attr())).toBe(ENOENT);
      const { node, file } = await createFile('f');
      expect(await tree.walk(root, node, name('x'), new Attr())).toBe(ENOTDIR);
      tree.closeFile(file);
      tree.release(node);
    });

    it('gives all fids on one object the same node', async () => {
      writeFileSync(join(dir, 'one'), '');
      const a = await found('one');
      const b = await found('one');
      expect(a).toBe(b);
      tree.release(a);
      tree.release(b);
    });

    it('keeps everything working after the name is gone', async () => {
      const { node, file } = await createFile('gone', 'data');
      await tree.unlink(root, tree.root, name('gone'), 'file');
      const attr = new Attr();
      await tree.stat(root, node, attr);
      expect([attr.nlink, attr.size]).toEqual([0, 4]);
      await tree.change(root, node, { mode: 0o600, uid: 5, size: 2 });
      if (xattrs) {
        await tree.setXattr(root, node, 'user.x', asOwned(Buffer.from('v')), 0);
        expect(Buffer.from(await tree.getXattr(root, node, 'user.x')).toString()).toBe('v');
      }
      await tree.stat(root, node, attr);
      expect([attr.uid, attr.mode & 0o7777]).toEqual([own(5, 0)[0], 0o600]);
      const again = await tree.open(root, node, rw);
      const into = Buffer.alloc(9);
      expect(await tree.read(root, again, [asOwned(into)], 0)).toBe(2);
      tree.closeFile(again);
      tree.closeFile(file);
      tree.release(node);
    });

    it('makes directories, symlinks, devices and FIFOs, and never opens the special ones', async () => {
      const attr = new Attr();
      const d = await tree.make(
        root,
        tree.root,
        name('d'),
        { type: 'directory', mode: 0o1755, gid: 7 },
        attr,
      );
      expect(attr.type).toBe(S_IFDIR);
      await tree.stat(root, d, attr);
      expect([attr.mode & 0o7777, attr.gid]).toEqual([0o1755, own(0, 7)[1]]);
      const s = await tree.make(root, d, name('s'), { type: 'symlink', target: '/etc/passwd', gid: 0 }, attr);
      expect([attr.mode, attr.size]).toEqual([S_IFLNK | 0o777, 11]);
      expect(await tree.readlink(root, s)).toBe('/etc/passwd');
      expect(() => tree.open(root, s, rw)).toThrow(ELOOP as unknown as Error);
      const special = { type: 'special' as const, gid: 0 };
      const device = { ...special, mode: S_IFCHR | 0o620, rdev: 0x103 };
      if (serverOwns) {
        await refusal(() => tree.make(root, d, name('c'), device, attr)).toBe(EPERM);
      } else {
        const c = await tree.make(root, d, name('c'), device, attr);
        expect(attr.type).toBe(S_IFCHR);
        await tree.stat(root, c, attr);
        expect([attr.type, attr.rdev]).toEqual([S_IFCHR, 0x103]);
        expect(() => tree.open(root, c, rw)).toThrow(ENXIO as unknown as Error);
        tree.release(c);
      }
      const f = await tree.make(root, d, name('f'), { ...special, mode: S_IFIFO | 0o644, rdev: 0 }, attr);
      expect(attr.type).toBe(S_IFIFO);
      expect(() => tree.open(root, f, rw)).toThrow(ENXIO as unknown as Error);
      expect(() => tree.open(root, d, rw)).toThrow(EISDIR as unknown as Error);
      expect(namesIn(join(dir, 'd'))).toEqual(serverOwns ? ['f', 's'] : ['c', 'f', 's']);
      for (const node of [d, s, f]) tree.release(node);
    });

    it('refuses to make what exists and leaves nothing behind', async () => {
      mkdirSync(join(dir, 'x'));
      const making = { type: 'directory', mode: 0o755, gid: 0 } as const;
      await refusal(() => tree.make(root, tree.root, name('x'), making, new Attr())).toBe(EEXIST);
      const how = { ...rw, exclusive: true, mode: 0o644, gid: 0 };
      await refusal(() => tree.create(root, tree.root, name('x'), how, new Attr())).toBe(EEXIST);
      await refusal(() =>
        tree.create(root, tree.root, name('x'), { ...how, exclusive: false }, new Attr()),
      ).toBe(EISDIR);
      expect(namesIn(dir)).toEqual(['x']);
    });

    it('opens an existing file through create without touching its owner, mode and content', async () => {
      const first = await createFile(
        'keep',
        'content',
        contextOf(await tree.credentials(noSession, 1000)),
        0o640,
      );
      const attr = new Attr();
      const how = { ...rw, exclusive: false, mode: 0o777, gid: 9 };
      const second = await tree.create(root, tree.root, name('keep'), how, attr);
      expect([attr.mode & 0o7777, attr.uid, attr.size]).toEqual([0o640, own(1000, 0)[0], 7]);
      for (const made of [first, second]) {
        tree.closeFile(made.file);
        tree.release(made.node);
      }
    });

    it('renames over an open file, whose fids keep the old object', async () => {
      const old = await createFile('b', 'old');
      const fresh = await createFile('a', 'fresh');
      await tree.rename(root, tree.root, name('a'), tree.root, name('b'));
      const into = Buffer.alloc(8);
      expect(into.toString('latin1', 0, await tree.read(root, old.file, [asOwned(into)], 0))).toBe('old');
      const now = await found('b');
      expect(now).toBe(fresh.node);
      expect(await tree.isEntry(root, tree.root, name('b'), fresh.node)).toBe(true);
      tree.release(now);
      for (const made of [old, fresh]) {
        tree.closeFile(made.file);
        tree.release(made.node);
      }
    });

    it('unlinks with the exact errno', async () => {
      mkdirSync(join(dir, 'full/sub'), { recursive: true });
      writeFileSync(join(dir, 'file'), '');
      await refusal(() => tree.unlink(root, tree.root, name('full'), 'file')).toBe(EISDIR);
      await refusal(() => tree.unlink(root, tree.root, name('full'), 'directory')).toBe(ENOTEMPTY);
      await refusal(() => tree.unlink(root, tree.root, name('file'), 'directory')).toBe(ENOTDIR);
      await refusal(() => tree.unlink(root, tree.root, name('none'), 'file')).toBe(ENOENT);
    });

    it('holds many more objects than it may hold descriptors', async () => {
      const nodes: Awaited<ReturnType<typeof found>>[] = [];
      for (let i = 0; i < 200; i++) {
        writeFileSync(join(dir, `n${i}`), 'x'.repeat(i));
        nodes.push(await found(`n${i}`));
      }
      expect(readdirSync('/proc/self/fd').length).toBeLessThan(120);
      const attr = new Attr();
      for (const [i, node] of nodes.entries()) {
        await tree.stat(root, node, attr);
        expect(attr.size).toBe(i);
      }
      await tree.rename(root, tree.root, name('n2'), tree.root, name('moved'));
      await tree.stat(root, nodes[2]!, attr);
      expect(attr.size).toBe(2);
      renameSync(join(dir, 'n3'), join(dir, 'elsewhere'));
      if (handles) {
        await tree.stat(root, nodes[3]!, attr);
        expect(attr.size).toBe(3);
      } else {
        await refusal(() => tree.stat(root, nodes[3]!, attr)).toBe(ESTALE);
      }
      unlinkSync(join(dir, 'n4'));
      writeFileSync(join(dir, 'n4'), 'another');
      await refusal(() => tree.stat(root, nodes[4]!, attr)).toBe(ESTALE);
      await tree.unlink(root, tree.root, name('n5'), 'file');
      await tree.stat(root, nodes[5]!, attr);
      expect(attr.nlink).toBe(0);
      for (const node of nodes) tree.release(node);
    });

    it('keeps an open file under its other name when the descriptors run out', async () => {
      const { node, file } = await createFile('temporary', 'old');
      await tree.link(root, node, tree.root, name('final'));
      await tree.unlink(root, tree.root, name('temporary'), 'file');
      const nodes: Awaited<ReturnType<typeof found>>[] = [];
      for (let i = 0; i < 100; i++) {
        writeFileSync(join(dir, `n${i}`), '');
        nodes.push(await found(`n${i}`));
      }
      expect(await tree.write(root, file, [asOwned(Buffer.from('new'))], 0)).toBe(3);
      expect(readFileSync(join(dir, 'final'), 'utf8')).toBe('new');
      for (const one of nodes) tree.release(one);
      tree.closeFile(file);
      tree.release(node);
    });

    it('knows a file that it made after it was closed, and after it lost its name too', async () => {
      const attr = new Attr();
      for (const unlinked of [false, true]) {
        const { node, file } = await createFile('made', 'content');
        await tree.stat(root, node, attr);
        expect(attr.size).toBe(7);
        if (unlinked) await tree.unlink(root, tree.root, name('made'), 'file');
        tree.closeFile(file);
        await tree.change(root, node, { mode: 0o600, size: 3 });
        await tree.stat(root, node, attr);
        expect([attr.size, attr.mode & 0o7777, attr.nlink]).toEqual([3, 0o600, unlinked ? 0 : 1]);
        const again = await tree.open(root, node, rw);
        const into = Buffer.alloc(9);
        expect(await tree.read(root, again, [asOwned(into)], 0)).toBe(3);
        tree.closeFile(again);
        tree.release(node);
        if (!unlinked) await tree.unlink(root, tree.root, name('made'), 'file');
      }
    });

    it('lets go of a chain of directories that is deeper than any stack', { timeout: 240_000 }, async () => {
      const before = readdirSync('/proc/self/fd').length;
      const making = { type: 'directory', mode: 0o755, gid: 0 } as const;
      let deepest = await tree.make(root, tree.root, name('d'), making, new Attr());
      for (let depth = 1; depth < 12_000; depth++) {
        const next = await tree.make(root, deepest, name('d'), making, new Attr());
        tree.release(deepest);
        deepest = next;
      }
      // Those above have lost their descriptors long ago.
      const attr = new Attr();
      const parent = await tree.parent(root, deepest);
      await tree.stat(root, parent, attr);
      expect(attr.mode & 0o777).toBe(0o755);
      tree.release(parent);
      tree.release(deepest);
      expect(readdirSync('/proc/self/fd').length).toBe(before);
    });

    if (!xattrs)
      it('offers no xattrs and no ACLs', async () => {
        const { node, file } = await createFile('x');
        for (const one of ['user.a', 'system.posix_acl_access', 'security.capability', 'trusted.t']) {
          await refusal(() => tree.setXattr(root, node, one, asOwned(Buffer.from('v')), 0)).toBe(EOPNOTSUPP);
          await refusal(() => tree.getXattr(root, node, one)).toBe(EOPNOTSUPP);
          await refusal(() => tree.removeXattr(root, node, one)).toBe(EOPNOTSUPP);
        }
        execFileSync('setfattr', ['-n', 'user.a', '-v', 'of the host', join(dir, 'x')]);
        expect((await tree.listXattr(root, node)).length).toBe(0);
        tree.closeFile(file);
        tree.release(node);
      });

    if (xattrs)
      it('keeps xattrs apart from its own bookkeeping', async () => {
        const { node, file } = await createFile('x');
        await tree.setXattr(root, node, 'user.a', asOwned(Buffer.alloc(0)), 0);
        const trusted = () => tree.setXattr(root, node, 'trusted.t', asOwned(Buffer.from('t')), 0);
        if (serverOwns) await refusal(trusted).toBe(EOPNOTSUPP);
        else await trusted();
        const list = Buffer.from(await tree.listXattr(root, node))
          .toString()
          .split('\0')
          .filter(Boolean);
        expect(list.sort()).toEqual(serverOwns ? ['user.a'] : ['trusted.t', 'user.a']);
        expect((await tree.getXattr(root, node, 'user.a')).length).toBe(0);
        await refusal(() => tree.getXattr(root, node, 'user.none')).toBe(ENODATA);
        tree.closeFile(file);
        tree.release(node);
      });

    it('drops set-id bits and file capabilities when a user writes', async () => {
      const user = contextOf(await tree.credentials(noSession, 1000));
      const { node, file } = await createFile('suid', 'x', user, 0o6755);
      const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
      const attr = new Attr();
      await tree.change(root, node, { mode: 0o6755 });
      const privilege = () => tree.setXattr(root, node, 'security.capability', asOwned(capability), 0);
      if (serverOwns) {
        expect(statSync(join(dir, 'suid')).mode & 0o7777).toBe(0o755);
        await refusal(privilege).toBe(EOPNOTSUPP);
        // By a program of the host.
        chmodSync(join(dir, 'suid'), 0o6755);
      } else if (xattrs) await privilege();
      await tree.write(user, file, [asOwned(Buffer.from('y'))], 0);
      await tree.stat(root, node, attr);
      expect((attr.mode & 0o7777).toString(8)).toBe('755');
      const gone = serverOwns || !xattrs ? EOPNOTSUPP : ENODATA;
      await refusal(() => tree.getXattr(root, node, 'security.capability')).toBe(gone);
      tree.closeFile(file);
      tree.release(node);
    });

    it('lists a directory with the qid paths that stat gives', async () => {
      mkdirSync(join(dir, 'sub'));
      symlinkSync('nowhere', join(dir, 'link'));
      const open = await tree.openDir(root, tree.root);
      const into = new Uint8Array(4096);
      const bytes = await tree.readdir(root, open, 0, 0, asOwned(into));
      const packed = Buffer.from(into.buffer, 0, bytes);
      const seen: string[] = [];
      for (let at = 0; at < bytes; ) {
        const length = packed.readUInt16LE(at + 22);
        const text = packed.toString('latin1', at + 24, at + 24 + length);
        seen.push(text);
        if (text === '..') expect(packed.readUInt32LE(at + 5)).toBe(tree.root.pathLow);
        if (text === 'sub') {
          const node = await found('sub');
          expect(packed.readUInt32LE(at + 5)).toBe(node.pathLow);
          tree.release(node);
        }
        at += 24 + length;
      }
      expect(seen.sort()).toEqual(['.', '..', 'link', 'sub']);
      tree.closeDir(open);
    });

    it('leaves no descriptor behind', async () => {
      const before = readdirSync('/proc/self/fd').length;
      for (let i = 0; i < 10; i++) {
        const { node, file } = await createFile(`leak${i}`, 'x');
        tree.closeFile(file);
        tree.release(node);
      }
      expect(readdirSync('/proc/self/fd').length).toBe(before);
    });
  });
}
