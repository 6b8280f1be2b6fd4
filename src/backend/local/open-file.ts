import type { Errno } from '#base/errno.ts';
import { andThen, type MaybePromise, onError } from '#base/maybe-promise.ts';
import { O_DSYNC, O_TRUNC } from '#host/constants.ts';
import type { InlineSyscalls } from '#host/syscalls.ts';
import type { FdBudget } from '#quota/fd-budget.ts';
import type { OpenDir, OpenFile, SessionContext } from '../tree.ts';
import type { LocalNode, Opened } from './node.ts';
import type { NodeTable } from './node-table.ts';

/** An open file or directory. Its descriptor is never evicted, so the object exists until it is closed, whatever its names. */
export class LocalOpen implements OpenFile, OpenDir, Opened {
  readonly node: LocalNode;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly flags: number;
  /** −1 after close. */
  fd: number;
  busy = 0;
  closed = false;
  /** Its node has a descriptor of its own, or could get none. */
  replaced = false;
  /** Its session, for calls after the request. */
  readonly session: SessionContext;
  readonly #table: OpenTable;

  constructor(
    table: OpenTable,
    session: SessionContext,
    node: LocalNode,
    fd: number,
    flags: number,
    readable: boolean,
    writable: boolean,
  ) {
    this.#table = table;
    this.session = session;
    this.node = node;
    this.fd = fd;
    this.flags = flags & ~O_TRUNC;
    this.readable = readable;
    this.writable = writable;
  }

  /**
   * The calls to make on `fd` on this thread; undefined if they may wait: calls go to the pool at present, or writes are
   * synchronous (O_SYNC contains the bit of O_DSYNC).
   */
  get inline(): InlineSyscalls | undefined {
    return (this.flags & O_DSYNC) === 0 ? this.node.volume.inline : undefined;
  }

  use<T>(act: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    return this.#table.use(this, act);
  }
}

/** The open files and directories of one tree. Each references its node. */
export class OpenTable {
  readonly #nodes: NodeTable;
  readonly #descriptors: FdBudget;

  constructor(nodes: NodeTable, descriptors: FdBudget) {
    this.#nodes = nodes;
    this.#descriptors = descriptors;
  }

  /** Counts a descriptor for the session and runs `act`, which calls `add`. Throws `full` if the session has its share. */
  counted<T>({ pins }: SessionContext, full: Errno, act: () => MaybePromise<T>): MaybePromise<T> {
    if (!this.#descriptors.mayPin(pins)) throw full;
    this.#descriptors.pin(pins);
    return onError(act, () => this.#descriptors.unpin(pins));
  }

  /** Takes over `fd`, which was counted. */
  add(
    session: SessionContext,
    node: LocalNode,
    fd: number,
    flags: number,
    readable: boolean,
    writable: boolean,
  ): LocalOpen {
    const open = new LocalOpen(this, session, node, fd, flags, readable, writable);
    this.#nodes.hold(node);
    node.opens = withOpen(node.opens, open);
    return open;
  }

  /** Keeps the descriptor open until `giveBack`. */
  borrow(open: LocalOpen): void {
    open.busy++;
  }

  giveBack(open: LocalOpen): void {
    if (--open.busy === 0 && open.closed) this.#drop(open);
  }

  /** Runs `act` with the descriptor, which stays open until the result has settled. */
  use<T>(open: LocalOpen, act: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    this.borrow(open);
    let result: MaybePromise<T>;
    try {
      result = act(open.fd);
    } catch (error) {
      this.giveBack(open);
      throw error;
    }
    if (result instanceof Promise) return result.finally(() => this.giveBack(open));
    this.giveBack(open);
    return result;
  }

  /** Closes after the last running call. */
  close(open: LocalOpen): void {
    if (open.closed) return;
    open.closed = true;
    if (open.busy === 0) this.#drop(open);
  }

  #drop(open: LocalOpen): void {
    const { node } = open;
    // The node uses this descriptor, and others reference the node.
    if (!open.replaced && node.fd < 0 && node.opens === open && node.refs > 1) {
      open.replaced = true;
      this.borrow(open);
      void andThen(this.#nodes.equipFrom(open.session, node, open.fd), () => this.giveBack(open));
      return;
    }
    node.opens = withoutOpen(node.opens, open);
    const closed = node.volume.close(open.fd);
    open.fd = -1;
    // Counted until it is closed.
    void andThen(closed, () => this.#descriptors.unpin(open.session.pins));
    this.#nodes.release(node);
  }
}

/** The open files of a node: undefined, one, or a set of several. */
function withOpen(opens: LocalNode['opens'], open: LocalOpen): LocalNode['opens'] {
  if (!opens) return open;
  if (!(opens instanceof Set)) return new Set([opens, open]);
  return opens.add(open);
}

function withoutOpen(opens: LocalNode['opens'], open: LocalOpen): LocalNode['opens'] {
  if (!(opens instanceof Set)) return opens === open ? undefined : opens;
  opens.delete(open);
  return opens.size > 1 ? opens : opens.values().next().value;
}
