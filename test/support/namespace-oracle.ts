import {
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import type { MemoryNode } from '#backend/memory/memory-node.ts';
import type { MemoryTree } from '#backend/memory/memory-tree.ts';
import { Attr } from '#base/attr.ts';
import { Errno } from '#base/errno.ts';
import { nameOf } from '#base/name.ts';
import { contextOf } from './context.ts';

/** Deterministic random numbers below `below` (mulberry32). */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return below => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

type Path = readonly string[];

export type Step =
  | { readonly act: 'create' | 'mkdir' | 'symlink' | 'unlink' | 'rmdir'; readonly path: Path }
  | { readonly act: 'rename' | 'link'; readonly path: Path; readonly to: Path };

const acts = ['create', 'mkdir', 'mkdir', 'symlink', 'unlink', 'rmdir', 'rename', 'rename', 'link'] as const;

/** Operations on few names, at most three levels deep, so that they collide often. */
export function randomSteps(next: (below: number) => number, count: number): Step[] {
  const path = (): Path => Array.from({ length: 1 + next(3) }, () => 'abc'[next(3)]!);
  return Array.from({ length: count }, () => {
    const act = acts[next(acts.length)]!;
    return act === 'rename' || act === 'link' ? { act, path: path(), to: path() } : { act, path: path() };
  });
}

/** Runs steps on a directory of the host; a result is 0 or an errno. */
export class HostDirectory {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  run(step: Step): number {
    const at = (path: Path) => join(this.#root, ...path);
    try {
      // The host would follow a symlink; the tree, like a guest's kernel, walks components.
      for (const path of 'to' in step ? [step.path, step.to] : [step.path]) this.#refuseLinks(path);
      switch (step.act) {
        case 'create':
          closeSync(openSync(at(step.path), 'wx'));
          break;
        case 'mkdir':
          mkdirSync(at(step.path));
          break;
        case 'symlink':
          symlinkSync('nowhere', at(step.path));
          break;
        case 'unlink':
          unlinkSync(at(step.path));
          break;
        case 'rmdir':
          rmdirSync(at(step.path));
          break;
        case 'rename':
          renameSync(at(step.path), at(step.to));
          break;
        case 'link':
          linkSync(at(step.path), at(step.to));
      }
      return 0;
    } catch (error) {
      return -(error as NodeJS.ErrnoException).errno!;
    }
  }

  #refuseLinks(path: Path): void {
    for (let depth = 1; depth < path.length; depth++) {
      const stat = lstatSync(join(this.#root, ...path.slice(0, depth)));
      if (!stat.isDirectory()) throw Object.assign(new Error(), { errno: -20 });
    }
  }

  list(): string[] {
    return readdirSync(this.#root, { recursive: true, encoding: 'utf8' })
      .map(name => {
        const stat = lstatSync(join(this.#root, name));
        return `${name} ${((stat.mode & 0o170000) >>> 0).toString(8)} ${stat.isDirectory() ? '' : stat.nlink}`;
      })
      .sort();
  }
}

/** Runs the same steps on a tree in memory. */
export class MemoryDirectory {
  readonly #tree: MemoryTree;

  constructor(tree: MemoryTree) {
    this.#tree = tree;
  }

  run(step: Step): number {
    try {
      this.#run(step);
      return 0;
    } catch (error) {
      if (error instanceof Errno) return error.code;
      throw error;
    }
  }

  #run(step: Step): void {
    const tree = this.#tree;
    const actor = contextOf({ uid: 0, gid: 0, groups: [] });
    const attr = new Attr();
    const dir = this.#directory(step.path);
    const toDir = 'to' in step ? this.#directory(step.to) : dir;
    const name = nameOf(step.path.at(-1)!);
    const how = {
      read: false,
      write: true,
      truncate: false,
      sync: 'none',
      exclusive: true,
      mode: 0o644,
      gid: 0,
    } as const;
    switch (step.act) {
      case 'create':
        tree.create(actor, dir, name, how, attr);
        break;
      case 'mkdir':
        tree.make(actor, dir, name, { type: 'directory', mode: 0o755, gid: 0 }, attr);
        break;
      case 'symlink':
        tree.make(actor, dir, name, { type: 'symlink', target: 'nowhere', gid: 0 }, attr);
        break;
      case 'unlink':
        tree.unlink(actor, dir, name, 'file');
        break;
      case 'rmdir':
        tree.unlink(actor, dir, name, 'directory');
        break;
      case 'rename':
        tree.rename(actor, dir, name, toDir, nameOf(step.to.at(-1)!));
        break;
      case 'link': {
        const node = this.#walk(dir, step.path.at(-1)!);
        tree.link(actor, node, toDir, nameOf(step.to.at(-1)!));
      }
    }
  }

  #walk(dir: MemoryNode, name: string): MemoryNode {
    const found = this.#tree.walk(contextOf({ uid: 0, gid: 0, groups: [] }), dir, nameOf(name), new Attr());
    if (found instanceof Errno) throw found;
    this.#tree.release(found);
    return found;
  }

  /** The directory that holds the last component of a path. */
  #directory(path: Path): MemoryNode {
    let dir = this.#tree.root;
    for (const name of path.slice(0, -1)) dir = this.#walk(dir, name);
    if (!dir.entries) throw Errno.of(20);
    return dir;
  }

  list(): string[] {
    const lines: string[] = [];
    const visit = (dir: MemoryNode, prefix: string) => {
      for (const name of ['a', 'b', 'c']) {
        const node = dir.entries?.get(nameOf(name));
        if (!node) continue;
        lines.push(`${prefix}${name} ${node.type.toString(8)} ${node.entries ? '' : node.nlink}`);
        visit(node, `${prefix}${name}/`);
      }
    };
    visit(this.#tree.root, '');
    return lines.sort();
  }
}
