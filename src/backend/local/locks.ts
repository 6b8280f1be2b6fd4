import { EACCES, EBADF, EMFILE, ENFILE, ENOLCK, EROFS, ETXTBSY } from '#base/errno.ts';
import { O_RDONLY, O_RDWR } from '#host/constants.ts';
import { type Submitter, serverCreds } from '#host/syscalls.ts';
import type { LockConflict, LockKey, LockRange } from '../tree.ts';
import type { LocalNode } from './node.ts';
import type { NodeTable } from './node-table.ts';
import type { LocalOpen, OpenTable } from './open-file.ts';

/**
 * Locks against everybody outside this tree, as open-file-description locks (fcntl(2)). One descriptor for each owner and inode:
 * an owner that opens a file twice does not conflict with itself, and closing one of its fids releases nothing.
 */
export class OwnerLocks {
  readonly #nodes: NodeTable;
  readonly #opens: OpenTable;
  readonly #holders = new Map<LocalNode, Map<LockKey, LocalOpen>>();

  readonly #onHost: boolean;

  /** `onHost`: whether locks are taken on the host, where they keep its programs out. */
  constructor(nodes: NodeTable, opens: OpenTable, onHost: boolean) {
    this.#nodes = nodes;
    this.#opens = opens;
    this.#onHost = onHost;
  }

  async set(owner: LockKey, file: LocalOpen, range: LockRange): Promise<boolean> {
    const { node, session } = file;
    if (!this.#onHost)
      return range.type === 2 || (await this.test(session, owner, file, range)) === undefined;
    const held = this.#holders.get(node)?.get(owner);
    if (held) return this.#setOn(held, range);
    if (range.type === 2) return true;
    const holder = await this.#opens.counted(session, ENOLCK, async () =>
      this.#opens.add(session, node, await this.#open(session, node), O_RDONLY, false, false),
    );
    const owners = this.#holders.get(node) ?? new Map<LockKey, LocalOpen>();
    const raced = owners.get(owner);
    if (raced) {
      this.#opens.close(holder);
      return this.#setOn(raced, range);
    }
    owners.set(owner, holder);
    this.#holders.set(node, owners);
    return this.#setOn(holder, range);
  }

  /**
   * A write lock needs a descriptor open for writing (EBADF, fcntl(2)). If this server cannot have one, it takes a read lock
   * when no other lock conflicts: that keeps writers out, and shows in F_OFD_GETLK.
   */
  async #setOn(holder: LocalOpen, { type, start, length }: LockRange): Promise<boolean> {
    const sys = holder.node.volume.sys(holder.session);
    return this.#opens.use(holder, async fd => {
      try {
        return await sys.lock(serverCreds, fd, type, start, length);
      } catch (error) {
        if (error !== EBADF || type !== 1) throw error;
      }
      if (await sys.testLock(serverCreds, fd, 1, start, length)) return false;
      return sys.lock(serverCreds, fd, 0, start, length);
    });
  }

  async #open(submitter: Submitter, node: LocalNode): Promise<number> {
    const sys = node.volume.sys(submitter);
    const open = (flags: number) =>
      this.#nodes.use(submitter, node, fd => sys.reopen(serverCreds, fd, flags));
    try {
      return await open(O_RDWR);
    } catch (error) {
      if (error === EMFILE || error === ENFILE) throw ENOLCK;
      if (error !== EACCES && error !== EROFS && error !== ETXTBSY) throw error;
      return open(O_RDONLY);
    }
  }

  async test(
    submitter: Submitter,
    owner: LockKey,
    file: LocalOpen,
    { type, start, length }: LockRange,
  ): Promise<LockConflict | undefined> {
    const sys = file.node.volume.sys(submitter);
    const held = this.#holders.get(file.node)?.get(owner);
    const found = await this.#opens.use(held ?? file, fd =>
      sys.testLock(serverCreds, fd, type === 2 ? 1 : type, start, length),
    );
    return (
      found && { type: found.type === 0 ? 0 : 1, start: found.start, length: found.length, pid: found.pid }
    );
  }

  forget(owner: LockKey, node: LocalNode): void {
    const owners = this.#holders.get(node);
    const holder = owners?.get(owner);
    if (!owners || !holder) return;
    owners.delete(owner);
    if (owners.size === 0) this.#holders.delete(node);
    this.#opens.close(holder);
  }
}
