import { randomBytes } from 'node:crypto';
import { type Answer, andThen, attempt, forEach, recover } from '../answer.ts';
import { Attr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../attr.ts';
import { EEXIST, EINVAL, EISDIR, ENOENT, EOPNOTSUPP, EPERM, Errno } from '../errno.ts';
import { O_APPEND, O_DSYNC, O_EXCL, O_PATH, O_RDWR, O_SYNC, RENAME_NOREPLACE } from '../host/constants.ts';
import { type Caller, serverCaller } from '../host/syscalls.ts';
import { type Name, nameOf } from '../name.ts';
import { asOwned } from '../owned.ts';
import type { SecurityModel, Shape, Want } from '../security/model.ts';
import { unfinishedNameBytes } from './leftovers.ts';
import type { LocalNode, NodeTable } from './local-node.ts';

/** What `make` was asked for. */
interface Order {
  readonly caller: Caller;
  readonly dir: LocalNode;
  readonly dirfd: number;
  readonly name: Name;
  readonly want: Want;
  readonly shape: Shape;
  /** Opens a regular file at once. */
  readonly openFlags: number | undefined;
}

/** A new object: an O_PATH descriptor, or one that is open as it was asked for, or both; −1 for the absent one. */
interface Made {
  readonly pathFd: number;
  readonly fd: number;
}

/** An object on its way to its name. */
interface Aside {
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
export class Maker {
  readonly #nodes: NodeTable;
  readonly #model: SecurityModel;

  constructor(nodes: NodeTable, model: SecurityModel) {
    this.#nodes = nodes;
    this.#model = model;
  }

  /**
   * Makes an object that must not exist yet (EEXIST). With `openFlags` a regular file comes back open as `fd`, otherwise that
   * is −1. The node comes back held, with what its qid is made of in `attr`; an open one may have no descriptor of its own yet.
   */
  make(
    caller: Caller,
    dir: LocalNode,
    name: Name,
    want: Want,
    openFlags: number | undefined,
    attr: Attr,
  ): Answer<{ node: LocalNode; fd: number }> {
    const shape = this.#model.shape(want);
    return this.#nodes.use(dir, dirfd => {
      const order: Order = { caller, dir, dirfd, name, want, shape, openFlags };
      const made = shape.aside ? this.#makeAside(order) : this.#makeInPlace(order);
      return andThen(made, done => this.#toNode(order, done, attr));
    });
  }

  #toNode(
    { dir, name, want, shape }: Order,
    made: Made,
    attr: Attr,
  ): Answer<{ node: LocalNode; fd: number }> {
    const { sys } = dir.volume;
    const { fd, pathFd } = made;
    return attempt(
      () =>
        andThen(sys.stat(serverCaller, pathFd >= 0 ? pathFd : fd, attr), () => {
          // On the host it may be a file that stands for something else.
          if (shape.aside) attr.mode = want.mode;
          return andThen(this.#adopt(dir, name, made, attr), node => {
            attr.setQidPath(node.pathLow, node.pathHigh);
            return { node, fd };
          });
        }),
      () => closeAll(dir, pathFd, fd),
    );
  }

  #adopt(dir: LocalNode, name: Name, { fd, pathFd }: Made, attr: Attr): Answer<LocalNode> {
    if (pathFd >= 0) return this.#nodes.adopt(pathFd, attr, dir, name);
    const node = this.#nodes.adoptOpen(attr, dir, name);
    if (node) return node;
    const { sys } = dir.volume;
    return andThen(sys.reopen(serverCaller, fd, O_PATH), own =>
      attempt(
        () => this.#nodes.adopt(own, attr, dir, name),
        () => sys.close(own),
      ),
    );
  }

  #makeInPlace(order: Order): Answer<Made> {
    const { caller, dir, dirfd, name, want, openFlags } = order;
    const { sys } = dir.volume;
    const maker = this.#model.makesAs(caller, want.gid);
    const type = want.mode & S_IFMT;
    const bits = want.mode & 0o7777;
    if (openFlags !== undefined) {
      return andThen(sys.create(maker, dirfd, name, openFlags | O_EXCL, bits), fd => ({ fd, pathFd: -1 }));
    }
    const made =
      type === S_IFDIR
        ? sys.mkdir(maker, dirfd, name, bits)
        : type === S_IFLNK
          ? sys.symlink(maker, dirfd, name, want.target)
          : sys.mknod(maker, dirfd, name, want.mode, want.rdev);
    return andThen(made, () =>
      attempt(
        () =>
          andThen(sys.lookup(serverCaller, dirfd, name), found => this.#stampMade(order, maker, ok(found))),
        () => discard(dir, dirfd, name, type === S_IFDIR),
      ),
    );
  }

  #stampMade({ dir, want }: Order, maker: Caller, pathFd: number): Answer<Made> {
    const { sys } = dir.volume;
    return attempt(
      () => andThen(this.#model.stamp({ sys, fd: pathFd }, maker, want), () => ({ fd: -1, pathFd })),
      () => sys.close(pathFd),
    );
  }

  /** All that may fail comes before the object gets its name. */
  #makeAside(order: Order): Answer<Made> {
    const { dir, dirfd, name, shape } = order;
    const { sys } = dir.volume;
    // Refuse early what exists; the publishing step is what decides.
    return andThen(sys.statAt(serverCaller, dirfd, name, new Attr()), found => {
      if (found === 0) throw EEXIST;
      return andThen(this.#startAside(dir, dirfd, shape), aside =>
        attempt(
          () => this.#finishAside(order, aside),
          () =>
            aside.tempName === undefined
              ? undefined
              : discard(dir, dirfd, aside.tempName, shape.type === S_IFDIR),
        ),
      );
    });
  }

  #finishAside(order: Order, aside: Aside): Answer<Made> {
    const { caller, dir, want, shape } = order;
    const { fd } = aside;
    const target = { sys: dir.volume.sys, fd };
    return attempt(
      () =>
        andThen(
          shape.content === '' ? undefined : writeAll(dir, fd, Buffer.from(shape.content, 'latin1')),
          () =>
            andThen(this.#model.stamp(target, caller, want), () =>
              andThen(this.#wanted(order, fd), made =>
                attempt(
                  () =>
                    andThen(this.#publish(order, aside), () => {
                      const kept = made.fd === fd || made.pathFd === fd;
                      return andThen(kept ? undefined : dir.volume.sys.close(fd), () => made);
                    }),
                  () => closeAll(dir, ...[made.fd, made.pathFd].filter(other => other !== fd)),
                ),
              ),
            ),
        ),
      () => closeAll(dir, fd),
    );
  }

  /** The descriptor at hand will do for a directory and for most open files; others need another. */
  #wanted({ dir, shape, openFlags }: Order, fd: number): Answer<Made> {
    if (shape.type === S_IFDIR) return { fd: -1, pathFd: fd };
    const { sys } = dir.volume;
    if (openFlags === undefined) {
      return andThen(sys.reopen(serverCaller, fd, O_PATH), pathFd => ({ fd: -1, pathFd }));
    }
    // It reads and writes; only writing in a way of its own asks for another.
    if ((openFlags & (O_SYNC | O_DSYNC | O_APPEND)) === 0) return { fd, pathFd: -1 };
    return andThen(sys.reopen(serverCaller, fd, openFlags), opened => ({ fd: opened, pathFd: -1 }));
  }

  /** A file without a name where the file system has those, otherwise an object under a name that is hidden. */
  #startAside(dir: LocalNode, dirfd: number, shape: Shape): Answer<Aside> {
    const { sys } = dir.volume;
    if (shape.type !== S_IFREG || !dir.volume.unnamedFiles) return this.#startNamed(dir, dirfd, shape);
    return recover<Aside>(
      () => andThen(sys.createUnnamed(serverCaller, dirfd, shape.mode), fd => ({ fd, tempName: undefined })),
      error =>
        andThen(error === EPERM && isRemoved(dir, dirfd), removed => {
          // ext4_new_inode says EPERM where the directory was removed.
          if (removed) throw ENOENT;
          // open(2): a file system without O_TMPFILE answers EOPNOTSUPP, an old kernel EISDIR.
          if (error !== EOPNOTSUPP && error !== EISDIR && error !== EINVAL) throw error;
          dir.volume.unnamedFiles = false;
          return this.#startNamed(dir, dirfd, shape);
        }),
    );
  }

  #startNamed(dir: LocalNode, dirfd: number, shape: Shape): Answer<Aside> {
    const { sys } = dir.volume;
    const counted = (tempCount++ >>> 0).toString(16).padStart(8, '0');
    const tempName = nameOf(this.#model.ownPrefix + tempPrefix + counted);
    if (shape.type === S_IFREG) {
      const created = sys.create(serverCaller, dirfd, tempName, O_RDWR | O_EXCL, shape.mode);
      return andThen(created, fd => ({ fd, tempName }));
    }
    return andThen(sys.mkdir(serverCaller, dirfd, tempName, shape.mode), () =>
      attempt(
        () => andThen(sys.lookup(serverCaller, dirfd, tempName), fd => ({ fd: ok(fd), tempName })),
        () => discard(dir, dirfd, tempName, true),
      ),
    );
  }

  /** Gives the finished object its name, unless something has that name already: EEXIST. */
  #publish({ dir, dirfd, name }: Order, { fd, tempName }: Aside): Answer<void> {
    const { sys } = dir.volume;
    if (tempName === undefined) return sys.link(serverCaller, fd, dirfd, name);
    return recover<void>(
      () => sys.rename(serverCaller, dirfd, tempName, dirfd, name, RENAME_NOREPLACE),
      error => {
        // rename(2): a file system that knows no flags answers EINVAL. What exists was refused above; an empty directory
        // made by somebody else in between would be replaced.
        if (error !== EINVAL) throw error;
        return andThen(sys.statAt(serverCaller, dirfd, name, new Attr()), found => {
          if (found === 0) throw EEXIST;
          return sys.rename(serverCaller, dirfd, tempName, dirfd, name, 0);
        });
      },
    );
  }
}

function closeAll(dir: LocalNode, ...fds: readonly number[]): Answer<void> {
  return forEach(fds, fd => (fd >= 0 ? dir.volume.sys.close(fd) : undefined));
}

function writeAll(dir: LocalNode, fd: number, bytes: Buffer, at = 0): Answer<void> {
  if (at === bytes.length) return;
  return andThen(dir.volume.sys.write(serverCaller, fd, [asOwned(bytes.subarray(at))], at), count =>
    writeAll(dir, fd, bytes, at + count),
  );
}

function isRemoved(dir: LocalNode, dirfd: number): Answer<boolean> {
  if (dir.volume.local) return dir.volume.statNow(dirfd).nlink === 0;
  const attr = new Attr();
  return andThen(dir.volume.sys.stat(serverCaller, dirfd, attr), () => attr.nlink === 0);
}

function discard(dir: LocalNode, dirfd: number, name: Name, directory: boolean): Answer<void> {
  return recover<void>(
    () => dir.volume.sys.unlink(serverCaller, dirfd, name, directory),
    error => {
      if (error !== ENOENT) throw error;
    },
  );
}

function ok(result: number): number {
  if (result < 0) throw Errno.of(-result);
  return result;
}
