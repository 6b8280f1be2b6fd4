import { Attr, S_IFDIR, S_IFLNK, S_IFREG } from '#base/attr.ts';
import { EEXIST, EINVAL, EISDIR, ENOENT, ENOSPC, EOPNOTSUPP, EPERM } from '#base/errno.ts';
import { andThen, type MaybePromise, runSteps, type Steps, wait } from '#base/maybe-promise.ts';
import type { Name } from '#base/name.ts';
import { asOwned } from '#base/owned.ts';
import { tempNameAfter } from '#base/temp-name.ts';
import { O_APPEND, O_DSYNC, O_EXCL, O_PATH, O_RDWR, O_SYNC, RENAME_NOREPLACE } from '#host/constants.ts';
import { expectCount } from '#host/control-block.ts';
import { type Credentials, type Syscalls, serverCreds } from '#host/syscalls.ts';
import type { GuestForm, HostForm, SecurityModel } from '#security/model.ts';
import type { CallContext } from '../tree.ts';
import type { LocalNode } from './node.ts';
import { recordedDir } from './node-record.ts';
import type { NodeTable } from './node-table.ts';
import { writeAll } from './open.ts';
import type { NewRecord, RecordedNames } from './recorded-names.ts';
import { withFd } from './with-fd.ts';

/** What to create, and where. */
interface CreateJob {
  readonly ctx: CallContext;
  readonly dir: LocalNode;
  readonly dirfd: number;
  readonly name: Name;
  readonly want: GuestForm;
  readonly form: HostForm;
  /** Flags to open a regular file with; undefined for an O_PATH descriptor. */
  readonly openFlags: number | undefined;
  /** The record file of the object, for models that have them. */
  readonly record?: NewRecord;
}

/** An object that does not have its final name yet. */
interface Staged {
  /** Open for reading and writing; O_PATH for a directory. */
  readonly fd: number;
  /** Undefined for an unnamed file (O_TMPFILE). */
  readonly tempName: Name | undefined;
}

/**
 * Creates objects, for every model: with few permissions and staged, until the model has set the attributes; or in place, if one
 * system call creates the object completely. Undoes what fails midway.
 */
export class Creator {
  readonly #nodes: NodeTable;
  readonly #model: SecurityModel;
  readonly #records: RecordedNames | undefined;

  constructor(nodes: NodeTable, model: SecurityModel, records: RecordedNames | undefined) {
    this.#nodes = nodes;
    this.#model = model;
    this.#records = records;
  }

  /** Creates an object. EEXIST if there is one. Returns a reference; `attr` gets type, qid.path and what the stamp is made of. */
  make(ctx: CallContext, dir: LocalNode, name: Name, want: GuestForm, attr: Attr): MaybePromise<LocalNode> {
    const form = this.#model.hostForm(want);
    return this.#nodes.use(ctx, dir, dirfd => {
      const created = this.#create({ ctx, dir, dirfd, name, want, form, openFlags: undefined });
      const mode = form.staged ? want.mode : undefined;
      return andThen(created, fd =>
        andThen(this.#nodes.adopt(ctx, dir.volume.sys(ctx), fd, attr, dir, name, mode), node => {
          attr.setQidPath(node.pathLow, node.pathHigh);
          return node;
        }),
      );
    });
  }

  /** As `make`, for a regular file opened with `flags`. `open` takes over its descriptor. */
  create<T>(
    ctx: CallContext,
    dir: LocalNode,
    name: Name,
    want: GuestForm,
    flags: number,
    attr: Attr,
    open: (node: LocalNode, fd: number) => T,
  ): MaybePromise<T> {
    const form = this.#model.hostForm(want);
    return this.#nodes.use(ctx, dir, dirfd => {
      const sys = dir.volume.sys(ctx);
      const created = this.#create({ ctx, dir, dirfd, name, want, form, openFlags: flags });
      const mode = form.staged ? want.mode : undefined;
      return andThen(created, opened =>
        withFd(sys, opened, fd =>
          this.#nodes.adoptOpen(ctx, sys, fd, attr, dir, name, mode, node => {
            attr.setQidPath(node.pathLow, node.pathHigh);
            return open(node, fd);
          }),
        ),
      );
    });
  }

  /** A new descriptor of the new object. */
  #create(job: CreateJob): MaybePromise<number> {
    return runSteps(job.form.staged ? this.#createStaged(job) : this.#createInPlace(job));
  }

  *#createInPlace({ ctx, dir, dirfd, name, want, form, openFlags }: CreateJob): Steps<number> {
    const sys = dir.volume.sys(ctx);
    const creds = yield* wait(this.#model.credsForCreate(ctx.creds, want.gid, { sys, fd: dirfd }));
    const { type, mode: bits } = form;
    if (openFlags !== undefined) {
      return yield* wait(sys.create(creds, dirfd, name, openFlags | O_EXCL, bits));
    }
    if (type === S_IFDIR) yield* wait(sys.mkdir(creds, dirfd, name, bits));
    else if (type === S_IFLNK) yield* wait(sys.symlink(creds, dirfd, name, want.target));
    else yield* wait(sys.mknod(creds, dirfd, name, type | bits, want.rdev));
    try {
      const fd = expectCount(yield* wait(dir.volume.lookup(ctx, serverCreds, dirfd, name)));
      yield* wait(withFd(sys, fd, () => this.#model.setInitialAttrs({ sys, fd }, creds, want)));
      return fd;
    } catch (error) {
      yield* remove(sys, creds, dirfd, name, type === S_IFDIR);
      throw error;
    }
  }

  /** Everything that may fail precedes the final name. */
  *#createStaged(job: CreateJob): Steps<number> {
    const { ctx, dir, dirfd, name } = job;
    const sys = dir.volume.sys(ctx);
    // An early EEXIST; `#publish` is what decides.
    if ((yield* wait(sys.statAt(serverCreds, dirfd, name, new Attr()))) === 0) throw EEXIST;
    if (!this.#records) return yield* this.#stageAndPublish(job);
    const created = this.#records.create(recordedDir(ctx, this.#nodes, dir, dirfd), name, record =>
      runSteps(this.#stageAndPublish({ ...job, record })),
    );
    return yield* wait(created);
  }

  *#stageAndPublish(job: CreateJob): Steps<number> {
    const { ctx, dir, dirfd, form } = job;
    const sys = dir.volume.sys(ctx);
    const staged = yield* this.#stage(job);
    try {
      return yield* wait(withFd(sys, staged.fd, () => runSteps(this.#finishStaged(job, staged))));
    } catch (error) {
      if (staged.tempName !== undefined)
        yield* remove(sys, serverCreds, dirfd, staged.tempName, form.type === S_IFDIR);
      throw error;
    }
  }

  *#finishStaged(job: CreateJob, staged: Staged): Steps<number> {
    const { ctx, dir, want, form, record } = job;
    const { fd } = staged;
    if (form.content !== '') yield* writeContent(dir.volume.sys(ctx), fd, form.content);
    if (record) yield* wait(record.identify(fd));
    const target = { sys: dir.volume.sysForNew(ctx), fd, record };
    yield* wait(this.#model.setInitialAttrs(target, ctx.creds, want));
    return yield* this.#publishOpen(job, staged);
  }

  /** Publishes the object. Returns the staged descriptor, or another if that is not opened as it should be. */
  *#publishOpen(job: CreateJob, staged: Staged): Steps<number> {
    const { ctx, dir, form, openFlags } = job;
    const sys = dir.volume.sys(ctx);
    const fits = openFlags !== undefined && (openFlags & (O_SYNC | O_DSYNC | O_APPEND)) === 0;
    if (form.type === S_IFDIR || fits) {
      yield* this.#publish(job, staged);
      return staged.fd;
    }
    const reopened = dir.volume.sysForNew(ctx).reopen(serverCreds, staged.fd, openFlags ?? O_PATH);
    const fd = yield* wait(reopened);
    yield* wait(withFd(sys, fd, () => runSteps(this.#publish(job, staged))));
    yield* wait(sys.close(staged.fd));
    return fd;
  }

  /** An unnamed file if the file system supports it, otherwise an object with a temporary name, which is hidden. */
  *#stage(job: CreateJob): Steps<Staged> {
    const { ctx, dir, dirfd, form } = job;
    const { volume } = dir;
    if (form.type !== S_IFREG || !volume.unnamedFiles) return yield* this.#stageNamed(job);
    const sys = volume.sys(ctx);
    try {
      const fd = yield* wait(sys.createUnnamed(serverCreds, dirfd, form.mode));
      return { fd, tempName: undefined };
    } catch (error) {
      // ext4_new_inode returns EPERM in a removed directory.
      if (error === EPERM && (yield* isRemoved(sys, dirfd))) throw ENOENT;
      // open(2): EOPNOTSUPP from a file system without O_TMPFILE, EISDIR from an old kernel.
      if (error !== EOPNOTSUPP && error !== EISDIR && error !== EINVAL) throw error;
    }
    volume.unnamedFiles = false;
    return yield* this.#stageNamed(job);
  }

  *#stageNamed({ ctx, dir, dirfd, form }: CreateJob): Steps<Staged> {
    const sys = dir.volume.sys(ctx);
    const tempName = tempNameAfter(this.#model.reservedPrefix);
    if (form.type === S_IFREG) {
      const fd = yield* wait(sys.create(serverCreds, dirfd, tempName, O_RDWR | O_EXCL, form.mode));
      return { fd, tempName };
    }
    yield* wait(sys.mkdir(serverCreds, dirfd, tempName, form.mode));
    try {
      const found = yield* wait(dir.volume.lookup(ctx, serverCreds, dirfd, tempName));
      return { fd: expectCount(found), tempName };
    } catch (error) {
      yield* remove(sys, serverCreds, dirfd, tempName, true);
      throw error;
    }
  }

  /** Gives the object its final name. EEXIST if the name is taken. */
  *#publish({ ctx, dir, dirfd, name }: CreateJob, { fd, tempName }: Staged): Steps<void> {
    const sys = dir.volume.sys(ctx);
    if (tempName === undefined) return yield* wait(sys.link(serverCreds, fd, dirfd, name));
    try {
      yield* wait(sys.rename(serverCreds, dirfd, tempName, dirfd, name, RENAME_NOREPLACE));
    } catch (error) {
      // rename(2): a file system without flags returns EINVAL. An empty directory that somebody creates between the two calls
      // is then replaced.
      if (error !== EINVAL) throw error;
      if ((yield* wait(sys.statAt(serverCreds, dirfd, name, new Attr()))) === 0) throw EEXIST;
      yield* wait(sys.rename(serverCreds, dirfd, tempName, dirfd, name, 0));
    }
  }
}

function* writeContent(sys: Syscalls, fd: number, content: string): Steps<void> {
  const bytes = asOwned(Buffer.from(content, 'latin1'));
  const written = yield* wait(writeAll((from, at) => sys.write(serverCreds, fd, from, at), [bytes], 0));
  if (written < bytes.length) throw ENOSPC;
}

function* isRemoved(sys: Syscalls, fd: number): Steps<boolean> {
  const attr = new Attr();
  yield* wait(sys.stat(serverCreds, fd, attr));
  return attr.nlink === 0;
}

/** Removes as the creator: another object may have the name by now. */
function* remove(
  sys: Syscalls,
  creator: Credentials,
  dirfd: number,
  name: Name,
  directory: boolean,
): Steps<void> {
  try {
    yield* wait(sys.unlink(creator, dirfd, name, directory));
  } catch (error) {
    if (error !== ENOENT) throw error;
  }
}
