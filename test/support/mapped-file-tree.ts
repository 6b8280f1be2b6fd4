import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { LocalNode } from '#backend/local/node.ts';
import type { CallContext, NewNode } from '#backend/tree.ts';
import { Attr } from '#base/attr.ts';
import { Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { asOwned } from '#base/owned.ts';
import { noSession } from '#host/syscalls.ts';
import { parseDirents } from '#protocol/dirent.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mappedFile } from '#security/mapped-file.ts';
import { contextOf } from './context.ts';

export const meta = '.virtfs_metadata';
const rw = { read: true, write: true, truncate: false, sync: 'none' } as const;

/** A tree of `mapped-file` in an empty directory of its own; paths are below its root. */
export class MappedFileTree {
  readonly dir = mkdtempSync(join(tmpdir(), 'ninepd-mapped-file-'));
  readonly warnings: string[] = [];
  tree!: LocalTree;
  root!: CallContext;
  /** Uid 1000. */
  user!: CallContext;

  static async open(): Promise<MappedFileTree> {
    process.umask(0);
    const opened = new MappedFileTree();
    await opened.reopen(false);
    return opened;
  }

  async reopen(readonly: boolean): Promise<void> {
    this.tree?.close();
    const model = mappedFile({ fmode: 0o600, dmode: 0o700 }, text => void this.warnings.push(text));
    this.tree = await LocalTree.open(this.dir, { descriptors: new FdBudget(64), model, readonly });
    this.root = contextOf(await this.tree.credentials(noSession, 0));
    this.user = contextOf(await this.tree.credentials(noSession, 1000));
  }

  remove(): void {
    this.tree.close();
    rmSync(this.dir, { recursive: true, force: true });
  }

  readonly at = (...names: string[]) => join(this.dir, ...names);

  async find(...names: string[]): Promise<LocalNode> {
    const { tree } = this;
    let node: LocalNode = tree.root;
    tree.hold(node);
    for (const name of names) {
      const next = await tree.walk(this.root, node, nameOf(name), new Attr());
      tree.release(node);
      if (next instanceof Errno) throw next;
      node = next;
    }
    return node;
  }

  /** Runs `act` with the node at a path, and lets go of it. */
  readonly withNode = async <T>(path: string, act: (node: LocalNode) => T): Promise<Awaited<T>> => {
    const node = await this.find(...path.split('/').filter(Boolean));
    try {
      return await act(node);
    } finally {
      this.tree.release(node);
    }
  };

  /** `mode uid:gid` of the object at a path, the mode octal. */
  readonly seen = (path: string) => this.withNode(path, this.look);

  readonly look = async (node: LocalNode): Promise<string> => {
    const attr = new Attr();
    await this.tree.stat(this.root, node, attr);
    return `${attr.mode.toString(8)} ${attr.uid}:${attr.gid}`;
  };

  #inDirectory<T>(path: string, act: (parent: LocalNode, name: string) => T): Promise<Awaited<T>> {
    const names = path.split('/');
    const name = names.pop()!;
    return this.withNode(names.join('/'), parent => act(parent, name));
  }

  readonly make = (path: string, what: NewNode) =>
    this.#inDirectory(path, async (parent, name) =>
      this.tree.release(await this.tree.make(this.user, parent, nameOf(name), what, new Attr())),
    );

  readonly mkdir = (path: string) => this.make(path, { type: 'directory', mode: 0o755, gid: 1001 });

  readonly touch = (path: string, mode = 0o640, who = this.user) =>
    this.#inDirectory(path, async (parent, name) => {
      const how = { ...rw, exclusive: true, mode, gid: 1001 };
      const { node, file } = await this.tree.create(who, parent, nameOf(name), how, new Attr());
      this.tree.closeFile(file);
      this.tree.release(node);
    });

  readonly link = (from: string, to: string) =>
    this.withNode(from, node =>
      this.#inDirectory(to, (dir, name) => this.tree.link(this.root, node, dir, nameOf(name))),
    );

  readonly rename = (from: string, to: string) =>
    this.#inDirectory(from, (fromDir, name) =>
      this.#inDirectory(to, (toDir, toName) =>
        this.tree.rename(this.root, fromDir, nameOf(name), toDir, nameOf(toName)),
      ),
    );

  readonly unlink = (path: string, kind: 'file' | 'directory' = 'file') =>
    this.#inDirectory(path, (parent, name) => this.tree.unlink(this.root, parent, nameOf(name), kind));

  readonly change = (path: string, what: { mode?: number; uid?: number; gid?: number }) =>
    this.withNode(path, node => this.tree.change(this.root, node, what));

  readonly record = (name: string, ...directory: string[]) =>
    readFileSync(this.at(...directory, meta, name), 'utf8');

  readonly list = (path: string): Promise<{ name: string; type: number }[]> =>
    this.withNode(path, async node => {
      const listed = await this.tree.openDir(this.root, node);
      const into = Buffer.alloc(8192);
      const bytes = await this.tree.readdir(this.root, listed, 0, 0, asOwned(into));
      this.tree.closeDir(listed);
      return parseDirents(into.subarray(0, bytes))
        .map(({ name, type }) => ({ name, type }))
        .filter(({ name }) => name !== '.' && name !== '..');
    });
}
