import { type Answer, andThen } from '../answer.ts';
import { O_DSYNC, O_TRUNC } from '../host/constants.ts';
import { serverCaller } from '../host/syscalls.ts';
import type { Descriptors, Holder } from './descriptors.ts';
import type { LocalNode, NodeTable } from './local-node.ts';
import type { OpenDir, OpenFile } from './tree.ts';

/** A descriptor on a file or directory that was opened, which can be closed for a while and opened again. */
export class LocalOpen implements OpenFile, OpenDir, Holder {
  readonly node: LocalNode;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly flags: number;
  fd: number;
  busy = 0;
  touched = true;
  closed = false;
  readonly #table: OpenTable;

  constructor(
    table: OpenTable,
    node: LocalNode,
    fd: number,
    flags: number,
    readable: boolean,
    writable: boolean,
  ) {
    this.#table = table;
    this.node = node;
    this.fd = fd;
    this.flags = flags & ~O_TRUNC;
    this.readable = readable;
    this.writable = writable;
  }

  /** A synchronous write goes to the pool; O_SYNC contains the bit of O_DSYNC. */
  get atOnce(): boolean {
    return this.node.volume.local && (this.flags & O_DSYNC) === 0;
  }

  giveUp(): boolean {
    return this.#table.giveUp(this);
  }
}

/** The open files and directories of one tree. Each holds its node. */
export class OpenTable {
  readonly #nodes: NodeTable;
  readonly #descriptors: Descriptors;

  constructor(nodes: NodeTable, descriptors: Descriptors) {
    this.#nodes = nodes;
    this.#descriptors = descriptors;
  }

  /** Takes charge of `fd`. */
  add(node: LocalNode, fd: number, flags: number, readable: boolean, writable: boolean): LocalOpen {
    const open = new LocalOpen(this, node, fd, flags, readable, writable);
    this.#nodes.hold(node);
    this.#descriptors.admit(open, 'open');
    return open;
  }

  /** Runs `act` with the descriptor, which stays open until the answer is there. */
  use<T>(open: LocalOpen, act: (fd: number) => Answer<T>): Answer<T> {
    open.busy++;
    open.touched = true;
    let answer: Answer<T>;
    try {
      answer = open.fd >= 0 ? act(open.fd) : andThen(this.#reopen(open), act);
    } catch (error) {
      this.#used(open);
      throw error;
    }
    if (answer instanceof Promise) return answer.finally(() => this.#used(open));
    this.#used(open);
    return answer;
  }

  #used(open: LocalOpen): void {
    if (--open.busy === 0 && open.closed) this.#drop(open);
  }

  /** Closes once the last running call is done. */
  close(open: LocalOpen): void {
    if (open.closed) return;
    open.closed = true;
    if (open.busy === 0) this.#drop(open);
  }

  #drop(open: LocalOpen): void {
    this.#descriptors.leave(open, 'open');
    if (open.fd >= 0) this.#closeFd(open);
    this.#nodes.release(open.node);
  }

  // Closing a file that was written waits on a network file system, and may free an unlinked file's blocks.
  #closeFd(open: LocalOpen): void {
    void open.node.volume.sys.close(open.fd);
    open.fd = -1;
  }

  /** An unlinked object keeps its descriptor: nothing leads back to it but the node's own. */
  giveUp(open: LocalOpen): boolean {
    if (open.busy > 0 || open.closed || open.fd < 0 || open.node.unlinked || !open.node.volume.local)
      return false;
    this.#closeFd(open);
    return true;
  }

  // The right to open was checked when it was opened first, so opening again runs as the server.
  #reopen(open: LocalOpen): Answer<number> {
    const { sys } = open.node.volume;
    const opened = this.#nodes.use(open.node, fd => sys.reopen(serverCaller, fd, open.flags));
    return andThen(opened, fd => {
      if (open.fd >= 0) {
        void sys.close(fd);
        return open.fd;
      }
      open.fd = fd;
      this.#descriptors.admit(open, 'open');
      return fd;
    });
  }
}
