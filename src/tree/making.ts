import { randomBytes } from 'node:crypto';
import { Attr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../attr.ts';
import { EEXIST, EINVAL, EISDIR, ENOENT, EOPNOTSUPP, EPERM, Errno } from '../errno.ts';
import { O_APPEND, O_DSYNC, O_EXCL, O_PATH, O_RDWR, O_SYNC, RENAME_NOREPLACE } from '../host/constants.ts';
import { type Caller, serverCaller } from '../host/syscalls.ts';
import { type Name, nameOf } from '../name.ts';
import type { SecurityModel, Shape, Want } from '../security/model.ts';
import { unfinishedNameBytes } from './leftovers.ts';
import type { LocalNode, NodeTable } from './local-node.ts';

/** A new object: an O_PATH descriptor, and one that is open as it was asked for, or −1. */
interface Made {
  readonly pathFd: number;
  readonly fd: number;
}

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
   * Makes an object that must not exist yet (EEXIST). `openFlags` opens a regular file at once: the descriptor comes back
   * as `fd`, otherwise −1. The node comes back held, with its attributes in `attr`.
   */
  async make(
    caller: Caller,
    dir: LocalNode,
    name: Name,
    want: Want,
    openFlags: number | undefined,
    attr: Attr,
  ): Promise<{ node: LocalNode; fd: number }> {
    const shape = this.#model.shape(want);
    return this.#nodes.use(dir, async dirfd => {
      const made = await (shape.aside
        ? this.#makeAside(caller, dir, dirfd, name, want, shape, openFlags)
        : this.#makeInPlace(caller, dir, dirfd, name, want, openFlags));
      return this.#toNode(dir, name, made, attr);
    });
  }

  async #toNode(
    dir: LocalNode,
    name: Name,
    made: Made,
    attr: Attr,
  ): Promise<{ node: LocalNode; fd: number }> {
    const { sys } = dir.volume;
    try {
      await sys.stat(serverCaller, made.pathFd, attr);
      return { node: await this.#nodes.adopt(made.pathFd, attr, dir, name), fd: made.fd };
    } catch (error) {
      await closeAll(dir, made.pathFd, made.fd);
      throw error;
    }
  }

  async #makeInPlace(
    caller: Caller,
    dir: LocalNode,
    dirfd: number,
    name: Name,
    want: Want,
    openFlags: number | undefined,
  ): Promise<Made> {
    const { sys } = dir.volume;
    const maker = this.#model.makesAs(caller, want.gid);
    const type = want.mode & S_IFMT;
    let fd = -1;
    let pathFd = -1;
    if (openFlags !== undefined)
      fd = await sys.create(maker, dirfd, name, openFlags | O_EXCL, want.mode & 0o7777);
    else if (type === S_IFDIR) await sys.mkdir(maker, dirfd, name, want.mode & 0o7777);
    else if (type === S_IFLNK) await sys.symlink(maker, dirfd, name, want.target);
    else await sys.mknod(maker, dirfd, name, want.mode, want.rdev);
    try {
      pathFd =
        fd >= 0
          ? await sys.reopen(serverCaller, fd, O_PATH)
          : ok(await sys.lookup(serverCaller, dirfd, name));
      if (fd < 0) await this.#model.stamp({ sys, fd: pathFd }, maker, want);
    } catch (error) {
      await closeAll(dir, pathFd, fd);
      await discard(dir, dirfd, name, type === S_IFDIR);
      throw error;
    }
    return { fd, pathFd };
  }

  /** All that may fail comes before the object gets its name. */
  async #makeAside(
    caller: Caller,
    dir: LocalNode,
    dirfd: number,
    name: Name,
    want: Want,
    shape: Shape,
    openFlags: number | undefined,
  ): Promise<Made> {
    const { sys } = dir.volume;
    // Refuse early what exists; the publishing step is what decides.
    if ((await sys.statAt(serverCaller, dirfd, name, new Attr())) === 0) throw EEXIST;
    const { fd, tempName } = await this.#startAside(dir, dirfd, shape);
    let pathFd = -1;
    let openFd = -1;
    try {
      if (shape.content !== '') await writeAll(dir, fd, Buffer.from(shape.content, 'latin1'));
      await this.#model.stamp({ sys, fd }, caller, want);
      pathFd = await sys.reopen(serverCaller, fd, O_PATH);
      if (openFlags !== undefined) openFd = await this.#wantedOpen(dir, fd, openFlags);
      await this.#publish(dir, dirfd, fd, tempName, name);
    } catch (error) {
      await closeAll(dir, fd, pathFd, openFd === fd ? -1 : openFd);
      if (tempName !== undefined) await discard(dir, dirfd, tempName, shape.type === S_IFDIR);
      throw error;
    }
    if (openFd !== fd) await sys.close(fd);
    return { fd: openFd, pathFd };
  }

  /** The descriptor at hand reads and writes; only writing in a way of its own asks for another. */
  async #wantedOpen(dir: LocalNode, fd: number, openFlags: number): Promise<number> {
    if ((openFlags & (O_SYNC | O_DSYNC | O_APPEND)) === 0) return fd;
    return dir.volume.sys.reopen(serverCaller, fd, openFlags);
  }

  /** A file without a name where the file system has those, otherwise an object under a name that is hidden. */
  async #startAside(
    dir: LocalNode,
    dirfd: number,
    shape: Shape,
  ): Promise<{ fd: number; tempName: Name | undefined }> {
    const { sys } = dir.volume;
    if (shape.type === S_IFREG && dir.volume.unnamedFiles) {
      try {
        return { fd: await sys.createUnnamed(serverCaller, dirfd, shape.mode), tempName: undefined };
      } catch (error) {
        // ext4_new_inode says EPERM where the directory was removed.
        if (error === EPERM && (await isRemoved(dir, dirfd))) throw ENOENT;
        // open(2): a file system without O_TMPFILE answers EOPNOTSUPP, an old kernel EISDIR.
        if (error !== EOPNOTSUPP && error !== EISDIR && error !== EINVAL) throw error;
        dir.volume.unnamedFiles = false;
      }
    }
    const tempName = nameOf(this.#model.ownPrefix + randomBytes(unfinishedNameBytes).toString('hex'));
    if (shape.type === S_IFREG) {
      const fd = await sys.create(serverCaller, dirfd, tempName, O_RDWR | O_EXCL, shape.mode);
      return { fd, tempName };
    }
    await sys.mkdir(serverCaller, dirfd, tempName, shape.mode);
    const fd = await sys.lookup(serverCaller, dirfd, tempName);
    if (fd < 0) await discard(dir, dirfd, tempName, true);
    return { fd: ok(fd), tempName };
  }

  /** Gives the finished object its name, unless something has that name already: EEXIST. */
  async #publish(
    dir: LocalNode,
    dirfd: number,
    fd: number,
    tempName: Name | undefined,
    name: Name,
  ): Promise<void> {
    const { sys } = dir.volume;
    if (tempName === undefined) return sys.link(serverCaller, fd, dirfd, name);
    try {
      await sys.rename(serverCaller, dirfd, tempName, dirfd, name, RENAME_NOREPLACE);
    } catch (error) {
      // rename(2): a file system that knows no flags answers EINVAL. What exists was refused above; an empty directory
      // made by somebody else in between would be replaced.
      if (error !== EINVAL) throw error;
      if ((await sys.statAt(serverCaller, dirfd, name, new Attr())) === 0) throw EEXIST;
      await sys.rename(serverCaller, dirfd, tempName, dirfd, name, 0);
    }
  }
}

async function closeAll(dir: LocalNode, ...fds: readonly number[]): Promise<void> {
  for (const fd of fds) if (fd >= 0) await dir.volume.sys.close(fd);
}

async function writeAll(dir: LocalNode, fd: number, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    at += await dir.volume.sys.write(serverCaller, fd, [bytes.subarray(at)], at);
  }
}

async function isRemoved(dir: LocalNode, dirfd: number): Promise<boolean> {
  const attr = new Attr();
  await dir.volume.sys.stat(serverCaller, dirfd, attr);
  return attr.nlink === 0;
}

async function discard(dir: LocalNode, dirfd: number, name: Name, directory: boolean): Promise<void> {
  try {
    await dir.volume.sys.unlink(serverCaller, dirfd, name, directory);
  } catch (error) {
    if (error !== ENOENT) throw error;
  }
}

function ok(result: number): number {
  if (result < 0) throw Errno.of(-result);
  return result;
}
