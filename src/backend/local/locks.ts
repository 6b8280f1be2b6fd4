import { EACCES, EBADF, EMFILE, ENFILE, ENOLCK, EROFS, ETXTBSY } from '#base/errno.ts';
import { andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import { O_RDONLY, O_RDWR } from '#host/constants.ts';
import { type Submitter, serverCreds } from '#host/syscalls.ts';
import type { CallContext, LockConflict, LockKey, LockRange } from '../tree.ts';
import type { LocalNode, NodeTable } from './node.ts';
import type { LocalOpen, OpenTable } from './open-file.ts';

/**
 * Locks against everybody outside this tree, as open-file-description locks (fcntl(2)): one descriptor for each owner and
 * inode, so that an owner that opens a file twice does not lock itself out, and closing one of its fids drops nothing.
 */
export class OwnerLocks {
  readonly #nodes: NodeTable;
  readonly #opens: OpenTable;
  readonly #holders = new Map<LocalNode, Map<LockKey, LocalOpen>>();

  constructor(nodes: NodeTable, opens: OpenTable) {
    this.#nodes = nodes;
    this.#opens = opens;
  }

  set(owner: LockKey, file: LocalOpen, range: LockRange): MaybePromise<boolean> {
    const { node, session } = file;
    const held = this.#holders.get(node)?.get(owner);
    if (held) return this.#setOn(held, range);
    if (range.type === 2) return true;
    const opened = this.#opens.counted(session, ENOLCK, () =>
      andThen(this.#open(session, node), fd => this.#opens.add(session, node, fd, O_RDONLY, false, false)),
    );
    return andThen(opened, holder => {
      const owners = this.#holders.get(node) ?? new Map<LockKey, LocalOpen>();
      const raced = owners.get(owner);
      if (raced) {
        this.#opens.close(holder);
        return this.#setOn(raced, range);
      }
      owners.set(owner, holder);
      this.#holders.set(node, owners);
      return this.#setOn(holder, range);
    });
  }

  /**
   * A write lock needs a descriptor that is open for writing (fcntl(2): EBADF). Where this server cannot have one, a read lock
   * stands for it, once no lock outside is in the way: it keeps writers out, and whoever asks for a write lock sees it.
   */
  #setOn(holder: LocalOpen, { type, start, length }: LockRange): MaybePromise<boolean> {
    const sys = holder.node.volume.sys(holder.session);
    return this.#opens.use(holder, fd =>
      recover<boolean>(
        () => sys.lock(serverCreds, fd, type, start, length),
        error => {
          if (error !== EBADF || type !== 1) throw error;
          return andThen(sys.testLock(serverCreds, fd, 1, start, length), found =>
            found ? false : sys.lock(serverCreds, fd, 0, start, length),
          );
        },
      ),
    );
  }

  #open(submitter: Submitter, node: LocalNode): MaybePromise<number> {
    const sys = node.volume.sys(submitter);
    const open = (flags: number) =>
      this.#nodes.use(submitter, node, fd => sys.reopen(serverCreds, fd, flags));
    return recover<number>(
      () => open(O_RDWR),
      error => {
        if (error === EMFILE || error === ENFILE) throw ENOLCK;
        if (error !== EACCES && error !== EROFS && error !== ETXTBSY) throw error;
        return open(O_RDONLY);
      },
    );
  }

  test(
    ctx: CallContext,
    owner: LockKey,
    file: LocalOpen,
    range: LockRange,
  ): MaybePromise<LockConflict | undefined> {
    const sys = file.node.volume.sys(ctx);
    const ask = (fd: number) =>
      sys.testLock(serverCreds, fd, range.type === 2 ? 1 : range.type, range.start, range.length);
    const held = this.#holders.get(file.node)?.get(owner);
    return andThen(
      this.#opens.use(held ?? file, ask),
      found =>
        found && { type: found.type === 0 ? 0 : 1, start: found.start, length: found.length, pid: found.pid },
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
