import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { LocalNode } from '#backend/local/node.ts';
import type { CallContext, OpenHow } from '#backend/tree.ts';
import { Attr, S_IFIFO } from '#base/attr.ts';
import { Errno } from '#base/errno.ts';
import { type Name, nameOf } from '#base/name.ts';
import { allocOwned } from '#base/owned.ts';
import { noSession } from '#host/syscalls.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { mapped } from '#security/mapped.ts';
import { passthrough } from '#security/passthrough.ts';
import { contextOf } from '../support/context.ts';
import { withFault } from '../support/intercept-calls.ts';

if (process.getuid!() !== 0) {
  throw new Error('These tests mount file systems: run them as root (sudo npm test).');
}

const models = {
  mapped: () => mapped({ fmode: 0o600, dmode: 0o700 }, () => undefined),
  passthrough: () => passthrough(() => undefined),
};
const rw: OpenHow = { read: true, write: true, truncate: false, sync: 'none' };
const n = (text: string): Name => nameOf(text);
const held = () => readdirSync('/proc/self/fd').length;

/** How system calls of a volume are made. */
const ways = {
  'at once': () => undefined,
  'on the pool': ({ root: { volume } }: LocalTree) => Object.assign(volume, { inline: undefined }),
  'without file handles': ({ root: { volume } }: LocalTree) => {
    closeSync(volume.mountFd);
    volume.mountFd = -1;
  },
} satisfies Record<string, (tree: LocalTree) => unknown>;

interface TempExport {
  readonly tree: LocalTree;
  readonly root: CallContext;
  readonly path: string;
  /** A held node. */
  found(...path: string[]): Promise<LocalNode>;
  /** The same, without its descriptor. */
  lost(...path: string[]): Promise<LocalNode>;
}

/** An operation: prepares its objects; the returned function runs it and releases everything. */
type Deed = (tempExport: TempExport) => Promise<() => Promise<void>>;

const deeds: Record<string, Deed> = {
  'a walk':
    async ({ tree, root }) =>
    async () => {
      const found = await tree.walk(root, tree.root, n('file'), new Attr());
      if (found instanceof Errno) throw found;
      tree.release(found);
    },
  'a look at an object that lost its descriptor': async ({ tree, root, lost }) => {
    const node = await lost('file');
    return async () => {
      try {
        await tree.stat(root, node, new Attr());
      } finally {
        tree.release(node);
      }
    };
  },
  'a look at an object whose directories lost theirs': async ({ tree, root, found }) => {
    const nodes = [await found('dir'), await found('dir', 'sub'), await found('dir', 'sub', 'file')];
    for (const node of nodes) expect(node.evict()).toBe(true);
    return async () => {
      try {
        await tree.stat(root, nodes[2]!, new Attr());
      } finally {
        for (const node of nodes) tree.release(node);
      }
    };
  },
  'opening a file': async ({ tree, root, found }) => {
    const node = await found('file');
    return async () => {
      try {
        tree.closeFile(await tree.open(root, node, { ...rw, truncate: true }));
      } finally {
        tree.release(node);
      }
    };
  },
  'opening and listing a directory': async ({ tree, root, lost }) => {
    const node = await lost('dir');
    return async () => {
      try {
        const dir = await tree.openDir(root, node);
        try {
          await tree.readdir(root, dir, 0, 0, allocOwned(4096));
        } finally {
          tree.closeDir(dir);
        }
      } finally {
        tree.release(node);
      }
    };
  },
  'creating a file': create({}),
  'creating a file that is appended to': create({ append: true, read: false }),
  'creating a file that is written synchronously': create({ sync: 'sync' }),
  'opening a file that exists by creating it': create({ truncate: true }, 'file'),
  'making a directory': make({ type: 'directory', mode: 0o755, gid: 0 }),
  'making a symlink': make({ type: 'symlink', target: 'file', gid: 0 }),
  'making a FIFO': make({ type: 'special', mode: S_IFIFO | 0o644, rdev: 0, gid: 0 }),
  'reading a symlink': async ({ tree, root, lost }) => {
    tree.release(
      await tree.make(root, tree.root, n('link'), { type: 'symlink', target: 'x', gid: 0 }, new Attr()),
    );
    const node = await lost('link');
    return async () => {
      try {
        await tree.readlink(root, node);
      } finally {
        tree.release(node);
      }
    };
  },
  'a link': async ({ tree, root, lost }) => {
    const node = await lost('file');
    return async () => {
      try {
        await tree.link(root, node, tree.root, n('second'));
      } finally {
        tree.release(node);
      }
    };
  },
  'a rename over a file, both of which are known': async ({ tree, root, lost }) => {
    const nodes = [await lost('file'), await lost('other')];
    return async () => {
      try {
        await tree.rename(root, tree.root, n('file'), tree.root, n('other'));
      } finally {
        for (const node of nodes) tree.release(node);
      }
    };
  },
  'removing a directory with leftovers in it': async ({ tree, root, path }) => {
    mkdirSync(join(path, 'empty'));
    const leftover = join(path, 'empty', `.ninepd-new-${'0'.repeat(24)}`);
    mkdirSync(leftover);
    utimesSync(leftover, 1, 1);
    return async () => tree.unlink(root, tree.root, n('empty'), 'directory');
  },
  'a lock': async ({ tree, root, found }) => {
    const node = await found('file');
    const file = await tree.open(root, node, rw);
    return async () => {
      const owner = {};
      const all = { start: 0, length: 0 };
      try {
        await tree.lock(owner, file, { type: 1, ...all });
        await tree.testLock(root, owner, file, { type: 1, ...all });
      } finally {
        tree.forgetLocks(owner, node);
        tree.closeFile(file);
        tree.release(node);
      }
    };
  },
  'closing a new file that somebody else holds': async ({ tree, root, found }) => {
    const how = { ...rw, exclusive: true, mode: 0o644, gid: 0 };
    const { node, file } = await tree.create(root, tree.root, n('new'), how, new Attr());
    const same = await found('new');
    return async () => {
      tree.closeFile(file);
      tree.release(node);
      try {
        await tree.stat(root, same, new Attr());
      } finally {
        tree.release(same);
      }
    };
  },
  'removing a file capability': async ({ tree, found }) => {
    const node = await found('file');
    const user = contextOf(await tree.credentials(noSession, 1000));
    return async () => {
      try {
        await tree.removeXattr(user, node, 'security.capability');
      } finally {
        tree.release(node);
      }
    };
  },
};

function create(how: Partial<OpenHow>, name = 'new'): Deed {
  return async ({ tree, root }) =>
    async () => {
      const whole = { ...rw, ...how, exclusive: false, mode: 0o644, gid: 0 };
      const { node, file } = await tree.create(root, tree.root, n(name), whole, new Attr());
      tree.closeFile(file);
      tree.release(node);
    };
}

function make(what: Parameters<LocalTree['make']>[3]): Deed {
  return async ({ tree, root }) =>
    async () =>
      tree.release(await tree.make(root, tree.root, n('new'), what, new Attr()));
}

describe.each(Object.entries(models))(
  'whichever system call fails, no descriptor is lost, %s',
  (_, model) => {
    let path: string;

    beforeEach(() => {
      path = mkdtempSync(join(tmpdir(), 'ninepd-leaks-'));
    });
    afterEach(() => {
      rmSync(path, { recursive: true });
    });

    async function withTree(
      way: (tree: LocalTree) => unknown,
      act: (tempExport: TempExport) => Promise<void>,
    ): Promise<void> {
      const base = mkdtempSync(join(path, 'tree-'));
      mkdirSync(join(base, 'dir/sub'), { recursive: true });
      for (const name of ['file', 'other', 'dir/sub/file']) writeFileSync(join(base, name), name);
      const tree = await LocalTree.open(base, { descriptors: new FdBudget(64), model: model() });
      way(tree);
      const root = contextOf(await tree.credentials(noSession, 0));
      const found = async (...names: string[]) => {
        let node = tree.root;
        tree.hold(node);
        for (const name of names) {
          const next = await tree.walk(root, node, n(name), new Attr());
          tree.release(node);
          if (next instanceof Errno) throw next;
          node = next;
        }
        return node;
      };
      const lost = async (...names: string[]) => {
        const node = await found(...names);
        expect(node.evict()).toBe(true);
        return node;
      };
      await act({ tree, root, path: base, found, lost });
      tree.close();
    }

    describe.each(Object.entries(ways))('%s', (_way, way) => {
      it.each(Object.entries(deeds))('%s', async (_deed, deed) => {
        let failed = true;
        for (let number = 1; failed; number++) {
          const before = held();
          await withTree(way, async tempExport => {
            const act = await deed(tempExport);
            failed = await withFault(number, () =>
              act().catch(error => {
                if (!(error instanceof Errno)) throw error;
              }),
            );
          });
          await vi.waitFor(() => expect(held()).toBe(before));
        }
      });
    });

    it('a walk to a mount that was not known', async () => {
      let failed = true;
      for (let number = 1; failed; number++) {
        const before = held();
        await withTree(
          () => undefined,
          async ({ tree, root, path: base }) => {
            execFileSync('mount', ['-t', 'tmpfs', 'none', join(base, 'dir')]);
            failed = await withFault(number, async () => {
              try {
                const found = await tree.walk(root, tree.root, n('dir'), new Attr());
                if (!(found instanceof Errno)) tree.release(found);
              } catch (error) {
                if (!(error instanceof Errno)) throw error;
              }
            });
            // Nothing is held any more.
            execFileSync('umount', [join(base, 'dir')]);
          },
        );
        await vi.waitFor(() => expect(held()).toBe(before));
      }
    });
  },
);
