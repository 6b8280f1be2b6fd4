import type { Answer } from '../answer.ts';
import { Attr, S_IFDIR } from '../attr.ts';
import { ENOTDIR, ENOTEMPTY, EPERM } from '../errno.ts';
import { serverCaller } from '../host/syscalls.ts';
import type { Name } from '../name.ts';
import type { SecurityModel } from '../security/model.ts';
import type { Changes } from './changes.ts';
import type { Leftovers } from './leftovers.ts';
import type { LocalNode, NodeTable } from './local-node.ts';
import type { Actor } from './tree.ts';

/** What gives names to objects that exist and takes them away. */
export class Names {
  readonly #nodes: NodeTable;
  readonly #changes: Changes;
  readonly #model: SecurityModel;
  readonly #leftovers: Leftovers;

  constructor(nodes: NodeTable, changes: Changes, model: SecurityModel, leftovers: Leftovers) {
    this.#nodes = nodes;
    this.#changes = changes;
    this.#model = model;
    this.#leftovers = leftovers;
  }

  link(actor: Actor, node: LocalNode, dir: LocalNode, name: Name): Answer<void> {
    if (node.type === S_IFDIR) throw EPERM;
    const { sys } = dir.volume;
    const as = this.#model.runsAs(actor.caller);
    return this.#changes.aroundAll(actor, [node, dir], () =>
      this.#nodes.use(node, fd => this.#nodes.use(dir, dirfd => sys.link(as, fd, dirfd, name))),
    );
  }

  async rename(actor: Actor, fromDir: LocalNode, from: Name, toDir: LocalNode, to: Name): Promise<void> {
    if (fromDir.type !== S_IFDIR) throw ENOTDIR;
    const { sys } = fromDir.volume;
    const as = this.#model.runsAs(actor.caller);
    const moved = await this.#known(fromDir, from);
    const victim = await this.#known(toDir, to);
    try {
      await this.#changes.aroundAll(actor, [fromDir, toDir, moved, victim], () =>
        this.#nodes.use(fromDir, fromfd =>
          this.#nodes.use(toDir, tofd =>
            this.#emptying(toDir, tofd, to, () => sys.rename(as, fromfd, from, tofd, to, 0)),
          ),
        ),
      );
      if (moved && moved !== victim) this.#nodes.moved(moved, toDir, to);
      if (victim && victim !== moved) victim.unlinked = true;
    } finally {
      if (moved) this.#nodes.release(moved);
      if (victim) this.#nodes.release(victim);
    }
  }

  async unlink(actor: Actor, dir: LocalNode, name: Name, kind: 'file' | 'directory'): Promise<void> {
    if (dir.type !== S_IFDIR) throw ENOTDIR;
    const { sys } = dir.volume;
    const as = this.#model.runsAs(actor.caller);
    const victim = await this.#known(dir, name);
    try {
      await this.#changes.aroundAll(actor, [dir, victim], () =>
        this.#nodes.use(dir, dirfd =>
          this.#emptying(dir, dirfd, name, () => sys.unlink(as, dirfd, name, kind === 'directory')),
        ),
      );
      if (victim) victim.unlinked = true;
    } finally {
      if (victim) this.#nodes.release(victim);
    }
  }

  /** Runs what wants the directory `name` empty: what a killed server has left in it does not count. */
  async #emptying(dir: LocalNode, dirfd: number, name: Name, act: () => Answer<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (error !== ENOTEMPTY || !(await this.#leftovers.clearAll(dir.volume.sys, dirfd, name))) throw error;
      await act();
    }
  }

  /**
   * The node of an entry, held and with its descriptor, if a client has it: what is about to lose its name must not be
   * left with a file handle that will lead nowhere.
   */
  async #known(dir: LocalNode, name: Name): Promise<LocalNode | undefined> {
    const attr = new Attr();
    const found = await this.#nodes.use(dir, dirfd => dir.volume.sys.statAt(serverCaller, dirfd, name, attr));
    const node = found < 0 ? undefined : this.#nodes.find(attr);
    if (!node) return undefined;
    this.#nodes.hold(node);
    try {
      await this.#nodes.use(node, () => undefined);
      return node;
    } catch {
      this.#nodes.release(node);
      return undefined;
    }
  }

  async isEntry(dir: LocalNode, name: Name, node: LocalNode): Promise<boolean> {
    const attr = new Attr();
    const found = await this.#nodes.use(dir, dirfd => dir.volume.sys.statAt(serverCaller, dirfd, name, attr));
    return found === 0 && this.#nodes.find(attr) === node;
  }
}
