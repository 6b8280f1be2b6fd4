import { type Answer, andThen } from '../answer.ts';
import { O_DSYNC, O_TRUNC } from '../host/constants.ts';
import { type InlineSyscalls, serverCaller } from '../host/syscalls.ts';
import type { Descriptors, Holder } from './descriptors.ts';
import type { LocalNode, NodeTable, Opened } from './local-node.ts';
import type { Pins } from './pins.ts';
import type { OpenDir, OpenFile } from './tree.ts';

/** An open file without a name keeps its own descriptor and its node's. */
const pinsOfNameless = 2;

/** A descriptor on a file or directory that was opened, which can be closed for a while and opened again. */
export class LocalOpen implements OpenFile, OpenDir, Holder, Opened {
  readonly node: LocalNode;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly flags: number;
  fd: number;
  busy = 0;
  touched = true;
  closed = false;
  /** Whose it is, and how many descriptors it keeps from being given up. */
  pins: Pins;
  pinned = 0;
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
    this.pins = table.nobody;
    this.node = node;
    this.fd = fd;
    this.flags = flags & ~O_TRUNC;
    this.readable = readable;
    this.writable = writable;
  }

  /**
   * The calls to use on `fd` now, on this thread; undefined when one may wait: the descriptor has to be opened again first, the
   * file system's calls wait at present, or writes are synchronous (O_SYNC contains the bit of O_DSYNC).
   */
  get inline(): InlineSyscalls | undefined {
    return this.fd >= 0 && (this.flags & O_DSYNC) === 0 ? this.node.volume.inline : undefined;
  }

  giveUp(): boolean {
    return this.#table.giveUp(this);
  }

  giveUpForGood(): boolean {
    return this.#table.giveUpForGood(this);
  }

  pin(): void {
    this.#table.pin(this);
  }

  get isOverdrawn(): boolean {
    return this.#table.isOverdrawn(this);
  }

  lend<T>(act: (fd: number) => Answer<T>): Answer<T> {
    return this.#table.use(this, act);
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
    node.opens = joined(node.opens, open);
    if (node.unlinked || !node.volume.local) this.pin(open);
    this.#descriptors.admit(open, 'open');
    return open;
  }

  mayKeep(pins: Pins): boolean {
    return this.#descriptors.pinned.admits(pins, pinsOfNameless);
  }

  get nobody(): Pins {
    return this.#descriptors.pinned.nobody;
  }

  /** It counts for this session from now on. */
  charge(open: LocalOpen, pins: Pins): void {
    const { pinned } = open;
    this.#unpin(open);
    open.pins = pins;
    if (pinned > 0) this.pin(open);
  }

  /** Counts as one that keeps its descriptors. */
  pin(open: LocalOpen): void {
    if (open.pinned > 0 || open.closed) return;
    open.pinned = open.node.volume.local ? pinsOfNameless : 1;
    this.#descriptors.pinned.add(open.pins, open.pinned);
  }

  #unpin(open: LocalOpen): void {
    if (open.pinned > 0) this.#descriptors.pinned.add(open.pins, -open.pinned);
    open.pinned = 0;
  }

  isOverdrawn({ pins }: LocalOpen): boolean {
    return this.#descriptors.pinned.isOverdrawn(pins);
  }

  /** The descriptor stays as it is until `giveBack`. */
  borrow(open: LocalOpen): void {
    open.busy++;
    open.touched = true;
  }

  giveBack(open: LocalOpen): void {
    if (--open.busy === 0 && open.closed) this.#drop(open);
  }

  /** Runs `act` with the descriptor, which stays open until the answer is there. */
  use<T>(open: LocalOpen, act: (fd: number) => Answer<T>): Answer<T> {
    this.borrow(open);
    let answer: Answer<T>;
    try {
      answer = open.fd >= 0 ? act(open.fd) : andThen(this.#reopen(open), act);
    } catch (error) {
      this.giveBack(open);
      throw error;
    }
    if (answer instanceof Promise) return answer.finally(() => this.giveBack(open));
    this.giveBack(open);
    return answer;
  }

  /** Closes once the last running call is done. */
  close(open: LocalOpen): void {
    if (open.closed) return;
    open.closed = true;
    open.node.opens = without(open.node.opens, open);
    this.#unpin(open);
    if (open.busy === 0) this.#drop(open);
  }

  #drop(open: LocalOpen): void {
    this.#descriptors.leave(open, 'open');
    if (open.node.lender === open) this.#nodes.lenderLeaves(open.node, open.fd);
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
    if (open.node.lender === open) {
      if (!this.#nodes.canDoWithout(open.node, open.fd)) return false;
      open.node.lender = undefined;
    }
    this.#closeFd(open);
    return true;
  }

  /** Of a session that keeps more than others leave it. */
  giveUpForGood(open: LocalOpen): boolean {
    if (open.busy > 0 || open.closed || open.fd < 0) return false;
    const { node } = open;
    const lends = node.lender === open;
    if (lends && !node.unlinked && this.#nodes.isNameless(node, open.fd)) node.unlinked = true;
    if (!node.unlinked || !node.volume.local || !this.isOverdrawn(open)) return false;
    if (lends) node.lender = undefined;
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

/** What is open on a node: most have nothing, or one thing. */
function joined(opens: LocalNode['opens'], open: LocalOpen): LocalNode['opens'] {
  if (!opens) return open;
  if (!(opens instanceof Set)) return new Set([opens, open]);
  return opens.add(open);
}

function without(opens: LocalNode['opens'], open: LocalOpen): LocalNode['opens'] {
  if (!(opens instanceof Set)) return opens === open ? undefined : opens;
  opens.delete(open);
  return opens.size > 0 ? opens : undefined;
}
