import { type Answer, andThen } from '../answer.ts';
import { EACCES, EBADF, EROFS, ETXTBSY } from '../errno.ts';
import { O_RDONLY, O_RDWR } from '../host/constants.ts';
import { serverCaller } from '../host/syscalls.ts';
import type { LocalNode, NodeTable } from './local-node.ts';
import type { LocalOpen, OpenTable } from './open-file.ts';
import type { LockConflict, LockOwner, LockRange } from './tree.ts';

/**
 * Locks against everybody outside this tree, as open-file-description locks (fcntl(2)): one descriptor for each owner and
 * inode, so that an owner that opens a file twice does not lock itself out, and closing one of its fids drops nothing.
 */
export class OwnerLocks {
  readonly #nodes: NodeTable;
  readonly #opens: OpenTable;
  readonly #fds = new Map<LocalNode, Map<LockOwner, number>>();

  constructor(nodes: NodeTable, opens: OpenTable) {
    this.#nodes = nodes;
    this.#opens = opens;
  }

  set(owner: LockOwner, file: LocalOpen, range: LockRange): Answer<boolean> {
    const held = this.#fds.get(file.node)?.get(owner);
    if (held !== undefined) return this.#setOn(file.node, held, range);
    if (range.type === 2) return true;
    return andThen(this.#open(file.node), fd => {
      const raced = this.#fds.get(file.node)?.get(owner);
      if (raced !== undefined) {
        void file.node.volume.sys.close(fd);
        return this.#setOn(file.node, raced, range);
      }
      const owners = this.#fds.get(file.node) ?? new Map<LockOwner, number>();
      owners.set(owner, fd);
      this.#fds.set(file.node, owners);
      this.#nodes.hold(file.node);
      return this.#setOn(file.node, fd, range);
    });
  }

  async #setOn(node: LocalNode, fd: number, range: LockRange): Promise<boolean> {
    try {
      return await node.volume.sys.lock(serverCaller, fd, range.type, range.start, range.length);
    } catch (error) {
      // A write lock needs a writable descriptor. Where the host lets nobody write, nobody outside can be hurt.
      if (error === EBADF && range.type === 1) return true;
      throw error;
    }
  }

  async #open(node: LocalNode): Promise<number> {
    const { sys } = node.volume;
    try {
      return await this.#nodes.use(node, fd => sys.reopen(serverCaller, fd, O_RDWR));
    } catch (error) {
      if (error !== EACCES && error !== EROFS && error !== ETXTBSY) throw error;
      return this.#nodes.use(node, fd => sys.reopen(serverCaller, fd, O_RDONLY));
    }
  }

  async test(owner: LockOwner, file: LocalOpen, range: LockRange): Promise<LockConflict | undefined> {
    const { sys } = file.node.volume;
    const ask = (fd: number) =>
      sys.testLock(serverCaller, fd, range.type === 2 ? 1 : range.type, range.start, range.length);
    const held = this.#fds.get(file.node)?.get(owner);
    const found = await (held === undefined ? this.#opens.use(file, ask) : ask(held));
    if (!found) return undefined;
    return { type: found.type === 0 ? 0 : 1, start: found.start, length: found.length, pid: found.pid };
  }

  forget(owner: LockOwner, node: LocalNode): void {
    const owners = this.#fds.get(node);
    const fd = owners?.get(owner);
    if (!owners || fd === undefined) return;
    owners.delete(owner);
    if (owners.size === 0) this.#fds.delete(node);
    void node.volume.sys.close(fd);
    this.#nodes.release(node);
  }
}
