import { Attr } from '#base/attr.ts';
import { ENOENT, ENOTDIR, Errno, ESTALE } from '#base/errno.ts';
import { andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import { O_PATH } from '#host/constants.ts';
import { inline } from '#host/linux.ts';
import { type Submitter, type Syscalls, serverCreds } from '#host/syscalls.ts';
import { type FdBudget, type Loss, losses } from '#quota/fd-budget.ts';
import { KnownNames } from './known-names.ts';
import { type DirEntry, LocalNode, type NodeOwner } from './node.ts';
import { inoKey, type Volume, type Volumes } from './volume.ts';
import { withFd } from './with-fd.ts';

/** The nodes of one tree, and their descriptors. */
export class NodeTable implements NodeOwner {
  readonly volumes: Volumes<LocalNode>;
  readonly names = new KnownNames(this);
  /** Set by the tree. Never moved and never evicted. */
  root: LocalNode | undefined;
  readonly #descriptors: FdBudget;

  constructor(volumes: Volumes<LocalNode>, descriptors: FdBudget) {
    this.volumes = volumes;
    this.#descriptors = descriptors;
  }

  isRoot(node: LocalNode): boolean {
    return node === this.root;
  }

  /** Runs `act` with a descriptor of the node, which stays open until the result has settled. Reopens an evicted node. */
  use<T>(submitter: Submitter, node: LocalNode, act: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    node.busy++;
    node.touched = true;
    let result: MaybePromise<T>;
    try {
      result = node.fd >= 0 ? act(node.fd) : this.#useOther(submitter, node, act);
    } catch (error) {
      this.#used(node);
      throw error;
    }
    if (result instanceof Promise) return result.finally(() => this.#used(node));
    this.#used(node);
    return result;
  }

  /** With the descriptor of an open file of the node, or reopened. */
  #useOther<T>(submitter: Submitter, node: LocalNode, act: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    const { opens } = node;
    if (!opens) return andThen(this.#reopen(submitter, node), act);
    return (opens instanceof Set ? opens.values().next().value! : opens).use(act);
  }

  /** As `use`, but with −1 if the node cannot be reopened. */
  tryUse<T>(submitter: Submitter, node: LocalNode, act: (fd: number) => MaybePromise<T>): MaybePromise<T> {
    let used = false;
    const using = () =>
      this.use(submitter, node, fd => {
        used = true;
        return act(fd);
      });
    return recover<T>(using, error => {
      if (used) throw error;
      return act(-1);
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

  /** Forgets an unreferenced node and its unreferenced ancestors: a loop, since a guest decides their number. */
  #forget(last: LocalNode): void {
    for (let node: LocalNode | undefined = last; node; ) {
      if (node.volume.nodes.get(node.ino) === node) node.volume.nodes.delete(node.ino);
      if (node.fd >= 0) {
        this.#descriptors.leave(node);
        this.#close(node, node.fd);
        node.fd = -1;
      }
      this.volumes.leave(node.volume);
      if (node.otherNames) this.names.forgetOthers(node);
      const parent: LocalNode | undefined = node.parent;
      node.parent = undefined;
      node = parent && --parent.refs === 0 && parent.busy === 0 ? parent : undefined;
    }
  }

  /**
   * The node of a new O_PATH descriptor, with one reference for the caller, and the attributes. Takes over the descriptor, on
   * errors too. `mode`: the client's mode if it is known.
   */
  adopt(
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
      if (volume) return this.#withFd(volume, fd, attr, parent, name);
      const found = withFd(sys, fd, () => this.volumes.discover(submitter, fd, attr));
      return andThen(found, discovered => {
        discovered.arriving--;
        return this.#withFd(discovered, fd, attr, parent, name);
      });
    });
  }

  #withFd(
    volume: Volume<LocalNode>,
    fd: number,
    attr: Attr,
    parent: LocalNode | undefined,
    name: Name | undefined,
  ): LocalNode {
    const node = this.#nodeOf(volume, attr, parent, name);
    if (node.fd >= 0) this.#close(node, fd);
    else this.#setFd(node, fd);
    return node;
  }

  /**
   * The node of a new object that is open at `fd`, with one reference for the caller. It gets no descriptor of its own: `open`,
   * called at once, makes `fd` an open file of the node. On errors `fd` is the caller's.
   */
  adoptOpen<T>(
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
      const known = this.volumes.find(attr);
      if (known) return open(this.#nodeOf(known, attr, parent, name));
      return this.volumes.discover(submitter, fd, attr).then(discovered => {
        discovered.arriving--;
        return open(this.#nodeOf(discovered, attr, parent, name));
      });
    });
  }

  /** The one node of an object, referenced. The caller has a descriptor of the object, so its inode number is not reused. */
  #nodeOf(
    volume: Volume<LocalNode>,
    attr: Attr,
    parent: LocalNode | undefined,
    name: Name | undefined,
  ): LocalNode {
    const key = inoKey(attr);
    let node = volume.nodes.get(key);
    if (node && isSame(node, attr)) {
      node.refs++;
      node.touched = true;
    } else {
      // A node that is not the same is evicted, and its object removed: the inode number was reused.
      const path = this.volumes.paths.of(volume.index, attr.inoLow, attr.inoHigh);
      node = new LocalNode(this, volume, attr, path);
      volume.nodes.set(key, node);
    }
    this.names.seen(node, parent, name, attr.nlink > 1);
    return node;
  }

  #setFd(node: LocalNode, fd: number): void {
    node.fd = fd;
    node.touched = true;
    this.#descriptors.admit(node);
  }

  /** Gives a node a descriptor of its own before its last open file, with descriptor `fd`, is closed. */
  equipFrom(submitter: Submitter, node: LocalNode, fd: number): MaybePromise<void> {
    // On a local file system O_PATH does not wait.
    const sys = node.volume.local ? inline : node.volume.sys(submitter);
    const opened = recover<number>(
      () => sys.reopen(serverCreds, fd, O_PATH),
      () => {
        // Out of descriptors: the node is as if evicted.
        this.#lossOf(node, fd);
        return -1;
      },
    );
    return andThen(opened, own => {
      if (own >= 0) this.#reopened(node, own);
    });
  }

  /** The node of the object with these attributes, if there is one. */
  find(attr: Attr): LocalNode | undefined {
    const node = this.volumes.find(attr)?.nodes.get(inoKey(attr));
    return node && isSame(node, attr) ? node : undefined;
  }

  /** Closes the node's descriptor unless it is in use or more than `allowed` would be lost. */
  evict(node: LocalNode, allowed: Loss): boolean {
    if (node.busy > 0 || this.isRoot(node) || node.fd < 0) return false;
    const loss = node.opens ? 'nothing' : this.#lossOf(node, node.fd);
    if (losses.indexOf(loss) > losses.indexOf(allowed)) return false;
    this.#close(node, node.fd);
    node.fd = -1;
    return true;
  }

  /** What closing `fd`, a node's last descriptor, loses. Records what reopening it needs. */
  #lossOf(node: LocalNode, fd: number): Loss {
    if (!hasName(node, fd)) return 'nameless';
    node.handle = node.volume.mountFd >= 0 ? handleOf(fd) : undefined;
    return node.handle !== undefined || node.name !== undefined ? 'nothing' : 'unknown';
  }

  #close({ volume }: LocalNode, fd: number): void {
    this.#descriptors.closing(volume.close(fd));
  }

  /** Reopens an evicted node. ESTALE if the object is gone or not where it was seen. */
  #reopen(submitter: Submitter, node: LocalNode): MaybePromise<number> {
    const { volume } = node;
    if (node.handle !== undefined && volume.mountFd >= 0) {
      return andThen(volume.sys(submitter).openHandle(volume.mountFd, node.handle), fd => {
        if (fd < 0) throw Errno.of(-fd);
        return this.#reopened(node, fd);
      });
    }
    // Ancestors first, by a loop: a guest decides their number.
    const evicted = [node];
    for (let at = node.parent; at && at.fd < 0 && !at.opens && at.handle === undefined; at = at.parent)
      evicted.push(at);
    if (!node.otherNames) return this.#reopenByName(submitter, evicted);
    const others = [...node.otherNames];
    return recover<number>(
      () => this.#reopenByName(submitter, evicted),
      error => this.#reopenByOther(submitter, node, others, error),
    );
  }

  /** Reopens these nodes, the last first. Returns the descriptor of the first. */
  #reopenByName(submitter: Submitter, evicted: LocalNode[]): MaybePromise<number> {
    let fd = -1;
    while (evicted.length > 0) {
      const next = evicted.pop()!;
      const found = next.fd >= 0 ? next.fd : this.#reopenAt(submitter, next, next.parent, next.name);
      if (found instanceof Promise)
        return evicted.length === 0 ? found : found.then(() => this.#reopenByName(submitter, evicted));
      fd = found;
    }
    return fd;
  }

  /** Tries other names, the newest first, as long as a name leads to another object or none. */
  #reopenByOther(
    submitter: Submitter,
    node: LocalNode,
    others: DirEntry[],
    failure: unknown,
  ): MaybePromise<number> {
    const other = others.pop();
    if (failure !== ESTALE || !other) throw failure;
    return recover<number>(
      () => this.#reopenAt(submitter, node, other.dir, other.name),
      error => this.#reopenByOther(submitter, node, others, error),
    );
  }

  #reopenAt(
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
        return andThen(found, () => this.#reopened(node, fd));
      },
    );
  }

  #reopened(node: LocalNode, fd: number): number {
    // Another call may have reopened it meanwhile.
    if (node.fd >= 0) this.#close(node, fd);
    else this.#setFd(node, fd);
    return node.fd;
  }
}

/**
 * Whether `attr`, of the node's volume and inode number, describes its object. A descriptor keeps the number from being reused.
 */
function isSame(node: LocalNode, attr: Attr): boolean {
  return node.fd >= 0 || node.opens !== undefined || node.gen === attr.gen;
}

/**
 * Whether the object at `fd` has a name; records its `gen`. On file systems that are not local stat may wait: there, whether this
 * server knows a name.
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
