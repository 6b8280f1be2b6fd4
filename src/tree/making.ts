import { randomBytes } from 'node:crypto';
import { Attr, S_IFDIR, S_IFLNK, S_IFREG } from '../attr.ts';
import { EEXIST, EINVAL, EISDIR, ENOENT, EOPNOTSUPP, EPERM, Errno } from '../errno.ts';
import { O_APPEND, O_DSYNC, O_EXCL, O_PATH, O_RDWR, O_SYNC, RENAME_NOREPLACE } from '../host/constants.ts';
import { type Caller, serverCaller } from '../host/syscalls.ts';
import { type Name, nameOf } from '../name.ts';
import type { SecurityModel, Shape, Want } from '../security/model.ts';
import type { LocalNode, NodeTable } from './local-node.ts';

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
      const fd = await (shape.aside
        ? this.#makeAside(caller, dir, dirfd, name, want, shape, openFlags)
        : this.#makeInPlace(caller, dir, dirfd, name, want, openFlags));
      return this.#toNode(dir, name, fd, openFlags !== undefined, attr);
    });
  }

  /** From the new object's descriptor to a node; keeps the descriptor for the caller when it is wanted open. */
  async #toNode(
    dir: LocalNode,
    name: Name,
    fd: number,
    open: boolean,
    attr: Attr,
  ): Promise<{ node: LocalNode; fd: number }> {
    const { sys } = dir.volume;
    let pathFd: number;
    try {
      pathFd = await sys.reopen(serverCaller, fd, O_PATH);
    } catch (error) {
      await sys.close(fd);
      throw error;
    }
    if (!open) await sys.close(fd);
    try {
      await sys.stat(serverCaller, pathFd, attr);
      const node = await this.#nodes.adopt(pathFd, attr, dir, name);
      return { node, fd: open ? fd : -1 };
    } catch (error) {
      await sys.close(pathFd);
      if (open) await sys.close(fd);
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
  ): Promise<number> {
    const { sys } = dir.volume;
    const maker = this.#model.makesAs(caller, want.gid);
    if (openFlags !== undefined)
      return sys.create(maker, dirfd, name, openFlags | O_EXCL, want.mode & 0o7777);
    const type = want.mode & 0o170000;
    if (type === S_IFDIR) await sys.mkdir(maker, dirfd, name, want.mode & 0o7777);
    else if (type === S_IFLNK) await sys.symlink(maker, dirfd, name, want.target);
    else await sys.mknod(maker, dirfd, name, want.mode, want.rdev);
    const fd = ok(await sys.lookup(serverCaller, dirfd, name));
    try {
      await this.#model.stamp({ sys, fd }, maker, want);
    } catch (error) {
      await sys.close(fd);
      await sys.unlink(serverCaller, dirfd, name, type === S_IFDIR);
      throw error;
    }
    return fd;
  }

  async #makeAside(
    caller: Caller,
    dir: LocalNode,
    dirfd: number,
    name: Name,
    want: Want,
    shape: Shape,
    openFlags = 0,
  ): Promise<number> {
    const { sys } = dir.volume;
    // Refuse early what exists; the publishing step is what decides.
    if ((await sys.statAt(serverCaller, dirfd, name, new Attr())) === 0) throw EEXIST;
    const { fd, tempName } = await this.#startAside(dir, dirfd, shape);
    try {
      if (shape.content !== '') await writeAll(dir, fd, Buffer.from(shape.content, 'latin1'));
      await this.#model.stamp({ sys, fd }, caller, want);
      await this.#publish(dir, dirfd, fd, tempName, name);
      // The descriptor at hand reads and writes; only writing in a way of its own asks for another.
      if ((openFlags & (O_SYNC | O_DSYNC | O_APPEND)) === 0) return fd;
    } catch (error) {
      await sys.close(fd);
      if (tempName !== undefined) await discard(dir, dirfd, tempName, shape.type === S_IFDIR);
      throw error;
    }
    try {
      return await sys.reopen(serverCaller, fd, openFlags);
    } finally {
      await sys.close(fd);
    }
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
    const tempName = nameOf(this.#model.ownPrefix + randomBytes(12).toString('hex'));
    if (shape.type === S_IFREG) {
      const fd = await sys.create(serverCaller, dirfd, tempName, O_RDWR | O_EXCL, shape.mode);
      return { fd, tempName };
    }
    await sys.mkdir(serverCaller, dirfd, tempName, shape.mode);
    return { fd: ok(await sys.lookup(serverCaller, dirfd, tempName)), tempName };
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
