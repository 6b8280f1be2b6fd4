import { Attr, S_IFDIR } from '#base/attr.ts';
import { EEXIST, ENOTDIR, ENOTEMPTY, EPERM } from '#base/errno.ts';
import { andFinally, andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import type { Name } from '#base/name.ts';
import { isLight } from '#host/local.ts';
import { serverCreds } from '#host/syscalls.ts';
import type { SecurityModel } from '#security/model.ts';
import type { CallContext } from '../tree.ts';
import type { Changes } from './changes.ts';
import type { LocalNode } from './node.ts';
import { inoOf, recordedDir, type Targets } from './node-record.ts';
import type { NodeTable } from './node-table.ts';
import type { Orphans } from './orphans.ts';
import type { RecordedNames } from './recorded-names.ts';

/** Links, renames and unlinks. */
export class Namespace {
  readonly #nodes: NodeTable;
  readonly #changes: Changes;
  readonly #model: SecurityModel;
  readonly #orphans: Orphans;
  readonly #targets: Targets;
  readonly #records: RecordedNames | undefined;

  constructor(
    nodes: NodeTable,
    changes: Changes,
    model: SecurityModel,
    orphans: Orphans,
    targets: Targets,
    records: RecordedNames | undefined,
  ) {
    this.#nodes = nodes;
    this.#changes = changes;
    this.#model = model;
    this.#orphans = orphans;
    this.#targets = targets;
    this.#records = records;
  }

  link(ctx: CallContext, node: LocalNode, dir: LocalNode, name: Name): MaybePromise<void> {
    if (node.type === S_IFDIR) throw EPERM;
    const sys = dir.volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    const linked = this.#changes.around(ctx, [node, dir], () =>
      this.#nodes.use(ctx, node, fd =>
        this.#nodes.use(ctx, dir, dirfd =>
          this.#linking(ctx, node, dir, dirfd, name, () => sys.link(creds, fd, dirfd, name)),
        ),
      ),
    );
    return andThen(linked, () => this.#nodes.names.seen(node, dir, name, true));
  }

  rename(ctx: CallContext, fromDir: LocalNode, from: Name, toDir: LocalNode, to: Name): MaybePromise<void> {
    if (fromDir.type !== S_IFDIR) throw ENOTDIR;
    const sys = fromDir.volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    const rename = (fromfd: number, tofd: number) => sys.rename(creds, fromfd, from, tofd, to, 0);
    return this.#withKnown(ctx, fromDir, from, moved =>
      this.#withKnown(ctx, toDir, to, victim => {
        const renamed = this.#changes.around(ctx, [fromDir, toDir, moved, victim], () =>
          this.#nodes.use(ctx, fromDir, fromfd =>
            this.#nodes.use(ctx, toDir, tofd =>
              this.#retryEmptied(ctx, toDir, tofd, to, () =>
                this.#moving(ctx, fromDir, fromfd, from, toDir, tofd, to, victim, () => rename(fromfd, tofd)),
              ),
            ),
          ),
        );
        return andThen(renamed, () => {
          // rename(2) over another link of the same file does nothing.
          if (moved === victim) return;
          const { names } = this.#nodes;
          if (victim) names.removed(victim, toDir, to);
          if (!moved) return;
          names.removed(moved, fromDir, from);
          names.seen(moved, toDir, to, true);
        });
      }),
    );
  }

  unlink(ctx: CallContext, dir: LocalNode, name: Name, kind: 'file' | 'directory'): MaybePromise<void> {
    if (dir.type !== S_IFDIR) throw ENOTDIR;
    const sys = dir.volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    return this.#withKnown(ctx, dir, name, victim => {
      const unlinked = this.#changes.around(ctx, [dir, victim], () =>
        this.#nodes.use(ctx, dir, dirfd =>
          this.#retryEmptied(ctx, dir, dirfd, name, () =>
            this.#removing(ctx, dir, dirfd, name, victim, () =>
              sys.unlink(creds, dirfd, name, kind === 'directory'),
            ),
          ),
        ),
      );
      return andThen(unlinked, () => {
        if (victim) this.#nodes.names.removed(victim, dir, name);
      });
    });
  }

  /** Runs a link(2) of `node`, whose record gets the name too. */
  #linking(
    ctx: CallContext,
    node: LocalNode,
    dir: LocalNode,
    dirfd: number,
    name: Name,
    link: () => MaybePromise<void>,
  ): MaybePromise<void> {
    const records = this.#records;
    if (!records) return link();
    const to = recordedDir(ctx, this.#nodes, dir, dirfd);
    const { parent, name: from } = node;
    // What was read is kept with the node: it counts if its name is not known.
    return andThen(this.#targets.record(ctx, node)!.read(), stored =>
      parent && from !== undefined
        ? this.#nodes.use(ctx, parent, fd =>
            records.link(
              { dir: recordedDir(ctx, this.#nodes, parent, fd), name: from },
              stored,
              inoOf(node),
              to,
              name,
              link,
            ),
          )
        : records.link(undefined, stored, inoOf(node), to, name, link),
    );
  }

  /** Runs a rename(2), with which the record moves. The victim's is kept with its node. */
  #moving(
    ctx: CallContext,
    fromDir: LocalNode,
    fromfd: number,
    from: Name,
    toDir: LocalNode,
    tofd: number,
    to: Name,
    victim: LocalNode | undefined,
    rename: () => MaybePromise<void>,
  ): MaybePromise<void> {
    const records = this.#records;
    if (!records) return rename();
    return andThen(victim && this.#targets.record(ctx, victim)!.read(), () =>
      records.move(
        recordedDir(ctx, this.#nodes, fromDir, fromfd),
        from,
        recordedDir(ctx, this.#nodes, toDir, tofd),
        to,
        rename,
      ),
    );
  }

  /** Runs an unlink(2), with which the record goes. The victim's is kept with its node. */
  #removing(
    ctx: CallContext,
    dir: LocalNode,
    dirfd: number,
    name: Name,
    victim: LocalNode | undefined,
    unlink: () => MaybePromise<void>,
  ): MaybePromise<void> {
    const records = this.#records;
    if (!records) return unlink();
    return andThen(victim && this.#targets.record(ctx, victim)!.read(), () =>
      records.remove(recordedDir(ctx, this.#nodes, dir, dirfd), name, unlink),
    );
  }

  /**
   * Runs `act`; if it fails because the directory `name` has only orphans and metadata in it, removes them and runs it again. `act`
   * holds no lock of records meanwhile.
   */
  #retryEmptied(
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
   * Runs `act` with the node of an entry if there is one, referenced and with a descriptor: an object that loses its name may
   * not leave a node with a file handle that leads nowhere. Of large objects without a node a descriptor is held, so that their
   * blocks are freed by close(2), and not while `act` has a directory locked.
   */
  #withKnown(
    ctx: CallContext,
    dir: LocalNode,
    name: Name,
    act: (node: LocalNode | undefined) => MaybePromise<void>,
  ): MaybePromise<void> {
    const attr = new Attr();
    return andThen(this.#lookUp(ctx, dir, name, attr), node => {
      if (!node) {
        const exists = attr.nlink > 0;
        const large = exists && !isLight(attr) && dir.volume.local;
        return large ? this.#withEntry(ctx, dir, name, () => act(undefined)) : act(undefined);
      }
      this.#nodes.hold(node);
      return andFinally(
        () => this.#nodes.tryUse(ctx, node, fd => act(fd < 0 ? undefined : node)),
        () => this.#nodes.release(node),
      );
    });
  }

  async #withEntry(
    ctx: CallContext,
    dir: LocalNode,
    name: Name,
    act: () => MaybePromise<void>,
  ): Promise<void> {
    const { volume } = dir;
    const fd = await this.#nodes.use(ctx, dir, dirfd => volume.lookup(ctx, serverCreds, dirfd, name));
    try {
      await act();
    } finally {
      if (fd >= 0) await volume.close(fd);
    }
  }

  /** The node of an entry, if there is one. `attr` gets the entry's attributes; nlink is 0 if there is no entry. */
  #lookUp(ctx: CallContext, dir: LocalNode, name: Name, attr: Attr): MaybePromise<LocalNode | undefined> {
    const sys = dir.volume.sys(ctx);
    const found = this.#nodes.use(ctx, dir, dirfd => sys.statAt(serverCreds, dirfd, name, attr));
    return andThen(found, result => {
      const node = result < 0 ? undefined : this.#nodes.find(attr);
      if (node) this.#nodes.names.seen(node, dir, name, attr.nlink > 1);
      return node;
    });
  }

  isEntry(ctx: CallContext, dir: LocalNode, name: Name, node: LocalNode): MaybePromise<boolean> {
    return andThen(this.#lookUp(ctx, dir, name, new Attr()), found => found === node);
  }
}

/** rename(2) and rmdir(2) return ENOTEMPTY or EEXIST; xfs returns EEXIST for a rename over a directory that is not empty. */
function isNotEmpty(error: unknown): boolean {
  return error === ENOTEMPTY || error === EEXIST;
}
