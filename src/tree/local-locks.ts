import { type Answer, andThen, recover } from '../answer.ts';
import { EACCES, EBADF, EMFILE, ENFILE, ENOLCK, EROFS, ETXTBSY } from '../errno.ts';
import { O_RDONLY, O_RDWR } from '../host/constants.ts';
import { serverCaller } from '../host/syscalls.ts';
import type { Descriptors, Holder } from './descriptors.ts';
import type { LocalNode, NodeTable } from './local-node.ts';
import type { LocalOpen, OpenTable } from './open-file.ts';
import type { Pins } from './pins.ts';
import type { LockConflict, LockOwner, LockRange } from './tree.ts';

/** A descriptor that holds an owner's locks: it counts, and cannot be given up, since closing it would drop them. */
class LockHolder implements Holder {
  readonly fd: number;
  readonly pins: Pins;
  touched = true;

  constructor(fd: number, pins: Pins) {
    this.fd = fd;
    this.pins = pins;
  }

  giveUp(): boolean {
    return false;
  }
}

/**
 * Locks against everybody outside this tree, as open-file-description locks (fcntl(2)): one descriptor for each owner and
 * inode, so that an owner that opens a file twice does not lock itself out, and closing one of its fids drops nothing.
 */
export class OwnerLocks {
  readonly #nodes: NodeTable;
  readonly #opens: OpenTable;
  readonly #descriptors: Descriptors;
  readonly #holders = new Map<LocalNode, Map<LockOwner, LockHolder>>();

  constructor(nodes: NodeTable, opens: OpenTable, descriptors: Descriptors) {
    this.#nodes = nodes;
    this.#opens = opens;
    this.#descriptors = descriptors;
  }

  set(owner: LockOwner, file: LocalOpen, range: LockRange): Answer<boolean> {
    const held = this.#holders.get(file.node)?.get(owner);
    if (held) return this.#setOn(file.node, held.fd, range);
    if (range.type === 2) return true;
    if (!this.#descriptors.pinned.admits(file.pins, 1)) throw ENOLCK;
    return andThen(this.#open(file.node), fd => {
      const raced = this.#holders.get(file.node)?.get(owner);
      if (raced) {
        void file.node.volume.sys.close(fd);
        return this.#setOn(file.node, raced.fd, range);
      }
      const holder = new LockHolder(fd, file.pins);
      const owners = this.#holders.get(file.node) ?? new Map<LockOwner, LockHolder>();
      owners.set(owner, holder);
      this.#holders.set(file.node, owners);
      this.#descriptors.pinned.add(holder.pins, 1);
      this.#descriptors.admit(holder, 'open');
      this.#nodes.hold(file.node);
      return this.#setOn(file.node, fd, range);
    });
  }

  /**
   * A write lock needs a descriptor that is open for writing (fcntl(2): EBADF). Where this server cannot have one, a read lock
   * stands for it, once no lock outside is in the way: it keeps writers out, and whoever asks for a write lock sees it.
   */
  #setOn(node: LocalNode, fd: number, { type, start, length }: LockRange): Answer<boolean> {
    const { sys } = node.volume;
    return recover<boolean>(
      () => sys.lock(serverCaller, fd, type, start, length),
      error => {
        if (error !== EBADF || type !== 1) throw error;
        return andThen(sys.testLock(serverCaller, fd, 1, start, length), found =>
          found ? false : sys.lock(serverCaller, fd, 0, start, length),
        );
      },
    );
  }

  #open(node: LocalNode): Answer<number> {
    const { sys } = node.volume;
    const open = (flags: number) => this.#nodes.use(node, fd => sys.reopen(serverCaller, fd, flags));
    return recover<number>(
      () => open(O_RDWR),
      error => {
        if (error === EMFILE || error === ENFILE) throw ENOLCK;
        if (error !== EACCES && error !== EROFS && error !== ETXTBSY) throw error;
        return open(O_RDONLY);
      },
    );
  }

  test(owner: LockOwner, file: LocalOpen, range: LockRange): Answer<LockConflict | undefined> {
    const { sys } = file.node.volume;
    const ask = (fd: number) =>
      sys.testLock(serverCaller, fd, range.type === 2 ? 1 : range.type, range.start, range.length);
    const held = this.#holders.get(file.node)?.get(owner);
    return andThen(
      held ? ask(held.fd) : this.#opens.use(file, ask),
      found =>
        found && { type: found.type === 0 ? 0 : 1, start: found.start, length: found.length, pid: found.pid },
    );
  }

  forget(owner: LockOwner, node: LocalNode): void {
    const owners = this.#holders.get(node);
    const holder = owners?.get(owner);
    if (!owners || !holder) return;
    owners.delete(owner);
    if (owners.size === 0) this.#holders.delete(node);
    this.#descriptors.leave(holder, 'open');
    this.#descriptors.pinned.add(holder.pins, -1);
    void node.volume.sys.close(holder.fd);
    this.#nodes.release(node);
  }
}
