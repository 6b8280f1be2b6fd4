import { openSync } from 'node:fs';
import { type Answer, andThen, attempt, recover } from '../answer.ts';
import { Attr, S_IFDIR, S_IFLNK, S_IFREG } from '../attr.ts';
import { EEXIST, EINVAL, EMFILE, ENOENT, ENOTDIR, Errno, ESTALE } from '../errno.ts';
import { O_DIRECTORY, O_DSYNC, O_PATH, O_RDONLY, O_TRUNC } from '../host/constants.ts';
import { elsewhere } from '../host/local.ts';
import { type Caller, serverCaller } from '../host/syscalls.ts';
import type { Bytes, Name } from '../name.ts';
import { lengthOf, type Owned, type OwnedSegments, type Segments } from '../owned.ts';
import { isOwn, type SecurityModel, type Target, type Want } from '../security/model.ts';
import { Changes } from './changes.ts';
import type { Descriptors } from './descriptors.ts';
import { Leftovers } from './leftovers.ts';
import { Listings } from './listings.ts';
import { OwnerLocks } from './local-locks.ts';
import { type LocalNode, NodeTable } from './local-node.ts';
import { LocalXattrs } from './local-xattrs.ts';
import { Maker } from './making.ts';
import { Names } from './names.ts';
import { type LocalOpen, OpenTable } from './open-file.ts';
import { openFlags, refuseToOpen, wantOf, writeAll, writeAllNow } from './opening.ts';
import type { Actor, Change, LockConflict, LockOwner, LockRange, Making, OpenHow, Tree } from './tree.ts';
import { Views } from './views.ts';
import { Volumes } from './volume.ts';

/** What a tree on the host needs: the descriptor budget (shared by all trees), and the security model. */
export interface LocalTreeParts {
  readonly descriptors: Descriptors;
  readonly model: SecurityModel;
  /** Nothing may be changed, not even by the server for itself. */
  readonly readonly?: boolean;
  /** Its file systems are frozen now and then (FIFREEZE): no change is made on the event loop's thread. */
  readonly freezable?: boolean;
}

type CreateHow = OpenHow & { readonly exclusive: boolean; readonly mode: number; readonly gid: number };

interface Created {
  readonly node: LocalNode;
  readonly file: LocalOpen;
}

/** How often a create that may open an existing file tries again when the name comes and goes under it. */
const createTriesMax = 16;

/** A directory of the host. Every change runs through here, whatever the model. */
export class LocalTree implements Tree {
  readonly root: LocalNode;
  readonly #model: SecurityModel;
  readonly #nodes: NodeTable;
  readonly #opens: OpenTable;
  readonly #maker: Maker;
  readonly #xattrs: LocalXattrs;
  readonly #locks: OwnerLocks;
  readonly #changes: Changes;
  readonly #names: Names;
  readonly #views: Views;
  readonly #listings: Listings;

  private constructor(root: LocalNode, nodes: NodeTable, parts: LocalTreeParts) {
    this.root = root;
    this.#model = parts.model;
    this.#nodes = nodes;
    this.#opens = new OpenTable(nodes, parts.descriptors);
    this.#maker = new Maker(nodes, parts.model);
    this.#xattrs = new LocalXattrs(nodes, parts.model);
    this.#locks = new OwnerLocks(nodes, this.#opens);
    this.#changes = new Changes(nodes, this.#opens, parts.model);
    this.#views = new Views(nodes, parts.model);
    const leftovers = new Leftovers(parts.model, parts.readonly ?? false);
    this.#names = new Names(nodes, this.#changes, parts.model, leftovers);
    this.#listings = new Listings(nodes, this.#opens, parts.model, leftovers);
  }

  /** Opens the directory `path`. Throws what open(2) says (a Node.js error), for the one path that is ever resolved. */
  static async open(path: string, parts: LocalTreeParts): Promise<LocalTree> {
    const fd = openSync(path, O_PATH | O_DIRECTORY);
    const nodes = new NodeTable(new Volumes(parts.freezable ?? false), parts.descriptors);
    const root = await nodes.arrive(elsewhere, fd, new Attr(), undefined, undefined);
    nodes.root = root;
    return new LocalTree(root, nodes, parts);
  }

  caller(uid: number): Answer<Caller> {
    return this.#model.user(uid);
  }

  hold(node: LocalNode): void {
    this.#nodes.hold(node);
  }

  release(node: LocalNode): void {
    this.#nodes.release(node);
  }

  walk(caller: Caller, dir: LocalNode, name: Name, attr: Attr): Answer<LocalNode | Errno> {
    if (dir.type !== S_IFDIR) return ENOTDIR;
    if (isOwn(this.#model, name)) return ENOENT;
    const { sys } = dir.volume;
    const as = this.#model.runsAs(caller);
    return this.#nodes.use(dir, dirfd =>
      andThen(sys.lookup(as, dirfd, name), fd =>
        fd < 0 ? Errno.of(-fd) : this.#arrive(fd, dir, name, attr),
      ),
    );
  }

  /** From a fresh O_PATH descriptor to a held node and its attributes. */
  #arrive(fd: number, dir: LocalNode, name: Name, attr: Attr): Answer<LocalNode> {
    return andThen(this.#nodes.arrive(dir.volume.sys, fd, attr, dir, name), node =>
      andThen(
        attempt(
          () =>
            node.volume === dir.volume || node.volume.local
              ? this.#views.overlay(node, attr)
              : this.stat(node, attr),
          () => this.release(node),
        ),
        () => node,
      ),
    );
  }

  parent(_caller: Caller, dir: LocalNode): LocalNode {
    if (dir.type !== S_IFDIR) throw ENOTDIR;
    const parent = dir === this.root ? this.root : dir.parent;
    if (!parent) throw ESTALE;
    this.hold(parent);
    return parent;
  }

  stat(node: LocalNode, attr: Attr): Answer<void> {
    const { sys } = node.volume;
    return andThen(
      this.#nodes.use(node, fd => sys.stat(serverCaller, fd, attr)),
      () => this.#views.overlay(node, attr),
    );
  }

  statfs(node: LocalNode, into: Owned): Answer<void> {
    return this.#nodes.use(node, fd => node.volume.sys.statfs(serverCaller, fd, into));
  }

  change(actor: Actor, node: LocalNode, change: Change, file?: LocalOpen): Answer<void> {
    return this.#changes.apply(actor, node, change, file);
  }

  #withTarget<T>(node: LocalNode, act: (target: Target) => Answer<T>): Answer<T> {
    return this.#nodes.use(node, fd => act({ sys: node.volume.sys, fd }));
  }

  readlink(caller: Caller, node: LocalNode): Answer<Bytes> {
    if (node.type !== S_IFLNK) throw EINVAL;
    return this.#withTarget(node, target => this.#model.readlink(target, caller));
  }

  open(actor: Actor, node: LocalNode, how: OpenHow): Answer<LocalOpen> {
    refuseToOpen(node);
    const { volume } = node;
    const { caller, pins = this.#opens.nobody } = actor;
    const as = this.#model.runsAs(caller);
    const flags = openFlags(how);
    const reopen = () =>
      this.#nodes.use(node, fd => {
        const sys = how.truncate ? volume.sysToTruncate(fd) : volume.sys;
        return sys.reopen(as, fd, flags);
      });
    const truncate = () =>
      this.#changes.around(actor, node, () =>
        andThen(
          this.#withTarget(node, target => this.#model.writing(target, caller)),
          reopen,
        ),
      );
    return this.#opens.counted(pins, EMFILE, () =>
      andThen(how.truncate ? truncate() : reopen(), fd =>
        this.#opens.add(pins, node, fd, flags, how.read, how.write),
      ),
    );
  }

  openDir({ caller, pins = this.#opens.nobody }: Actor, node: LocalNode): Answer<LocalOpen> {
    if (node.type !== S_IFDIR) throw ENOTDIR;
    const { sys } = node.volume;
    const flags = O_RDONLY | O_DIRECTORY;
    const reopen = () => this.#nodes.use(node, fd => sys.reopen(this.#model.runsAs(caller), fd, flags));
    return this.#opens.counted(pins, EMFILE, () =>
      andThen(reopen(), fd => this.#opens.add(pins, node, fd, flags, true, false)),
    );
  }

  create(actor: Actor, dir: LocalNode, name: Name, how: CreateHow, attr: Attr): Answer<Created> {
    this.#refuseToMake(dir, name);
    return this.#changes.around(actor, dir, () => this.#createOrOpen(actor, dir, name, how, attr, 0));
  }

  #createOrOpen(
    actor: Actor,
    dir: LocalNode,
    name: Name,
    how: CreateHow,
    attr: Attr,
    tries: number,
  ): Answer<Created> {
    if (tries === createTriesMax) throw ESTALE;
    return recover<Created>(
      () => this.#createNew(actor, dir, name, how, attr),
      error => {
        if (error !== EEXIST || how.exclusive) throw error;
        return andThen(this.walk(actor.caller, dir, name, attr), found => {
          if (found === ENOENT) return this.#createOrOpen(actor, dir, name, how, attr, tries + 1);
          if (found instanceof Errno) throw found;
          return attempt(
            () => this.#openFound(actor, found, how, attr),
            () => this.release(found),
          );
        });
      },
    );
  }

  #openFound(actor: Actor, node: LocalNode, how: CreateHow, attr: Attr): Answer<Created> {
    return andThen(this.open(actor, node, how), file => {
      if (!how.truncate) return { node, file };
      return attempt(
        () => andThen(this.stat(node, attr), () => ({ node, file })),
        () => this.#opens.close(file),
      );
    });
  }

  #createNew(actor: Actor, dir: LocalNode, name: Name, how: CreateHow, attr: Attr): Answer<Created> {
    const { caller, pins = this.#opens.nobody } = actor;
    const flags = openFlags(how) & ~O_TRUNC;
    const mode = S_IFREG | (how.mode & 0o7777);
    const want: Want = { mode, uid: caller.uid, gid: how.gid, rdev: 0, target: '' };
    const open = (node: LocalNode, fd: number) => ({
      node,
      file: this.#opens.add(pins, node, fd, flags, how.read, how.write),
    });
    return this.#opens.counted(pins, EMFILE, () =>
      this.#maker.create(caller, dir, name, want, flags, attr, open),
    );
  }

  make(actor: Actor, dir: LocalNode, name: Name, what: Making, attr: Attr): Answer<LocalNode> {
    this.#refuseToMake(dir, name);
    const want = wantOf(what, actor.caller);
    return this.#changes.around(actor, dir, () => this.#maker.make(actor.caller, dir, name, want, attr));
  }

  #refuseToMake(dir: LocalNode, name: Name): void {
    if (dir.type !== S_IFDIR) throw ENOTDIR;
    if (isOwn(this.#model, name)) throw EINVAL;
  }

  link(actor: Actor, node: LocalNode, dir: LocalNode, name: Name): Answer<void> {
    this.#refuseToMake(dir, name);
    return this.#names.link(actor, node, dir, name);
  }

  rename(actor: Actor, fromDir: LocalNode, from: Name, toDir: LocalNode, to: Name): Answer<void> {
    if (isOwn(this.#model, from)) throw ENOENT;
    this.#refuseToMake(toDir, to);
    return this.#names.rename(actor, fromDir, from, toDir, to);
  }

  unlink(actor: Actor, dir: LocalNode, name: Name, kind: 'file' | 'directory'): Answer<void> {
    if (isOwn(this.#model, name)) throw ENOENT;
    return this.#names.unlink(actor, dir, name, kind);
  }

  isEntry(dir: LocalNode, name: Name, node: LocalNode): Answer<boolean> {
    return this.#names.isEntry(dir, name, node);
  }

  read(file: LocalOpen, into: OwnedSegments, offset: number): Answer<number> {
    return this.#opens.use(file, fd => file.node.volume.read(fd, into, offset));
  }

  readNow(file: LocalOpen, into: Segments, offset: number): number | undefined {
    if (!file.inline) return undefined;
    return file.node.volume.readNow(file.fd, into, offset);
  }

  write(actor: Actor, file: LocalOpen, from: OwnedSegments, offset: number): Answer<number> {
    const { volume } = file.node;
    // O_SYNC contains the bit of O_DSYNC; either waits for the disk.
    const waits = (file.flags & O_DSYNC) !== 0 || lengthOf(from) > volume.inlineBytesMax;
    const sys = waits ? volume.pool : volume.sys;
    const as = this.#model.runsAs(actor.caller);
    return this.#changes.writing(actor, file, () =>
      this.#opens.use(file, fd => writeAll((rest, at) => sys.write(as, fd, rest, at), from, offset)),
    );
  }

  writeNow(actor: Actor, file: LocalOpen, from: Segments, offset: number): Answer<number> | undefined {
    if (lengthOf(from) > file.node.volume.inlineBytesMax) return undefined;
    const as = this.#model.runsAs(actor.caller);
    return this.#changes.writingNow(actor, file, (sys, fd) =>
      writeAllNow((rest, at) => sys.write(as, fd, rest, at), from, offset),
    );
  }

  sync(open: LocalOpen, dataOnly: boolean): Answer<void> {
    return this.#opens.use(open, fd => open.node.volume.sync(fd, dataOnly));
  }

  closeFile(file: LocalOpen): void {
    this.#opens.close(file);
  }

  readdir(dir: LocalOpen, cookieLow: number, cookieHigh: number, into: Owned): Answer<number> {
    return this.#listings.read(dir, cookieLow, cookieHigh, into);
  }

  readdirNow(dir: LocalOpen, cookieLow: number, cookieHigh: number, into: Uint8Array): number | undefined {
    return this.#listings.readNow(dir, cookieLow, cookieHigh, into);
  }

  closeDir(dir: LocalOpen): void {
    this.#opens.close(dir);
  }

  getXattr(caller: Caller, node: LocalNode, name: Bytes): Answer<Uint8Array> {
    return this.#xattrs.get(caller, node, name);
  }

  listXattr(caller: Caller, node: LocalNode): Answer<Uint8Array> {
    return this.#xattrs.list(caller, node);
  }

  setXattr(actor: Actor, node: LocalNode, name: Bytes, value: Owned, flags: number): Answer<void> {
    return this.#changes.around(actor, node, () => this.#xattrs.set(actor.caller, node, name, value, flags));
  }

  removeXattr(actor: Actor, node: LocalNode, name: Bytes): Answer<void> {
    return this.#changes.around(actor, node, () => this.#xattrs.remove(actor.caller, node, name));
  }

  lock(owner: LockOwner, file: LocalOpen, range: LockRange): Answer<boolean> {
    return this.#locks.set(owner, file, range);
  }

  testLock(owner: LockOwner, file: LocalOpen, range: LockRange): Answer<LockConflict | undefined> {
    return this.#locks.test(owner, file, range);
  }

  forgetLocks(owner: LockOwner, node: LocalNode): void {
    this.#locks.forget(owner, node);
  }

  close(): void {
    this.release(this.root);
    this.#nodes.volumes.close();
  }
}
