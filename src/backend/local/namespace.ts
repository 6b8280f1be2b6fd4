import { Attr, S_IFDIR } from '#base/attr.ts';
import { EEXIST, ENOTDIR, ENOTEMPTY, EPERM } from '#base/errno.ts';
import { andFinally, andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import type { Name } from '#base/name.ts';
import { isLight } from '#host/local.ts';
import { serverCreds } from '#host/syscalls.ts';
import type { SecurityModel } from '#security/model.ts';
import type { Actor } from '../tree.ts';
import type { Changes } from './changes.ts';
import type { LocalNode, NodeTable } from './node.ts';
import type { Orphans } from './orphans.ts';

/** What gives names to objects that exist and takes them away. */
export class Namespace {
  readonly #nodes: NodeTable;
  readonly #changes: Changes;
  readonly #model: SecurityModel;
  readonly #orphans: Orphans;

  constructor(nodes: NodeTable, changes: Changes, model: SecurityModel, orphans: Orphans) {
    this.#nodes = nodes;
    this.#changes = changes;
    this.#model = model;
    this.#orphans = orphans;
  }

  link(actor: Actor, node: LocalNode, dir: LocalNode, name: Name): MaybePromise<void> {
    if (node.type === S_IFDIR) throw EPERM;
    const { sys } = dir.volume;
    const as = this.#model.credsFor(actor.creds);
    const linked = this.#changes.aroundAll(actor, [node, dir], () =>
      this.#nodes.use(node, fd => this.#nodes.use(dir, dirfd => sys.link(as, fd, dirfd, name))),
    );
    return andThen(linked, () => this.#nodes.places.seenAt(node, dir, name, true));
  }

  rename(actor: Actor, fromDir: LocalNode, from: Name, toDir: LocalNode, to: Name): MaybePromise<void> {
    if (fromDir.type !== S_IFDIR) throw ENOTDIR;
    const { sys } = fromDir.volume;
    const as = this.#model.credsFor(actor.creds);
    return this.#withKnown(fromDir, from, moved =>
      this.#withKnown(toDir, to, victim => {
        const renamed = this.#changes.aroundAll(actor, [fromDir, toDir, moved, victim], () =>
          this.#nodes.use(fromDir, fromfd =>
            this.#nodes.use(toDir, tofd =>
              this.#emptying(toDir, tofd, to, () => sys.rename(as, fromfd, from, tofd, to, 0)),
            ),
          ),
        );
        return andThen(renamed, () => {
          // rename(2) of one link over another of the same file does nothing.
          if (moved === victim) return;
          const { places } = this.#nodes;
          if (victim) places.lost(victim, toDir, to);
          if (!moved) return;
          places.lost(moved, fromDir, from);
          places.seenAt(moved, toDir, to, true);
        });
      }),
    );
  }

  unlink(actor: Actor, dir: LocalNode, name: Name, kind: 'file' | 'directory'): MaybePromise<void> {
    if (dir.type !== S_IFDIR) throw ENOTDIR;
    const { sys } = dir.volume;
    const as = this.#model.credsFor(actor.creds);
    return this.#withKnown(dir, name, victim => {
      const gone = this.#changes.aroundAll(actor, [dir, victim], () =>
        this.#nodes.use(dir, dirfd =>
          this.#emptying(dir, dirfd, name, () => sys.unlink(as, dirfd, name, kind === 'directory')),
        ),
      );
      return andThen(gone, () => {
        if (victim) this.#nodes.places.lost(victim, dir, name);
      });
    });
  }

  /** Runs what wants the directory `name` empty: what a killed server has left in it does not count. */
  #emptying(dir: LocalNode, dirfd: number, name: Name, act: () => MaybePromise<void>): MaybePromise<void> {
    return recover<void>(act, async error => {
      if (!isNotEmpty(error) || !(await this.#orphans.clearAll(dir.volume.sys, dirfd, name))) throw error;
      await act();
    });
  }

  /**
   * Runs `act` with the node of an entry, held and with its descriptor, if a client has it: what is about to lose its name
   * must not be left with a file handle that will lead nowhere. Of others a descriptor is held when they are large: then close(2)
   * frees their blocks and not `act`, which may have a directory locked.
   */
  #withKnown<T>(
    dir: LocalNode,
    name: Name,
    act: (node: LocalNode | undefined) => MaybePromise<T>,
  ): MaybePromise<T> {
    const attr = new Attr();
    return andThen(this.#lookFor(dir, name, attr), node => {
      if (!node) return attr.nlink === 0 || isLight(attr) ? act(undefined) : this.#holding(dir, name, act);
      this.#nodes.hold(node);
      return andFinally(
        () => this.#nodes.keeping(node, has => act(has ? node : undefined)),
        () => this.#nodes.release(node),
      );
    });
  }

  /** Runs `act` while a descriptor of the entry is held, and is done when that is closed. */
  #holding<T>(dir: LocalNode, name: Name, act: (node: undefined) => MaybePromise<T>): MaybePromise<T> {
    const { sys, local } = dir.volume;
    if (!local) return act(undefined);
    return andThen(
      this.#nodes.use(dir, dirfd => sys.lookup(serverCreds, dirfd, name)),
      fd =>
        andFinally(
          () => act(undefined),
          () => (fd < 0 ? undefined : sys.close(fd)),
        ),
    );
  }

  /** `attr` receives the entry's attributes, and has no links where there is none. */
  #lookFor(dir: LocalNode, name: Name, attr = new Attr()): MaybePromise<LocalNode | undefined> {
    const { sys } = dir.volume;
    const found = this.#nodes.use(dir, dirfd => sys.statAt(serverCreds, dirfd, name, attr));
    return andThen(found, result => {
      const node = result < 0 ? undefined : this.#nodes.find(attr);
      if (node) this.#nodes.places.seenAt(node, dir, name, attr.nlink > 1);
      return node;
    });
  }

  isEntry(dir: LocalNode, name: Name, node: LocalNode): MaybePromise<boolean> {
    return andThen(this.#lookFor(dir, name), found => found === node);
  }
}

/** rename(2) and rmdir(2) say either of a directory that is not empty; xfs says EEXIST of one that is renamed over. */
function isNotEmpty(error: unknown): boolean {
  return error === ENOTEMPTY || error === EEXIST;
}
