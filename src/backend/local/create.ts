import { randomBytes } from 'node:crypto';
import { Attr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '#base/attr.ts';
import { EEXIST, EINVAL, EISDIR, ENOENT, EOPNOTSUPP, EPERM, Errno } from '#base/errno.ts';
import { andThen, type MaybePromise, onError, recover } from '#base/maybe-promise.ts';
import { type Name, nameOf } from '#base/name.ts';
import { asOwned } from '#base/owned.ts';
import { O_APPEND, O_DSYNC, O_EXCL, O_PATH, O_RDWR, O_SYNC, RENAME_NOREPLACE } from '#host/constants.ts';
import { type Credentials, type Syscalls, serverCreds } from '#host/syscalls.ts';
import type { GuestForm, HostForm, SecurityModel } from '#security/model.ts';
import type { CallContext } from '../tree.ts';
import type { LocalNode, NodeTable } from './node.ts';
import { unfinishedNameBytes } from './orphans.ts';
import { withFd } from './with-fd.ts';

/** What is to be made. */
interface CreateJob {
  readonly ctx: CallContext;
  readonly dir: LocalNode;
  readonly dirfd: number;
  readonly name: Name;
  readonly want: GuestForm;
  readonly shape: HostForm;
  /** A regular file is opened so; undefined for what is not opened. */
  readonly openFlags: number | undefined;
}

/** An object on its way to its name. */
interface Staged {
  /** Open for reading and writing, or O_PATH for a directory. */
  readonly fd: number;
  /** Undefined for a file that has no name at all. */
  readonly tempName: Name | undefined;
}

/** Names that nobody else has: random for the process, and counted in the last four bytes. */
const tempPrefix = randomBytes(unfinishedNameBytes - 4).toString('hex');
let tempCount = 0;

/**
 * The one safe sequence by which every object comes into being, for every model: make it with the least rights, stamp it,
 * and let nobody see it before it is whole; or, where one system call makes it whole, make it in place. What fails midway
 * is undone.
 */
export class Creator {
  readonly #nodes: NodeTable;
  readonly #model: SecurityModel;

  constructor(nodes: NodeTable, model: SecurityModel) {
    this.#nodes = nodes;
    this.#model = model;
  }

  /**
   * Makes an object that must not exist yet (EEXIST). The node comes back held, with what its qid is made of in `attr`.
   */
  make(ctx: CallContext, dir: LocalNode, name: Name, want: GuestForm, attr: Attr): MaybePromise<LocalNode> {
    const shape = this.#model.hostForm(want);
    return this.#nodes.use(ctx, dir, dirfd => {
      const made = this.#make({ ctx, dir, dirfd, name, want, shape, openFlags: undefined });
      const mode = shape.staged ? want.mode : undefined;
      return andThen(made, pathFd =>
        andThen(this.#nodes.arrive(ctx, dir.volume.sys(ctx), pathFd, attr, dir, name, mode), node => {
          attr.setQidPath(node.pathLow, node.pathHigh);
          return node;
        }),
      );
    });
  }

  /** The same for a regular file, opened with `flags`; `open` takes charge of its descriptor. */
  create<T>(
    ctx: CallContext,
    dir: LocalNode,
    name: Name,
    want: GuestForm,
    flags: number,
    attr: Attr,
    open: (node: LocalNode, fd: number) => T,
  ): MaybePromise<T> {
    const sys = dir.volume.sys(ctx);
    const shape = this.#model.hostForm(want);
    return this.#nodes.use(ctx, dir, dirfd => {
      const made = this.#make({ ctx, dir, dirfd, name, want, shape, openFlags: flags });
      const mode = shape.staged ? want.mode : undefined;
      return andThen(made, opened =>
        withFd(sys, opened, fd =>
          this.#nodes.arriveOpen(ctx, sys, fd, attr, dir, name, mode, node => {
            attr.setQidPath(node.pathLow, node.pathHigh);
            return open(node, fd);
          }),
        ),
      );
    });
  }

  /** A fresh descriptor on the new object: open as it was asked for, or O_PATH. */
  #make(order: CreateJob): MaybePromise<number> {
    return order.shape.staged ? this.#makeAside(order) : this.#makeInPlace(order);
  }

  #makeInPlace(order: CreateJob): MaybePromise<number> {
    const { ctx, dir, dirfd, want } = order;
    const creator = this.#model.credsForCreate(ctx.creds, want.gid, { sys: dir.volume.sys(ctx), fd: dirfd });
    return andThen(creator, as => this.#makeAs(as, order));
  }

  #makeAs(creator: Credentials, { ctx, dir, dirfd, name, want, openFlags }: CreateJob): MaybePromise<number> {
    const sys = dir.volume.sys(ctx);
    const type = want.mode & S_IFMT;
    const bits = want.mode & 0o7777;
    if (openFlags !== undefined) return sys.create(creator, dirfd, name, openFlags | O_EXCL, bits);
    const made =
      type === S_IFDIR
        ? sys.mkdir(creator, dirfd, name, bits)
        : type === S_IFLNK
          ? sys.symlink(creator, dirfd, name, want.target)
          : sys.mknod(creator, dirfd, name, want.mode, want.rdev);
    const stamped = () =>
      andThen(dir.volume.lookup(ctx, serverCreds, dirfd, name), found =>
        withFd(sys, ok(found), fd =>
          andThen(this.#model.setInitialAttrs({ sys, fd }, creator, want), () => fd),
        ),
      );
    return andThen(made, () => onError(stamped, () => discard(sys, dirfd, name, type === S_IFDIR)));
  }

  /** All that may fail comes before the object gets its name. */
  #makeAside(order: CreateJob): MaybePromise<number> {
    const { ctx, dir, dirfd, name, shape } = order;
    const sys = dir.volume.sys(ctx);
    // Refuse early what exists; the publishing step is what decides.
    return andThen(sys.statAt(serverCreds, dirfd, name, new Attr()), found => {
      if (found === 0) throw EEXIST;
      return andThen(this.#startStaged(ctx, dir, dirfd, shape), aside =>
        onError(
          () => withFd(sys, aside.fd, () => this.#finishStaged(order, aside)),
          () =>
            aside.tempName === undefined
              ? undefined
              : discard(sys, dirfd, aside.tempName, shape.type === S_IFDIR),
        ),
      );
    });
  }

  #finishStaged(order: CreateJob, aside: Staged): MaybePromise<number> {
    const { ctx, dir, want, shape } = order;
    const { fd } = aside;
    const target = { sys: dir.volume.sysForNew(ctx), fd };
    const written =
      shape.content === ''
        ? undefined
        : writeAll(dir.volume.sys(ctx), fd, Buffer.from(shape.content, 'latin1'));
    const stamped = andThen(written, () => this.#model.setInitialAttrs(target, ctx.creds, want));
    return andThen(stamped, () => this.#publishOpen(order, aside));
  }

  /** The descriptor at hand will do for a directory and for most open files; others need another. */
  #publishOpen(order: CreateJob, aside: Staged): MaybePromise<number> {
    const { ctx, dir, shape, openFlags } = order;
    const sys = dir.volume.sys(ctx);
    const { fd } = aside;
    // It reads and writes; only writing in a way of its own asks for another.
    const reads = openFlags !== undefined && (openFlags & (O_SYNC | O_DSYNC | O_APPEND)) === 0;
    if (shape.type === S_IFDIR || reads) return andThen(this.#publish(order, aside), () => fd);
    return andThen(dir.volume.sysForNew(ctx).reopen(serverCreds, fd, openFlags ?? O_PATH), other => {
      const published = withFd(sys, other, () => this.#publish(order, aside));
      return andThen(published, () => andThen(sys.close(fd), () => other));
    });
  }

  /** A file without a name where the file system has those, otherwise an object under a name that is hidden. */
  #startStaged(ctx: CallContext, dir: LocalNode, dirfd: number, shape: HostForm): MaybePromise<Staged> {
    const sys = dir.volume.sys(ctx);
    if (shape.type !== S_IFREG || !dir.volume.unnamedFiles) return this.#startNamed(ctx, dir, dirfd, shape);
    return recover<Staged>(
      () => andThen(sys.createUnnamed(serverCreds, dirfd, shape.mode), fd => ({ fd, tempName: undefined })),
      error =>
        andThen(error === EPERM && isRemoved(dir, sys, dirfd), removed => {
          // ext4_new_inode says EPERM where the directory was removed.
          if (removed) throw ENOENT;
          // open(2): a file system without O_TMPFILE answers EOPNOTSUPP, an old kernel EISDIR.
          if (error !== EOPNOTSUPP && error !== EISDIR && error !== EINVAL) throw error;
          dir.volume.unnamedFiles = false;
          return this.#startNamed(ctx, dir, dirfd, shape);
        }),
    );
  }

  #startNamed(ctx: CallContext, dir: LocalNode, dirfd: number, shape: HostForm): MaybePromise<Staged> {
    const sys = dir.volume.sys(ctx);
    const counted = (tempCount++ >>> 0).toString(16).padStart(8, '0');
    const tempName = nameOf(this.#model.reservedPrefix + tempPrefix + counted);
    if (shape.type === S_IFREG) {
      const created = sys.create(serverCreds, dirfd, tempName, O_RDWR | O_EXCL, shape.mode);
      return andThen(created, fd => ({ fd, tempName }));
    }
    return andThen(sys.mkdir(serverCreds, dirfd, tempName, shape.mode), () =>
      onError(
        () => andThen(dir.volume.lookup(ctx, serverCreds, dirfd, tempName), fd => ({ fd: ok(fd), tempName })),
        () => discard(sys, dirfd, tempName, true),
      ),
    );
  }

  /** Gives the finished object its name, unless something has that name already: EEXIST. */
  #publish({ ctx, dir, dirfd, name }: CreateJob, { fd, tempName }: Staged): MaybePromise<void> {
    const sys = dir.volume.sys(ctx);
    if (tempName === undefined) return sys.link(serverCreds, fd, dirfd, name);
    return recover<void>(
      () => sys.rename(serverCreds, dirfd, tempName, dirfd, name, RENAME_NOREPLACE),
      error => {
        // rename(2): a file system that knows no flags answers EINVAL. What exists was refused above; an empty directory
        // made by somebody else in between would be replaced.
        if (error !== EINVAL) throw error;
        return andThen(sys.statAt(serverCreds, dirfd, name, new Attr()), found => {
          if (found === 0) throw EEXIST;
          return sys.rename(serverCreds, dirfd, tempName, dirfd, name, 0);
        });
      },
    );
  }
}

function writeAll(sys: Syscalls, fd: number, bytes: Buffer, at = 0): MaybePromise<void> {
  if (at === bytes.length) return;
  return andThen(sys.write(serverCreds, fd, [asOwned(bytes.subarray(at))], at), count =>
    writeAll(sys, fd, bytes, at + count),
  );
}

function isRemoved(dir: LocalNode, sys: Syscalls, dirfd: number): MaybePromise<boolean> {
  if (dir.volume.local) return dir.volume.statNow(dirfd).nlink === 0;
  const attr = new Attr();
  return andThen(sys.stat(serverCreds, dirfd, attr), () => attr.nlink === 0);
}

function discard(sys: Syscalls, dirfd: number, name: Name, directory: boolean): MaybePromise<void> {
  return recover<void>(
    () => sys.unlink(serverCreds, dirfd, name, directory),
    error => {
      if (error !== ENOENT) throw error;
    },
  );
}

function ok(result: number): number {
  if (result < 0) throw Errno.of(-result);
  return result;
}
