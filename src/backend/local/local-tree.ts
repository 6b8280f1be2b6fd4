import { openSync } from 'node:fs';
import { Attr, S_IFDIR, S_IFLNK, S_IFREG } from '#base/attr.ts';
import { EEXIST, EINVAL, EMFILE, ENOENT, ENOTDIR, Errno, ESTALE } from '#base/errno.ts';
import { andThen, type MaybePromise, onError, recover } from '#base/maybe-promise.ts';
import type { Bytes, Name } from '#base/name.ts';
import { lengthOf, type Owned, type OwnedSegments, type Segments } from '#base/owned.ts';
import { O_DIRECTORY, O_DSYNC, O_PATH, O_RDONLY, O_TRUNC } from '#host/constants.ts';
import { unknownFs } from '#host/local.ts';
import { type Credentials, noSession, type Submitter, serverCreds } from '#host/syscalls.ts';
import type { FdBudget } from '#quota/fd-budget.ts';
import { type GuestForm, isReserved, type SecurityModel, type Target } from '#security/model.ts';
import type {
  CallContext,
  Change,
  LockConflict,
  LockKey,
  LockRange,
  NewNode,
  OpenHow,
  Tree,
} from '../tree.ts';
import { AttrCache } from './attr-cache.ts';
import { Changes } from './changes.ts';
import { Creator } from './create.ts';
import { OwnerLocks } from './locks.ts';
import { Namespace } from './namespace.ts';
import { type LocalNode, NodeTable } from './node.ts';
import { openFlags, refuseToOpen, wantOf, writeAll, writeAllNow } from './open.ts';
import { type LocalOpen, OpenTable } from './open-file.ts';
import { Orphans } from './orphans.ts';
import { DirReader } from './readdir.ts';
import { Volumes } from './volume.ts';
import { LocalXattrs } from './xattrs.ts';

/** What a tree on the host needs: the descriptor budget (shared by all trees), and the security model. */
export interface LocalTreeParts {
  readonly descriptors: FdBudget;
  readonly model: SecurityModel;
  /** Nothing may be changed, not even by the server for itself. */
  readonly readonly?: boolean;
  /** Its file systems are frozen now and then (FIFREEZE): no change is made on the event loop's thread. */
  readonly freezable?: boolean;
  /** Whether what is mounted below the directory is refused (EACCES). */
  readonly oneMount?: boolean;
  /** The volumes to use; tests replace them. */
  readonly volumes?: Volumes;
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
  readonly #creator: Creator;
  readonly #xattrs: LocalXattrs;
  readonly #locks: OwnerLocks;
  readonly #changes: Changes;
  readonly #names: Namespace;
  readonly #attrCache: AttrCache;
  readonly #dirReader: DirReader;

  private constructor(root: LocalNode, nodes: NodeTable, parts: LocalTreeParts) {
    this.root = root;
    this.#model = parts.model;
    this.#nodes = nodes;
    this.#opens = new OpenTable(nodes, parts.descriptors);
    this.#creator = new Creator(nodes, parts.model);
    this.#xattrs = new LocalXattrs(nodes, parts.model);
    this.#locks = new OwnerLocks(nodes, this.#opens);
    this.#changes = new Changes(nodes, this.#opens, parts.model);
    this.#attrCache = new AttrCache(nodes, parts.model);
    const orphans = new Orphans(parts.model, parts.readonly ?? false);
    this.#names = new Namespace(nodes, this.#changes, parts.model, orphans);
    this.#dirReader = new DirReader(nodes, this.#opens, parts.model, orphans);
  }

  /** Opens the directory `path`. Throws what open(2) says (a Node.js error), for the one path that is ever resolved. */
  static async open(path: string, parts: LocalTreeParts): Promise<LocalTree> {
    const fd = openSync(path, O_PATH | O_DIRECTORY);
    const volumes = parts.volumes ?? new Volumes(parts.freezable ?? false, parts.oneMount);
    const nodes = new NodeTable(volumes, parts.descriptors);
    const root = await nodes.arrive(noSession, unknownFs(noSession), fd, new Attr(), undefined, undefined);
    nodes.root = root;
    return new LocalTree(root, nodes, parts);
  }

  credentials(submitter: Submitter, uid: number): MaybePromise<Credentials> {
    return this.#model.credsOfUser(uid, submitter);
  }

  hold(node: LocalNode): void {
    this.#nodes.hold(node);
  }

  release(node: LocalNode): void {
    this.#nodes.release(node);
  }

  walk(ctx: CallContext, dir: LocalNode, name: Name, attr: Attr): MaybePromise<LocalNode | Errno> {
    if (dir.type !== S_IFDIR) return ENOTDIR;
    if (isReserved(this.#model, name)) return ENOENT;
    const as = this.#model.credsFor(ctx.creds);
    return this.#nodes.use(ctx, dir, dirfd =>
      andThen(dir.volume.lookup(ctx, as, dirfd, name), fd =>
        fd < 0 ? Errno.of(-fd) : this.#arrive(ctx, fd, dir, name, attr),
      ),
    );
  }

  /** From a fresh O_PATH descriptor to a held node and its attributes. */
  #arrive(ctx: CallContext, fd: number, dir: LocalNode, name: Name, attr: Attr): MaybePromise<LocalNode> {
    return andThen(this.#nodes.arrive(ctx, dir.volume.sys(ctx), fd, attr, dir, name), node =>
      andThen(
        onError(
          () =>
            node.volume === dir.volume || node.volume.local
              ? this.#attrCache.applyModel(ctx, node, attr)
              : this.stat(ctx, node, attr),
          () => this.release(node),
        ),
        () => node,
      ),
    );
  }

  parent(_ctx: CallContext, dir: LocalNode): LocalNode {
    if (dir.type !== S_IFDIR) throw ENOTDIR;
    const parent = dir === this.root ? this.root : dir.parent;
    if (!parent) throw ESTALE;
    this.hold(parent);
    return parent;
  }

  stat(ctx: CallContext, node: LocalNode, attr: Attr): MaybePromise<void> {
    const sys = node.volume.sys(ctx);
    return andThen(
      this.#nodes.use(ctx, node, fd => sys.stat(serverCreds, fd, attr)),
      () => this.#attrCache.applyModel(ctx, node, attr),
    );
  }

  statfs(ctx: CallContext, node: LocalNode, into: Owned): MaybePromise<void> {
    return this.#nodes.use(ctx, node, fd => node.volume.sys(ctx).statfs(serverCreds, fd, into));
  }

  change(ctx: CallContext, node: LocalNode, change: Change, file?: LocalOpen): MaybePromise<void> {
    return this.#changes.apply(ctx, node, change, file);
  }

  #withTarget<T>(
    ctx: CallContext,
    node: LocalNode,
    act: (target: Target) => MaybePromise<T>,
  ): MaybePromise<T> {
    return this.#nodes.use(ctx, node, fd => act({ sys: node.volume.sys(ctx), fd }));
  }

  readlink(ctx: CallContext, node: LocalNode): MaybePromise<Bytes> {
    if (node.type !== S_IFLNK) throw EINVAL;
    return this.#withTarget(ctx, node, target => this.#model.readlink(target, ctx.creds));
  }

  open(ctx: CallContext, node: LocalNode, how: OpenHow): MaybePromise<LocalOpen> {
    refuseToOpen(node);
    const { volume } = node;
    const { creds, session } = ctx;
    const as = this.#model.credsFor(creds);
    const flags = openFlags(how);
    const reopen = () =>
      this.#nodes.use(ctx, node, fd => {
        const sys = how.truncate ? volume.sysToTruncate(ctx, fd) : volume.sys(ctx);
        return sys.reopen(as, fd, flags);
      });
    const truncate = () =>
      this.#changes.around(ctx, node, () =>
        andThen(
          this.#withTarget(ctx, node, target => this.#model.beforeWrite(target, creds)),
          reopen,
        ),
      );
    return this.#opens.counted(session, EMFILE, () =>
      andThen(how.truncate ? truncate() : reopen(), fd =>
        this.#opens.add(session, node, fd, flags, how.read, how.write),
      ),
    );
  }

  openDir(ctx: CallContext, node: LocalNode): MaybePromise<LocalOpen> {
    if (node.type !== S_IFDIR) throw ENOTDIR;
    const { creds, session } = ctx;
    const sys = node.volume.sys(ctx);
    const flags = O_RDONLY | O_DIRECTORY;
    const reopen = () => this.#nodes.use(ctx, node, fd => sys.reopen(this.#model.credsFor(creds), fd, flags));
    return this.#opens.counted(session, EMFILE, () =>
      andThen(reopen(), fd => this.#opens.add(session, node, fd, flags, true, false)),
    );
  }

  create(ctx: CallContext, dir: LocalNode, name: Name, how: CreateHow, attr: Attr): MaybePromise<Created> {
    this.#refuseToMake(dir, name);
    return this.#changes.around(ctx, dir, () => this.#createOrOpen(ctx, dir, name, how, attr, 0));
  }

  #createOrOpen(
    ctx: CallContext,
    dir: LocalNode,
    name: Name,
    how: CreateHow,
    attr: Attr,
    tries: number,
  ): MaybePromise<Created> {
    if (tries === createTriesMax) throw ESTALE;
    return recover<Created>(
      () => this.#createNew(ctx, dir, name, how, attr),
      error => {
        if (error !== EEXIST || how.exclusive) throw error;
        return andThen(this.walk(ctx, dir, name, attr), found => {
          if (found === ENOENT) return this.#createOrOpen(ctx, dir, name, how, attr, tries + 1);
          if (found instanceof Errno) throw found;
          return onError(
            () => this.#openFound(ctx, found, how, attr),
            () => this.release(found),
          );
        });
      },
    );
  }

  #openFound(ctx: CallContext, node: LocalNode, how: CreateHow, attr: Attr): MaybePromise<Created> {
    return andThen(this.open(ctx, node, how), file => {
      if (!how.truncate) return { node, file };
      return onError(
        () => andThen(this.stat(ctx, node, attr), () => ({ node, file })),
        () => this.#opens.close(file),
      );
    });
  }

  #createNew(
    ctx: CallContext,
    dir: LocalNode,
    name: Name,
    how: CreateHow,
    attr: Attr,
  ): MaybePromise<Created> {
    const { creds, session } = ctx;
    const flags = openFlags(how) & ~O_TRUNC;
    const mode = S_IFREG | (how.mode & 0o7777);
    const want: GuestForm = { mode, uid: creds.uid, gid: how.gid, rdev: 0, target: '' };
    const open = (node: LocalNode, fd: number) => ({
      node,
      file: this.#opens.add(session, node, fd, flags, how.read, how.write),
    });
    return this.#opens.counted(session, EMFILE, () =>
      this.#creator.create(ctx, dir, name, want, flags, attr, open),
    );
  }

  make(ctx: CallContext, dir: LocalNode, name: Name, what: NewNode, attr: Attr): MaybePromise<LocalNode> {
    this.#refuseToMake(dir, name);
    const want = wantOf(what, ctx.creds);
    return this.#changes.around(ctx, dir, () => this.#creator.make(ctx, dir, name, want, attr));
  }

  #refuseToMake(dir: LocalNode, name: Name): void {
    if (dir.type !== S_IFDIR) throw ENOTDIR;
    if (isReserved(this.#model, name)) throw EINVAL;
  }

  link(ctx: CallContext, node: LocalNode, dir: LocalNode, name: Name): MaybePromise<void> {
    this.#refuseToMake(dir, name);
    return this.#names.link(ctx, node, dir, name);
  }

  rename(ctx: CallContext, fromDir: LocalNode, from: Name, toDir: LocalNode, to: Name): MaybePromise<void> {
    if (isReserved(this.#model, from)) throw ENOENT;
    this.#refuseToMake(toDir, to);
    return this.#names.rename(ctx, fromDir, from, toDir, to);
  }

  unlink(ctx: CallContext, dir: LocalNode, name: Name, kind: 'file' | 'directory'): MaybePromise<void> {
    if (isReserved(this.#model, name)) throw ENOENT;
    return this.#names.unlink(ctx, dir, name, kind);
  }

  isEntry(ctx: CallContext, dir: LocalNode, name: Name, node: LocalNode): MaybePromise<boolean> {
    return this.#names.isEntry(ctx, dir, name, node);
  }

  read(ctx: CallContext, file: LocalOpen, into: OwnedSegments, offset: number): MaybePromise<number> {
    return this.#opens.use(file, fd => file.node.volume.read(ctx, fd, into, offset));
  }

  readNow(file: LocalOpen, into: Segments, offset: number): number | undefined {
    if (!file.inline) return undefined;
    return file.node.volume.readNow(file.fd, into, offset);
  }

  write(ctx: CallContext, file: LocalOpen, from: OwnedSegments, offset: number): MaybePromise<number> {
    const { volume } = file.node;
    // O_SYNC contains the bit of O_DSYNC; either waits for the disk.
    const waits = (file.flags & O_DSYNC) !== 0 || lengthOf(from) > volume.inlineBytesMax;
    const sys = waits ? volume.pool(ctx) : volume.sys(ctx);
    const as = this.#model.credsFor(ctx.creds);
    return this.#changes.writing(ctx, file, () =>
      this.#opens.use(file, fd => writeAll((rest, at) => sys.write(as, fd, rest, at), from, offset)),
    );
  }

  writeNow(
    ctx: CallContext,
    file: LocalOpen,
    from: Segments,
    offset: number,
  ): MaybePromise<number> | undefined {
    if (lengthOf(from) > file.node.volume.inlineBytesMax) return undefined;
    const as = this.#model.credsFor(ctx.creds);
    return this.#changes.writingNow(ctx, file, (sys, fd) =>
      writeAllNow((rest, at) => sys.write(as, fd, rest, at), from, offset),
    );
  }

  sync(ctx: CallContext, open: LocalOpen, dataOnly: boolean): MaybePromise<void> {
    return this.#opens.use(open, fd => open.node.volume.sync(ctx, fd, dataOnly));
  }

  closeFile(file: LocalOpen): void {
    this.#opens.close(file);
  }

  readdir(
    ctx: CallContext,
    dir: LocalOpen,
    cookieLow: number,
    cookieHigh: number,
    into: Owned,
  ): MaybePromise<number> {
    return this.#dirReader.read(ctx, dir, cookieLow, cookieHigh, into);
  }

  readdirNow(dir: LocalOpen, cookieLow: number, cookieHigh: number, into: Uint8Array): number | undefined {
    return this.#dirReader.readNow(dir, cookieLow, cookieHigh, into);
  }

  closeDir(dir: LocalOpen): void {
    this.#opens.close(dir);
  }

  getXattr(ctx: CallContext, node: LocalNode, name: Bytes): MaybePromise<Uint8Array> {
    return this.#xattrs.get(ctx, node, name);
  }

  listXattr(ctx: CallContext, node: LocalNode): MaybePromise<Uint8Array> {
    return this.#xattrs.list(ctx, node);
  }

  setXattr(ctx: CallContext, node: LocalNode, name: Bytes, value: Owned, flags: number): MaybePromise<void> {
    return this.#changes.around(ctx, node, () => this.#xattrs.set(ctx, node, name, value, flags));
  }

  removeXattr(ctx: CallContext, node: LocalNode, name: Bytes): MaybePromise<void> {
    return this.#changes.around(ctx, node, () => this.#xattrs.remove(ctx, node, name));
  }

  lock(owner: LockKey, file: LocalOpen, range: LockRange): MaybePromise<boolean> {
    return this.#locks.set(owner, file, range);
  }

  testLock(
    ctx: CallContext,
    owner: LockKey,
    file: LocalOpen,
    range: LockRange,
  ): MaybePromise<LockConflict | undefined> {
    return this.#locks.test(ctx, owner, file, range);
  }

  forgetLocks(owner: LockKey, node: LocalNode): void {
    this.#locks.forget(owner, node);
  }

  close(): void {
    this.release(this.root);
    this.#nodes.volumes.close();
  }
}
