import { Attr, S_IFDIR } from '#base/attr.ts';
import { EEXIST, ENOTDIR, ENOTEMPTY, EPERM } from '#base/errno.ts';
import { andFinally, andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import type { Name } from '#base/name.ts';
import { isLight } from '#host/local.ts';
import { serverCreds } from '#host/syscalls.ts';
import type { SecurityModel } from '#security/model.ts';
import type { CallContext } from '../tree.ts';
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

  link(ctx: CallContext, node: LocalNode, dir: LocalNode, name: Name): MaybePromise<void> {
    if (node.type === S_IFDIR) throw EPERM;
    const sys = dir.volume.sys(ctx);
    const as = this.#model.credsFor(ctx.creds);
    const linked = this.#changes.aroundAll(ctx, [node, dir], () =>
      this.#nodes.use(ctx, node, fd => this.#nodes.use(ctx, dir, dirfd => sys.link(as, fd, dirfd, name))),
    );
    return andThen(linked, () => this.#nodes.places.seenAt(node, dir, name, true));
  }

  rename(ctx: CallContext, fromDir: LocalNode, from: Name, toDir: LocalNode, to: Name): MaybePromise<void> {
    if (fromDir.type !== S_IFDIR) throw ENOTDIR;
    const sys = fromDir.volume.sys(ctx);
    const as = this.#model.credsFor(ctx.creds);
    return this.#withKnown(ctx, fromDir, from, moved =>
      this.#withKnown(ctx, toDir, to, victim => {
        const renamed = this.#changes.aroundAll(ctx, [fromDir, toDir, moved, victim], () =>
          this.#nodes.use(ctx, fromDir, fromfd =>
            this.#nodes.use(ctx, toDir, tofd =>
              this.#emptying(ctx, toDir, tofd, to, () => sys.rename(as, fromfd, from, tofd, to, 0)),
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

  unlink(ctx: CallContext, dir: LocalNode, name: Name, kind: 'file' | 'directory'): MaybePromise<void> {
    if (dir.type !== S_IFDIR) throw ENOTDIR;
    const sys = dir.volume.sys(ctx);
    const as = this.#model.credsFor(ctx.creds);
    return this.#withKnown(ctx, dir, name, victim => {
      const gone = this.#changes.aroundAll(ctx, [dir, victim], () =>
        this.#nodes.use(ctx, dir, dirfd =>
          this.#emptying(ctx, dir, dirfd, name, () => sys.unlink(as, dirfd, name, kind === 'directory')),
        ),
      );
      return andThen(gone, () => {
        if (victim) this.#nodes.places.lost(victim, dir, name);
      });
    });
  }

  /** Runs what wants the directory `name` empty: what a killed server has left in it does not count. */
  #emptying(
    ctx: CallContext,
    dir: LocalNode,
    dirfd: number,
    name: Name,
    act: () => MaybePromise<void>,
  ): MaybePromise<void> {
    return recover<void>(act, async error => {
      if (!isNotEmpty(error) || !(await this.#orphans.clearAll(ctx, dir.volume, dirfd, name))) throw error;
      await act();
    });
  }

  /**
   * Runs `act` with the node of an entry, held and with its descriptor, if a client has it: what is about to lose its name
   * must not be left with a file handle that will lead nowhere. Of others a descriptor is held when they are large: then close(2)
   * frees their blocks and not `act`, which may have a directory locked.
   */
  #withKnown<T>(
    ctx: CallContext,
    dir: LocalNode,
    name: Name,
    act: (node: LocalNode | undefined) => MaybePromise<T>,
  ): MaybePromise<T> {
    const attr = new Attr();
    return andThen(this.#lookFor(ctx, dir, name, attr), node => {
      if (!node)
        return attr.nlink === 0 || isLight(attr) ? act(undefined) : this.#holding(ctx, dir, name, act);
      this.#nodes.hold(node);
      return andFinally(
        () => this.#nodes.keeping(ctx, node, has => act(has ? node : undefined)),
        () => this.#nodes.release(node),
      );
    });
  }

  /** Runs `act` while a descriptor of the entry is held, and is done when that is closed. */
  #holding<T>(
    ctx: CallContext,
    dir: LocalNode,
    name: Name,
    act: (node: undefined) => MaybePromise<T>,
  ): MaybePromise<T> {
    const { volume } = dir;
    if (!volume.local) return act(undefined);
    return andThen(
      this.#nodes.use(ctx, dir, dirfd => volume.lookup(ctx, serverCreds, dirfd, name)),
      fd =>
        andFinally(
          () => act(undefined),
          () => (fd < 0 ? undefined : volume.close(fd)),
        ),
    );
  }

  /** `attr` receives the entry's attributes, and has no links where there is none. */
  #lookFor(
    ctx: CallContext,
    dir: LocalNode,
    name: Name,
    attr = new Attr(),
  ): MaybePromise<LocalNode | undefined> {
    const sys = dir.volume.sys(ctx);
    const found = this.#nodes.use(ctx, dir, dirfd => sys.statAt(serverCreds, dirfd, name, attr));
    return andThen(found, result => {
      const node = result < 0 ? undefined : this.#nodes.find(attr);
      if (node) this.#nodes.places.seenAt(node, dir, name, attr.nlink > 1);
      return node;
    });
  }

  isEntry(ctx: CallContext, dir: LocalNode, name: Name, node: LocalNode): MaybePromise<boolean> {
    return andThen(this.#lookFor(ctx, dir, name), found => found === node);
  }
}

/** rename(2) and rmdir(2) say either of a directory that is not empty; xfs says EEXIST of one that is renamed over. */
function isNotEmpty(error: unknown): boolean {
  return error === ENOTEMPTY || error === EEXIST;
}
