import { type Answer, andThen } from '../answer.ts';
import { Attr } from '../attr.ts';
import { Errno, ESTALE } from '../errno.ts';
import { O_PATH } from '../host/constants.ts';
import { inline } from '../host/linux.ts';
import { serverCaller } from '../host/syscalls.ts';
import type { Bytes, Name } from '../name.ts';
import type { Descriptors, Holder } from './descriptors.ts';
import type { Node } from './tree.ts';
import type { Seen } from './views.ts';
import { inoKey, type Volume, type Volumes } from './volume.ts';

/** What is open on a node. */
export interface Opened {
  /** Counts as one that keeps its descriptors, from now on. */
  pin(): void;
  /** Whether it is of a session that keeps more than others leave it. */
  readonly isOverdrawn: boolean;
  /** Lets the node use its descriptor. */
  lend<T>(act: (fd: number) => Answer<T>): Answer<T>;
}

const nothing: readonly Opened[] = [];

/**
 * An object of the host's file system: found by (mount, device, inode) and shared by all fids on it. It holds one O_PATH
 * descriptor, which pins the inode, or, when the descriptor budget is spent, what it takes to get one again: a file
 * handle, or without the privilege for those its parent and name, with the identity checked.
 */
export class LocalNode implements Node, Holder {
  readonly volume: Volume;
  readonly ino: number | bigint;
  /** Changes only if somebody rewrites the type in a mapped record. */
  type: number;
  readonly pathLow: number;
  readonly pathHigh: number;
  /** Tells a new inode from an old one of the same number (a hash of the birth time). */
  readonly gen: number;
  /** −1 when given up, or when there is a lender. */
  fd: number;
  /**
   * The open file that it was made as, for as long as it has no descriptor of its own: most new files are written, closed
   * and not looked at in between. On local volumes only, where a descriptor is used within a turn.
   */
  lender: Opened | undefined = undefined;
  /** Where it was last seen: the directory is held. Undefined for the root. */
  parent: LocalNode | undefined;
  name: Name | undefined;
  refs = 1;
  /** Running calls that use the descriptor. */
  busy = 0;
  touched = false;
  handle: Bytes | undefined = undefined;
  /** What the model has shown of it, if that can be trusted: see Views. */
  seen: Seen | undefined = undefined;
  opens: Opened | Set<Opened> | undefined = undefined;
  #unlinked = false;
  readonly #table: NodeTable;

  constructor(table: NodeTable, volume: Volume, attr: Attr, fd: number) {
    this.#table = table;
    this.volume = volume;
    this.ino = inoKey(attr);
    this.gen = attr.gen;
    this.type = attr.type;
    const [low, high] = table.volumes.paths.of(volume.index, attr.inoLow, attr.inoHigh);
    this.pathLow = low;
    this.pathHigh = high;
    this.fd = fd;
  }

  /** Lost a name: it may have no other, and then nothing but the descriptor leads to it. */
  get unlinked(): boolean {
    return this.#unlinked;
  }

  set unlinked(lost: boolean) {
    this.#unlinked = lost;
    if (lost) for (const open of this.allOpens) open.pin();
  }

  get allOpens(): Iterable<Opened> {
    const { opens } = this;
    return opens === undefined ? nothing : opens instanceof Set ? opens : [opens];
  }

  giveUp(): boolean {
    return this.#table.giveUp(this);
  }

  giveUpForGood(): boolean {
    return this.#table.giveUpForGood(this);
  }
}

/** The nodes of one tree: who is held, and with which descriptor. */
export class NodeTable {
  readonly volumes: Volumes;
  readonly #descriptors: Descriptors;
  readonly #attr = new Attr();

  constructor(volumes: Volumes, descriptors: Descriptors) {
    this.volumes = volumes;
    this.#descriptors = descriptors;
  }

  /**
   * Runs `act` with the node's descriptor, which stays open until the answer is there. Every use of a node's descriptor
   * goes through here.
   */
  use<T>(node: LocalNode, act: (fd: number) => Answer<T>): Answer<T> {
    node.busy++;
    node.touched = true;
    let answer: Answer<T>;
    try {
      answer = node.fd >= 0 ? act(node.fd) : this.#useOther(node, act);
    } catch (error) {
      this.#used(node);
      throw error;
    }
    if (answer instanceof Promise) return answer.finally(() => this.#used(node));
    this.#used(node);
    return answer;
  }

  #useOther<T>(node: LocalNode, act: (fd: number) => Answer<T>): Answer<T> {
    return node.lender ? node.lender.lend(act) : andThen(this.#revive(node), act);
  }

  #used(node: LocalNode): void {
    if (--node.busy === 0 && node.refs === 0) this.#forget(node);
  }

  hold(node: LocalNode): void {
    node.refs++;
  }

  release(node: LocalNode): void {
    if (--node.refs === 0 && node.busy === 0) this.#forget(node);
  }

  /** Lets go of a node that nobody holds, and of its ancestors: a loop, since a guest decides how many there are. */
  #forget(last: LocalNode): void {
    for (let node: LocalNode | undefined = last; node; ) {
      if (node.volume.nodes.get(node.ino) === node) node.volume.nodes.delete(node.ino);
      if (node.fd >= 0) {
        this.#descriptors.leave(node, 'node');
        this.#close(node.fd);
        node.fd = -1;
      }
      this.volumes.leave(node.volume);
      const parent: LocalNode | undefined = node.parent;
      node.parent = undefined;
      node = parent && --parent.refs === 0 && parent.busy === 0 ? parent : undefined;
    }
  }

  /**
   * Makes a fresh O_PATH descriptor into a held node, or finds the node that is there already and closes the descriptor.
   * `attr` describes the object behind `fd`. The receiver of the node owns one count.
   */
  adopt(fd: number, attr: Attr, parent: LocalNode | undefined, name: Name | undefined): Answer<LocalNode> {
    const volume = this.volumes.find(attr);
    if (volume) return this.#adoptOn(volume, fd, attr, parent, name);
    return andThen(this.volumes.discover(fd, attr), found => {
      found.arriving--;
      return this.#adoptOn(found, fd, attr, parent, name);
    });
  }

  #adoptOn(
    volume: Volume,
    fd: number,
    attr: Attr,
    parent: LocalNode | undefined,
    name: Name | undefined,
  ): LocalNode {
    const key = inoKey(attr);
    const known = volume.nodes.get(key);
    if (known && (known.fd >= 0 || known.lender || known.gen === attr.gen)) {
      if (known.fd >= 0) this.#close(fd);
      else this.#equip(known, fd);
      known.refs++;
      known.touched = true;
      this.moved(known, parent, name);
      return known;
    }
    // A node without a descriptor whose inode number now belongs to another object: its own object is gone.
    const node = new LocalNode(this, volume, attr, -1);
    volume.nodes.set(key, node);
    this.#equip(node, fd);
    this.moved(node, parent, name);
    return node;
  }

  #equip(node: LocalNode, fd: number): void {
    node.fd = fd;
    node.lender = undefined;
    node.touched = true;
    this.#descriptors.admit(node, 'node');
  }

  /**
   * Makes an object that was just made, and is open, into a held node without a descriptor of its own. The receiver names
   * the lender in the same turn. Undefined where the node must have its own.
   */
  adoptOpen(attr: Attr, parent: LocalNode, name: Name): LocalNode | undefined {
    const volume = this.volumes.find(attr);
    if (!volume?.local) return undefined;
    const node = new LocalNode(this, volume, attr, -1);
    volume.nodes.set(inoKey(attr), node);
    this.moved(node, parent, name);
    return node;
  }

  /** The lender is about to close `fd`, and the node goes on without it. */
  lenderLeaves(node: LocalNode, fd: number): void {
    node.lender = undefined;
    // Only the lender holds it.
    if (node.refs === 1) return;
    try {
      this.#equip(node, inline.reopen(serverCaller, fd, O_PATH) as number);
    } catch {
      // Out of descriptors: it is opened again when there are some.
      this.canDoWithout(node, fd);
    }
  }

  /** Notes where the object was last seen. */
  moved(node: LocalNode, parent: LocalNode | undefined, name: Name | undefined): void {
    if (parent === undefined || parent === node || this.isRoot(node)) return;
    node.name = name;
    const old = node.parent;
    if (old === parent) return;
    if (old) this.#cutCycle(node, parent);
    parent.refs++;
    node.parent = parent;
    if (old) this.release(old);
  }

  /** Directories moved about by others can leave a stale parent above `parent` that leads back to `node`. */
  #cutCycle(node: LocalNode, parent: LocalNode): void {
    for (let at: LocalNode | undefined = parent; at; at = at.parent) {
      if (at.parent !== node) continue;
      at.parent = undefined;
      this.release(node);
      return;
    }
  }

  /** Set by the tree; its node is never moved and never given up. */
  root: LocalNode | undefined;

  isRoot(node: LocalNode): boolean {
    return node === this.root;
  }

  find(attr: Attr): LocalNode | undefined {
    return this.volumes.find(attr)?.nodes.get(inoKey(attr));
  }

  /** Closes the descriptor of a node that can be opened again. An unlinked object cannot, so it keeps its own. */
  giveUp(node: LocalNode): boolean {
    if (node.busy > 0 || this.isRoot(node) || node.fd < 0) return false;
    if (!this.canDoWithout(node, node.fd)) return false;
    this.#close(node.fd);
    node.fd = -1;
    return true;
  }

  /** Whether a node can be opened again after `fd`, which is its last descriptor; notes what that takes. */
  canDoWithout(node: LocalNode, fd: number): boolean {
    // A name that was lost leads nowhere; where there are no handles either, another link does not help.
    const { local, mountFd } = node.volume;
    if (node.unlinked && (!local || mountFd < 0)) return false;
    if (local && this.#links(fd) === 0) return false;
    if (mountFd >= 0) node.handle = inline.handle(fd) as Bytes | undefined;
    return node.handle !== undefined || node.parent !== undefined;
  }

  #links(fd: number): number {
    try {
      void inline.stat(serverCaller, fd, this.#attr);
      return this.#attr.nlink;
    } catch {
      return 0;
    }
  }

  /** Gives up an object without a name for good, unless somebody has it open who has a right to that: ESTALE from then on. */
  giveUpForGood(node: LocalNode): boolean {
    if (node.busy > 0 || this.isRoot(node) || node.fd < 0) return false;
    if (!node.unlinked && this.isNameless(node, node.fd)) node.unlinked = true;
    if (!node.unlinked) return false;
    for (const open of node.allOpens) if (!open.isOverdrawn) return false;
    this.#close(node.fd);
    node.fd = -1;
    return true;
  }

  /** Whether somebody else took its last name. */
  isNameless(node: LocalNode, fd: number): boolean {
    if (!node.volume.local) return false;
    try {
      void inline.stat(serverCaller, fd, this.#attr);
      return this.#attr.nlink === 0;
    } catch {
      return false;
    }
  }

  /** An O_PATH descriptor knows nothing of its file system, so that closing one never waits. */
  #close(fd: number): void {
    void inline.close(fd);
  }

  /** Opens the descriptor of a node again. ESTALE when the object is gone, or is not where it was last seen. */
  #revive(node: LocalNode): Answer<number> {
    const { sys, mountFd } = node.volume;
    if (node.handle !== undefined && mountFd >= 0) {
      return andThen(sys.openHandle(mountFd, node.handle), fd => {
        if (fd < 0) throw fd === -ESTALE.code ? ESTALE : Errno.of(-fd);
        return this.#revived(node, fd);
      });
    }
    // Ancestors first, one after another: a guest decides how many there are.
    const lost = [node];
    for (let at = node.parent; at && at.fd < 0 && at.handle === undefined; at = at.parent) lost.push(at);
    return this.#reviveByName(lost);
  }

  /** Revives the last of `lost` first, and in the end the first. */
  #reviveByName(lost: LocalNode[]): Answer<number> {
    let fd = -1;
    while (lost.length > 0) {
      const next = lost.pop()!;
      const found = next.fd >= 0 ? next.fd : this.#findByName(next);
      if (found instanceof Promise)
        return lost.length === 0 ? found : found.then(() => this.#reviveByName(lost));
      fd = found;
    }
    return fd;
  }

  #findByName(node: LocalNode): Answer<number> {
    const { sys } = node.volume;
    const { parent, name } = node;
    if (parent === undefined || name === undefined) throw ESTALE;
    return andThen(
      this.use(parent, parentFd => sys.lookup(serverCaller, parentFd, name)),
      fd => {
        if (fd < 0) throw ESTALE;
        const attr = new Attr();
        return andThen(sys.stat(serverCaller, fd, attr), () => {
          if (inoKey(attr) === node.ino && attr.gen === node.gen) return this.#revived(node, fd);
          this.#close(fd);
          throw ESTALE;
        });
      },
    );
  }

  #revived(node: LocalNode, fd: number): number {
    // Two calls may have waited for the same descriptor.
    if (node.fd >= 0) this.#close(fd);
    else this.#equip(node, fd);
    return node.fd;
  }
}
