import { openSync } from 'node:fs';
import { Attr, S_IFDIR, S_IFLNK, S_IFREG } from '#base/attr.ts';
import { EEXIST, EINVAL, EMFILE, ENOENT, ENOTDIR, Errno, ESTALE } from '#base/errno.ts';
import { andThen, type MaybePromise, onError, runSteps, type Steps, wait } from '#base/maybe-promise.ts';
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
import { isShortName } from './fs-types.ts';
import { OwnerLocks } from './locks.ts';
import { Namespace } from './namespace.ts';
import type { LocalNode } from './node.ts';
import { recordedDir, Targets } from './node-record.ts';
import { NodeTable } from './node-table.ts';
import { guestFormOf, openFlags, refuseToOpen, writeAll, writeAllNow } from './open.ts';
import { type LocalOpen, OpenTable } from './open-file.ts';
import { Orphans } from './orphans.ts';
import { DirReader } from './readdir.ts';
import { RecordFiles } from './record-files.ts';
import { RecordedNames } from './recorded-names.ts';
import { Volumes } from './volume.ts';
import { LocalXattrs } from './xattrs.ts';

/** What a tree is opened with. All trees share the descriptor budget. */
export interface LocalTreeParts {
  readonly descriptors: FdBudget;
  readonly model: SecurityModel;
  /** Nothing is changed, not even orphans removed. */
  readonly readonly?: boolean;
  /** Its file systems may be frozen (FIFREEZE): no change runs on the event loop's thread. */
  readonly freezable?: boolean;
  /**
   * Whether locks of guests keep programs of the host out (the default). Otherwise they hold between guests alone, and are not
   * granted while a program of the host holds a conflicting lock.
   */
  readonly hostLocks?: boolean;
  /** Whether mounts below the directory are refused (EACCES). */
  readonly oneMount?: boolean;
  /** For tests. */
  readonly volumes?: Volumes<LocalNode>;
}

type CreateHow = OpenHow & { readonly exclusive: boolean; readonly mode: number; readonly gid: number };

interface Created {
  readonly node: LocalNode;
  readonly file: LocalOpen;
}

/** Attempts of a create without O_EXCL, when others create and remove the name meanwhile. */
const createTriesMax = 16;

/** A directory of the host, with any security model. */
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
  readonly #targets: Targets;
  readonly #recordFiles: RecordFiles | undefined;

  private constructor(root: LocalNode, nodes: NodeTable, parts: LocalTreeParts) {
    this.root = root;
    this.#model = parts.model;
    this.#nodes = nodes;
    this.#opens = new OpenTable(nodes, parts.descriptors);
    const { recordFiles, reservedPrefix } = parts.model;
    const files = recordFiles && new RecordFiles(recordFiles, reservedPrefix);
    const records = files && new RecordedNames(files, reservedPrefix);
    this.#recordFiles = files;
    this.#targets = new Targets(nodes, files);
    this.#creator = new Creator(nodes, parts.model, records);
    this.#xattrs = new LocalXattrs(nodes, parts.model);
    this.#locks = new OwnerLocks(nodes, this.#opens, parts.hostLocks ?? true);
    this.#changes = new Changes(nodes, this.#opens, parts.model, this.#targets);
    this.#attrCache = new AttrCache(nodes, parts.model, this.#targets);
    const orphans = new Orphans(parts.model, parts.readonly ?? false, records);
    this.#names = new Namespace(nodes, this.#changes, parts.model, orphans, this.#targets, records);
    this.#dirReader = new DirReader(nodes, this.#opens, parts.model, orphans);
  }

  /** Opens the directory `path`: the only path that is resolved. Throws the Node.js error of open(2). */
  static async open(path: string, parts: LocalTreeParts): Promise<LocalTree> {
    const fd = openSync(path, O_PATH | O_DIRECTORY);
    const volumes = parts.volumes ?? new Volumes<LocalNode>(parts.freezable ?? false, parts.oneMount);
    const nodes = new NodeTable(volumes, parts.descriptors);
    const root = await nodes.adopt(noSession, unknownFs(noSession), fd, new Attr(), undefined, undefined);
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
    if (this.#isReserved(dir, name)) return ENOENT;
    const creds = this.#model.credsFor(ctx.creds);
    return this.#nodes.use(ctx, dir, dirfd =>
      andThen(dir.volume.lookup(ctx, creds, dirfd, name), fd =>
        fd < 0 ? Errno.of(-fd) : this.#adopt(ctx, fd, dir, dirfd, name, attr),
      ),
    );
  }

  /** The node of a new O_PATH descriptor, referenced, and its attributes as the client sees them. */
  #adopt(
    ctx: CallContext,
    fd: number,
    dir: LocalNode,
    dirfd: number,
    name: Name,
    attr: Attr,
  ): MaybePromise<LocalNode | Errno> {
    const adopted = this.#nodes.adopt(ctx, dir.volume.sys(ctx), fd, attr, dir, name);
    const files = this.#recordFiles;
    if (!files) return andThen(adopted, node => this.#described(ctx, node, dir, attr));
    return andThen(adopted, node =>
      andThen(
        onError(
          () => files.isMetadata(recordedDir(ctx, this.#nodes, dir, dirfd), attr),
          () => this.release(node),
        ),
        isMetadata => {
          if (!isMetadata) return this.#described(ctx, node, dir, attr);
          this.release(node);
          return ENOENT;
        },
      ),
    );
  }

  /** Completes the attributes of a node that was just found in `dir`. */
  #described(ctx: CallContext, node: LocalNode, dir: LocalNode, attr: Attr): MaybePromise<LocalNode> {
    return andThen(
      onError(
        () =>
          node.volume === dir.volume || node.volume.local
            ? this.#attrCache.applyModel(ctx, node, attr)
            : this.stat(ctx, node, attr),
        () => this.release(node),
      ),
      () => node,
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
    return this.#nodes.use(ctx, node, fd => act(this.#targets.of(ctx, node, node.volume.sys(ctx), fd)));
  }

  readlink(ctx: CallContext, node: LocalNode): MaybePromise<Bytes> {
    if (node.type !== S_IFLNK) throw EINVAL;
    return this.#withTarget(ctx, node, target => this.#model.readlink(target, ctx.creds));
  }

  open(ctx: CallContext, node: LocalNode, how: OpenHow): MaybePromise<LocalOpen> {
    refuseToOpen(node);
    const { volume } = node;
    const { session } = ctx;
    const creds = this.#model.credsFor(ctx.creds);
    const flags = openFlags(how);
    const reopen = () =>
      this.#nodes.use(ctx, node, fd => {
        const sys = how.truncate ? volume.sysToTruncate(ctx, fd) : volume.sys(ctx);
        return sys.reopen(creds, fd, flags);
      });
    const truncate = () =>
      this.#changes.around(ctx, [node], () =>
        andThen(
          this.#withTarget(ctx, node, target => this.#model.beforeWrite(target, ctx.creds)),
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
    const { session } = ctx;
    const sys = node.volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    const flags = O_RDONLY | O_DIRECTORY;
    return this.#opens.counted(session, EMFILE, () =>
      andThen(
        this.#nodes.use(ctx, node, fd => sys.reopen(creds, fd, flags)),
        fd => this.#opens.add(session, node, fd, flags, true, false),
      ),
    );
  }

  create(ctx: CallContext, dir: LocalNode, name: Name, how: CreateHow, attr: Attr): MaybePromise<Created> {
    this.#refuseToCreate(dir, name);
    return this.#changes.around(ctx, [dir], () => runSteps(this.#createOrOpen(ctx, dir, name, how, attr)));
  }

  *#createOrOpen(ctx: CallContext, dir: LocalNode, name: Name, how: CreateHow, attr: Attr): Steps<Created> {
    for (let tries = 0; tries < createTriesMax; tries++) {
      try {
        return yield* wait(this.#createNew(ctx, dir, name, how, attr));
      } catch (error) {
        if (error !== EEXIST || how.exclusive) throw error;
      }
      const found = yield* wait(this.walk(ctx, dir, name, attr));
      if (found === ENOENT) continue;
      if (found instanceof Errno) throw found;
      try {
        return yield* this.#openFound(ctx, found, how, attr);
      } catch (error) {
        this.release(found);
        throw error;
      }
    }
    throw ESTALE;
  }

  *#openFound(ctx: CallContext, node: LocalNode, how: CreateHow, attr: Attr): Steps<Created> {
    const file = yield* wait(this.open(ctx, node, how));
    try {
      if (how.truncate) yield* wait(this.stat(ctx, node, attr));
      return { node, file };
    } catch (error) {
      this.#opens.close(file);
      throw error;
    }
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
    this.#refuseToCreate(dir, name);
    const want = guestFormOf(what, ctx.creds);
    return this.#changes.around(ctx, [dir], () => this.#creator.make(ctx, dir, name, want, attr));
  }

  #refuseToCreate(dir: LocalNode, name: Name): void {
    if (dir.type !== S_IFDIR) throw ENOTDIR;
    if (this.#isReserved(dir, name)) throw EINVAL;
  }

  /** Whether a name is the model's own, or may not lead to its object's record. */
  #isReserved(dir: LocalNode, name: Name): boolean {
    if (isReserved(this.#model, name)) return true;
    return this.#recordFiles !== undefined && dir.volume.hasShortNames && isShortName(name);
  }

  /** Reserved names do not exist for clients. */
  #refuseHidden(dir: LocalNode, name: Name): void {
    if (this.#isReserved(dir, name)) throw ENOENT;
  }

  link(ctx: CallContext, node: LocalNode, dir: LocalNode, name: Name): MaybePromise<void> {
    this.#refuseToCreate(dir, name);
    return this.#names.link(ctx, node, dir, name);
  }

  rename(ctx: CallContext, fromDir: LocalNode, from: Name, toDir: LocalNode, to: Name): MaybePromise<void> {
    this.#refuseHidden(fromDir, from);
    this.#refuseToCreate(toDir, to);
    return this.#names.rename(ctx, fromDir, from, toDir, to);
  }

  unlink(ctx: CallContext, dir: LocalNode, name: Name, kind: 'file' | 'directory'): MaybePromise<void> {
    this.#refuseHidden(dir, name);
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
    // O_SYNC and O_DSYNC, whose bit it contains, wait for the disk.
    const waits = (file.flags & O_DSYNC) !== 0 || lengthOf(from) > volume.inlineBytesMax;
    const sys = waits ? volume.pool(ctx) : volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    return this.#changes.writing(ctx, file, () =>
      this.#opens.use(file, fd => writeAll((rest, at) => sys.write(creds, fd, rest, at), from, offset)),
    );
  }

  writeNow(
    ctx: CallContext,
    file: LocalOpen,
    from: Segments,
    offset: number,
  ): MaybePromise<number> | undefined {
    if (lengthOf(from) > file.node.volume.inlineBytesMax) return undefined;
    const creds = this.#model.credsFor(ctx.creds);
    return this.#changes.writingNow(ctx, file, (sys, fd) =>
      writeAllNow((rest, at) => sys.write(creds, fd, rest, at), from, offset),
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
    return this.#changes.around(ctx, [node], () => this.#xattrs.set(ctx, node, name, value, flags));
  }

  removeXattr(ctx: CallContext, node: LocalNode, name: Bytes): MaybePromise<void> {
    return this.#changes.around(ctx, [node], () => this.#xattrs.remove(ctx, node, name));
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
