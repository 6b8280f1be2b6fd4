import { Attr, S_IFDIR } from '#base/attr.ts';
import { ENOENT, ENOTDIR, Errno, ESTALE } from '#base/errno.ts';
import { andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import { O_PATH } from '#host/constants.ts';
import { inline } from '#host/linux.ts';
import { type Submitter, type Syscalls, serverCreds } from '#host/syscalls.ts';
import { type FdBudget, type FdHolder, type Loss, losses } from '#quota/fd-budget.ts';
import type { Node } from '../tree.ts';
import type { CachedAttr } from './attr-cache.ts';
import { type DirEntry, KnownNames } from './known-names.ts';
import { inoKey, type Volume, type Volumes } from './volume.ts';
import { withFd } from './with-fd.ts';

/** What is open on a node, and lends it the descriptor that it has until it is closed. */
export interface Opened {
  use<T>(act: (fd: number) => MaybePromise<T>): MaybePromise<T>;
}

/**
 * An object of the host's file system: found by (mount, device, inode) and shared by all fids on it. A descriptor pins its
 * inode: an O_PATH descriptor of its own, or that of anything that is open on it. When the budget is spent and nothing is open, what
 * is left is what it takes to get one again: a file handle, or without the privilege for those a name, with the identity
 * checked.
 */
export class LocalNode implements Node, FdHolder {
  readonly volume: Volume;
  readonly ino: number | bigint;
  /** Changes only if somebody rewrites the type in a mapped record. */
  type: number;
  readonly pathLow: number;
  readonly pathHigh: number;
  /**
   * Tells a new inode from an old one of the same number (a hash of the birth time). overlayfs gives a file another one when it
   * copies it up.
   */
  gen: number;
  /** Its own; −1 when given up, or when it never had one since it was made open. */
  fd: number;
  /** The directory it was last seen in, which is held. Undefined for the root. */
  parent: LocalNode | undefined;
  /** Its name there; undefined for the root, and when that name was taken away and no other is known. */
  name: Name | undefined;
  /** Of what is no directory and has several names. */
  others: DirEntry[] | undefined = undefined;
  refs = 1;
  /** Running calls that use the descriptor. */
  busy = 0;
  touched = false;
  handle: Bytes | undefined = undefined;
  /** What the model has shown of it, if that can be trusted: see Views. */
  cachedAttr: CachedAttr | undefined = undefined;
  opens: Opened | Set<Opened> | undefined = undefined;
  readonly #table: NodeTable;

  constructor(table: NodeTable, volume: Volume, attr: Attr) {
    this.#table = table;
    this.volume = volume;
    this.ino = inoKey(attr);
    this.gen = attr.gen;
    this.type = attr.type;
    const [low, high] = table.volumes.paths.of(volume.index, attr.inoLow, attr.inoHigh);
    this.pathLow = low;
    this.pathHigh = high;
    this.fd = -1;
  }

  get isDirectory(): boolean {
    return this.type === S_IFDIR;
  }

  giveUp(allowed: Loss = 'nothing'): boolean {
    return this.#table.giveUp(this, allowed);
  }
}

/** The nodes of one tree: who is held, and with which descriptor. */
export class NodeTable {
  readonly volumes: Volumes;
  readonly places = new KnownNames(this);
  readonly #descriptors: FdBudget;

  constructor(volumes: Volumes, descriptors: FdBudget) {
    this.volumes = volumes;
    this.#descriptors = descriptors;
  }

  /**
   * Runs `act` with the node's descriptor, which stays open until the answer is there. Every use of a node's descriptor
   * goes through here.
   */
  use<T>(submitter: Submitter, node: LocalNode, act: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    node.busy++;
    node.touched = true;
    let answer: MaybePromise<T>;
    try {
      answer = node.fd >= 0 ? act(node.fd) : this.#useOther(submitter, node, act);
    } catch (error) {
      this.#used(node);
      throw error;
    }
    if (answer instanceof Promise) return answer.finally(() => this.#used(node));
    this.#used(node);
    return answer;
  }

  #useOther<T>(submitter: Submitter, node: LocalNode, act: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    const { opens } = node;
    if (!opens) return andThen(this.#revive(submitter, node), act);
    return (opens instanceof Set ? opens.values().next().value! : opens).use(act);
  }

  /** Runs `act` while the node has a descriptor. `has` tells whether it could be had. */
  keeping<T>(submitter: Submitter, node: LocalNode, act: (has: boolean) => MaybePromise<T>): MaybePromise<T> {
    let had = false;
    const kept = () =>
      this.use(submitter, node, () => {
        had = true;
        return act(true);
      });
    return recover<T>(kept, error => {
      if (had) throw error;
      return act(false);
    });
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
        this.#descriptors.leave(node);
        this.#close(node, node.fd);
        node.fd = -1;
      }
      this.volumes.leave(node.volume);
      if (node.others) this.places.forgetOthers(node);
      const parent: LocalNode | undefined = node.parent;
      node.parent = undefined;
      node = parent && --parent.refs === 0 && parent.busy === 0 ? parent : undefined;
    }
  }

  /**
   * Makes a fresh O_PATH descriptor, which it takes whatever happens, into a held node with its attributes, or finds the node
   * that is there already. `mode` is what the object stands for, where that is known. The receiver owns one count.
   */
  arrive(
    submitter: Submitter,
    sys: Syscalls,
    fd: number,
    attr: Attr,
    parent: LocalNode | undefined,
    name: Name | undefined,
    mode?: number,
  ): MaybePromise<LocalNode> {
    const described = withFd(sys, fd, () => sys.stat(serverCreds, fd, attr));
    return andThen(described, () => {
      if (mode !== undefined) attr.mode = mode;
      const volume = this.volumes.find(attr);
      if (volume) return this.#adopt(volume, fd, attr, parent, name);
      const found = withFd(sys, fd, () => this.volumes.discover(submitter, fd, attr));
      return andThen(found, discovered => {
        discovered.arriving--;
        return this.#adopt(discovered, fd, attr, parent, name);
      });
    });
  }

  #adopt(
    volume: Volume,
    fd: number,
    attr: Attr,
    parent: LocalNode | undefined,
    name: Name | undefined,
  ): LocalNode {
    const node = this.#nodeOf(volume, attr, parent, name);
    if (node.fd >= 0) this.#close(node, fd);
    else this.#equip(node, fd);
    return node;
  }

  /**
   * Makes an object that was just made, and is open at `fd`, into a held node. Its descriptor is the open file's, which `open`
   * makes of `fd` in the same turn. When it fails, `fd` is the caller's.
   */
  arriveOpen<T>(
    submitter: Submitter,
    sys: Syscalls,
    fd: number,
    attr: Attr,
    parent: LocalNode,
    name: Name,
    mode: number | undefined,
    open: (node: LocalNode) => T,
  ): MaybePromise<T> {
    return andThen(sys.stat(serverCreds, fd, attr), () => {
      if (mode !== undefined) attr.mode = mode;
      const volume = this.volumes.find(attr);
      if (volume) return open(this.#nodeOf(volume, attr, parent, name));
      return andThen(this.volumes.discover(submitter, fd, attr), discovered => {
        discovered.arriving--;
        return open(this.#nodeOf(discovered, attr, parent, name));
      });
    });
  }

  /** The one node of an object, held; the only place where one is made. The object has a descriptor, so that it is there. */
  #nodeOf(volume: Volume, attr: Attr, parent: LocalNode | undefined, name: Name | undefined): LocalNode {
    const key = inoKey(attr);
    let node = volume.nodes.get(key);
    if (node && isSame(node, attr)) {
      node.refs++;
      node.touched = true;
    } else {
      // One that is not the same has no descriptor, and its object is gone: its inode number belongs to another one now.
      node = new LocalNode(this, volume, attr);
      volume.nodes.set(key, node);
    }
    this.places.seenAt(node, parent, name, attr.nlink > 1);
    return node;
  }

  #equip(node: LocalNode, fd: number): void {
    node.fd = fd;
    node.touched = true;
    this.#descriptors.admit(node);
  }

  /** The last that is open on a node is about to be closed: gives the node a descriptor of its own. */
  equipFrom(submitter: Submitter, node: LocalNode, fd: number): MaybePromise<void> {
    // Of a local file system nothing is asked for that.
    const sys = node.volume.local ? inline : node.volume.sys(submitter);
    const opened = recover<number>(
      () => sys.reopen(serverCreds, fd, O_PATH),
      () => {
        // Out of descriptors: it is opened again when there are some.
        this.#lossOf(node, fd);
        return -1;
      },
    );
    return andThen(opened, own => {
      if (own >= 0) this.#revived(node, own);
    });
  }

  /** Set by the tree; its node is never moved and never given up. */
  root: LocalNode | undefined;

  isRoot(node: LocalNode): boolean {
    return node === this.root;
  }

  find(attr: Attr): LocalNode | undefined {
    const node = this.volumes.find(attr)?.nodes.get(inoKey(attr));
    return node && isSame(node, attr) ? node : undefined;
  }

  /** Closes the descriptor of a node that has another, or can be opened again, or may be lost. */
  giveUp(node: LocalNode, allowed: Loss): boolean {
    if (node.busy > 0 || this.isRoot(node) || node.fd < 0) return false;
    const loss = node.opens ? 'nothing' : this.#lossOf(node, node.fd);
    if (losses.indexOf(loss) > losses.indexOf(allowed)) return false;
    this.#close(node, node.fd);
    node.fd = -1;
    return true;
  }

  /** What is lost with `fd`, a node's last descriptor; notes what it takes to open the node again. */
  #lossOf(node: LocalNode, fd: number): Loss {
    if (!hasName(node, fd)) return 'nameless';
    node.handle = node.volume.mountFd >= 0 ? handleOf(fd) : undefined;
    return node.handle !== undefined || node.name !== undefined ? 'nothing' : 'unknown';
  }

  #close({ volume }: LocalNode, fd: number): void {
    this.#descriptors.closing(volume.close(fd));
  }

  /** Opens the descriptor of a node again. ESTALE when the object is gone, or is not where it was last seen. */
  #revive(submitter: Submitter, node: LocalNode): MaybePromise<number> {
    const { mountFd } = node.volume;
    if (node.handle !== undefined && mountFd >= 0) {
      return andThen(node.volume.sys(submitter).openHandle(mountFd, node.handle), fd => {
        if (fd < 0) throw Errno.of(-fd);
        return this.#revived(node, fd);
      });
    }
    // Ancestors first, one after another: a guest decides how many there are.
    const lost = [node];
    for (let at = node.parent; at && this.#lacksAll(at); at = at.parent) lost.push(at);
    if (!node.others) return this.#reviveByName(submitter, lost);
    const others = [...node.others];
    return recover<number>(
      () => this.#reviveByName(submitter, lost),
      error => this.#reviveByOther(submitter, node, others, error),
    );
  }

  #lacksAll(node: LocalNode): boolean {
    return node.fd < 0 && !node.opens && node.handle === undefined;
  }

  /** Revives the last of `lost` first, and in the end the first. */
  #reviveByName(submitter: Submitter, lost: LocalNode[]): MaybePromise<number> {
    let fd = -1;
    while (lost.length > 0) {
      const next = lost.pop()!;
      const found = next.fd >= 0 ? next.fd : this.#findAt(submitter, next, next.parent, next.name);
      if (found instanceof Promise)
        return lost.length === 0 ? found : found.then(() => this.#reviveByName(submitter, lost));
      fd = found;
    }
    return fd;
  }

  /** Under the other names that are known, the one noted last first, when it was not found under the one before. */
  #reviveByOther(
    submitter: Submitter,
    node: LocalNode,
    others: DirEntry[],
    failure: unknown,
  ): MaybePromise<number> {
    const other = others.pop();
    if (failure !== ESTALE || !other) throw failure;
    return recover<number>(
      () => this.#findAt(submitter, node, other.dir, other.name),
      error => this.#reviveByOther(submitter, node, others, error),
    );
  }

  #findAt(
    submitter: Submitter,
    node: LocalNode,
    dir: LocalNode | undefined,
    name: Name | undefined,
  ): MaybePromise<number> {
    if (dir === undefined || name === undefined) throw ESTALE;
    const sys = dir.volume.sys(submitter);
    return andThen(
      this.use(submitter, dir, dirfd => dir.volume.lookup(submitter, serverCreds, dirfd, name)),
      fd => {
        if (fd === -ENOENT.code || fd === -ENOTDIR.code) throw ESTALE;
        if (fd < 0) throw Errno.of(-fd);
        const attr = new Attr();
        const found = withFd(sys, fd, () =>
          andThen(sys.stat(serverCreds, fd, attr), () => {
            const { volume, ino, gen } = node;
            const isThere = this.volumes.find(attr) === volume && inoKey(attr) === ino && attr.gen === gen;
            if (!isThere) throw ESTALE;
          }),
        );
        return andThen(found, () => this.#revived(node, fd));
      },
    );
  }

  #revived(node: LocalNode, fd: number): number {
    // Two calls may have waited for the same descriptor.
    if (node.fd >= 0) this.#close(node, fd);
    else this.#equip(node, fd);
    return node.fd;
  }
}

/** `attr` is of an object of the node's volume with its inode number, which nobody else has while a descriptor pins the inode. */
function isSame(node: LocalNode, attr: Attr): boolean {
  return node.fd >= 0 || node.opens !== undefined || node.gen === attr.gen;
}

/**
 * Whether the object at `fd` has a name; notes by what it is told from others then. Elsewhere than on this machine, where asking may
 * wait, only what this server has done to its names is known.
 */
function hasName(node: LocalNode, fd: number): boolean {
  if (!node.volume.local) return node.name !== undefined;
  try {
    const attr = node.volume.statNow(fd);
    node.gen = attr.gen;
    return attr.nlink > 0;
  } catch {
    return false;
  }
}

function handleOf(fd: number): Bytes | undefined {
  try {
    return inline.handle(fd) as Bytes | undefined;
  } catch {
    return undefined;
  }
}
