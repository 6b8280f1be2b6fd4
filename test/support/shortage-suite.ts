import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { CallContext, OpenHow } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { EMFILE, Errno } from '#base/errno.ts';
import { type Name, nameOf } from '#base/name.ts';
import { allocOwned, asOwned } from '#base/owned.ts';
import { noSession } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import type { SecurityModel } from '#security/model.ts';
import { contextOf } from './context.ts';
import { namesIn } from './names-in.ts';

const rw: OpenHow = { read: true, write: true, truncate: false, sync: 'none' };

/** What is thrown, at once or later. */
const refusal = (act: () => unknown) => expect(Promise.resolve().then(act)).rejects;

/** What every LocalTree must do when descriptors are short. `handles` as of `describeTree`. */
export function describeShortage(modelName: string, model: () => SecurityModel, handles: boolean): void {
  describe.each([16, 100])(`the local tree with %i descriptors, ${modelName}`, max => {
    let dir: string;
    let tree: LocalTree;
    let root: CallContext;
    const name = (text: string): Name => nameOf(text);

    beforeEach(async () => {
      process.umask(0);
      dir = mkdtempSync(join(tmpdir(), 'ninepd-tree-'));
      chmodSync(dir, 0o777);
      tree = await LocalTree.open(dir, { descriptors: new FdBudget(max), model: model() });
      root = contextOf(await tree.credentials(noSession, 0));
    });
    afterEach(() => {
      tree.close();
      execFileSync('rm', ['-rf', dir]);
    });

    async function found(...path: string[]) {
      let node = tree.root;
      tree.hold(node);
      for (const step of path) {
        const next = await tree.walk(root, node, name(step), new Attr());
        tree.release(node);
        if (next instanceof Errno) throw next;
        node = next;
      }
      return node;
    }

    async function createFile(text: string, content: string) {
      const how = { ...rw, exclusive: true, mode: 0o644, gid: root.creds.gid };
      const made = await tree.create(root, tree.root, name(text), how, new Attr());
      if (content) await tree.write(root, made.file, [asOwned(Buffer.from(content))], 0);
      return made;
    }

    /** Uses so many others that whatever can be given up is. */
    async function forgetDescriptors() {
      const others = join(dir, 'others');
      mkdirSync(others);
      for (let i = 0; i < 200; i++) {
        mkdirSync(join(others, `${i}`));
        writeFileSync(join(others, `${i}`, 'f'), '');
      }
      const nodes = [];
      for (let i = 0; i < 200; i++) nodes.push(await found('others', `${i}`, 'f'));
      for (const node of nodes) tree.release(node);
      execFileSync('rm', ['-r', others]);
    }

    it('opens as many files as there are descriptors to be shared, and keeps all of them', async () => {
      const made: Awaited<ReturnType<typeof createFile>>[] = [];
      const make = async (i: number) => made.push(await createFile(`made${i}`, 'x'.repeat(i)));
      const most = max - Math.floor(max / 3);
      for (let i = 0; i < most; i++) await make(i);
      await refusal(() => make(most)).toBe(EMFILE);
      await refusal(() => tree.openDir(root, tree.root)).toBe(EMFILE);
      expect(namesIn(dir).length).toBe(most);
      await forgetDescriptors();
      expect(readdirSync('/proc/self/fd').length).toBeLessThan(100 + max);
      for (const [i, { node, file }] of made.entries()) {
        const into = allocOwned(2 * max);
        expect(await tree.read(root, file, [into], 0)).toBe(i);
        await tree.write(root, file, [asOwned(Buffer.from('more'))], i);
        const attr = new Attr();
        await tree.stat(root, node, attr);
        expect(attr.size).toBe(i + 4);
      }
      const [first] = made.splice(0, 1);
      tree.closeFile(first!.file);
      tree.release(first!.node);
      await make(most);
      for (const { node, file } of made) {
        tree.release(node);
        tree.closeFile(file);
      }
    });

    it('keeps what is open whatever the host does to its names, however short descriptors are', async () => {
      mkdirSync(join(dir, 'd'));
      const names = ['kept', 'renamed', 'replaced', 'removed', 'd/moved'];
      for (const one of names) writeFileSync(join(dir, one), one);
      const opened = [];
      for (const one of names) {
        const node = await found(...one.split('/'));
        opened.push({ node, file: await tree.open(root, node, rw) });
      }
      const directory = await found('d');
      const listed = await tree.openDir(root, directory);
      await forgetDescriptors();
      renameSync(join(dir, 'renamed'), join(dir, 'elsewhere'));
      writeFileSync(join(dir, 'other'), 'other');
      renameSync(join(dir, 'other'), join(dir, 'replaced'));
      unlinkSync(join(dir, 'removed'));
      renameSync(join(dir, 'd/moved'), join(dir, 'd/again'));
      renameSync(join(dir, 'd'), join(dir, 'e'));
      for (const [i, { node, file }] of opened.entries()) {
        const into = allocOwned(20);
        const bytes = await tree.read(root, file, [into], 0);
        expect(into.toString('latin1', 0, bytes)).toBe(names[i]);
        expect(await tree.write(root, file, [asOwned(Buffer.from('new'))], 0)).toBe(3);
        await tree.change(root, node, { mode: 0o600 });
        if (modelName !== 'mapped-file')
          await tree.setXattr(root, node, 'user.a', asOwned(Buffer.from('value')), 0);
        const attr = new Attr();
        await tree.stat(root, node, attr);
        expect([attr.mode & 0o777, attr.nlink]).toEqual([0o600, /replaced|removed/.test(names[i]!) ? 0 : 1]);
        const again = await tree.open(root, node, rw);
        tree.closeFile(again);
        tree.closeFile(file);
        tree.release(node);
      }
      expect(await tree.readdir(root, listed, 0, 0, allocOwned(4096))).toBeGreaterThan(0);
      tree.closeDir(listed);
      tree.release(directory);
    });

    it.each(['at once', 'later'])(
      'knows an object by what is open on it, and after the last of it is closed (calls are answered %s)',
      async when => {
        writeFileSync(join(dir, 'f'), 'content');
        const node = await found('f');
        if (when === 'later') {
          const { volume } = node;
          Object.defineProperties(volume, { local: { value: false }, inline: { value: undefined } });
        }
        const opened = [];
        for (let i = 0; i < 3; i++) opened.push(await tree.open(root, node, rw));
        expect(node.evict()).toBe(true);
        unlinkSync(join(dir, 'f'));
        const attr = new Attr();
        for (const file of opened) {
          await tree.stat(root, node, attr);
          expect([attr.size, attr.nlink, node.fd]).toEqual([7, 0, -1]);
          tree.closeFile(file);
        }
        await vi.waitFor(() => expect(node.fd).toBeGreaterThanOrEqual(0));
        await tree.stat(root, node, attr);
        expect([attr.size, attr.nlink]).toEqual([7, 0]);
        tree.release(node);
      },
    );

    it('knows an object under the names that are left, however short descriptors are', async () => {
      const count = 2 * max;
      const nodes = [];
      for (let i = 0; i < count; i++) {
        writeFileSync(join(dir, `a${i}`), 'x'.repeat(i));
        const node = await found(`a${i}`);
        nodes.push(node);
        await tree.link(root, node, tree.root, name(`b${i}`));
        if (i % 3 === 0) await tree.link(root, node, tree.root, name(`c${i}`));
        // The name that it was found by, the one that it got, or that of which nobody here knows anything.
        if (i % 4 < 2) await tree.unlink(root, tree.root, name(`${'ab'[i % 4]}${i}`), 'file');
        else if (i % 4 === 2) await tree.rename(root, tree.root, name(`a${i}`), tree.root, name(`d${i}`));
        else {
          writeFileSync(join(dir, `e${i}`), '');
          await tree.rename(root, tree.root, name(`e${i}`), tree.root, name(`b${i}`));
        }
      }
      await forgetDescriptors();
      const attr = new Attr();
      for (const [i, node] of nodes.entries()) {
        await tree.stat(root, node, attr);
        expect([attr.size, attr.nlink]).toEqual([i, (i % 4 === 2 ? 2 : 1) + (i % 3 === 0 ? 1 : 0)]);
        tree.release(node);
      }
    });

    it('keeps an object that the host has renamed, and that loses its new name here', async () => {
      for (const one of ['a', 'b', 'over']) writeFileSync(join(dir, one), one);
      const [removed, replaced] = [await found('a'), await found('b')];
      await forgetDescriptors();
      for (const one of ['a', 'b']) renameSync(join(dir, one), join(dir, `new-${one}`));
      await tree.unlink(root, tree.root, name('new-a'), 'file');
      await tree.rename(root, tree.root, name('over'), tree.root, name('new-b'));
      const attr = new Attr();
      for (const node of [removed, replaced]) {
        await tree.stat(root, node, attr);
        expect([attr.size, attr.nlink]).toEqual([1, 0]);
        tree.release(node);
      }
    });

    if (!handles) return;

    it('knows an object by its handle when it has names that nobody here has seen', async () => {
      const nodes = [];
      for (let i = 0; i < 2 * max; i++) {
        writeFileSync(join(dir, `a${i}`), 'x'.repeat(i));
        linkSync(join(dir, `a${i}`), join(dir, `b${i}`));
        nodes.push(await found(`a${i}`));
      }
      for (const i of nodes.keys()) await tree.unlink(root, tree.root, name(`a${i}`), 'file');
      await forgetDescriptors();
      const attr = new Attr();
      for (const [i, node] of nodes.entries()) {
        await tree.stat(root, node, attr);
        expect([attr.size, attr.nlink]).toEqual([i, 1]);
        tree.release(node);
      }
    });
  });
}
