import { Attr, changeClock, S_IFDIR, S_IFREG, stampOf } from '#base/attr.ts';
import { EDQUOT, EINVAL, EISDIR, ENOSPC } from '#base/errno.ts';
import { andThen, type MaybePromise, runSteps, type Steps, wait } from '#base/maybe-promise.ts';
import { type InlineSyscalls, type Submitter, serverCreds } from '#host/syscalls.ts';
import type { SecurityModel } from '#security/model.ts';
import type { CallContext, Change, ChangeObserver, ChangeStamp } from '../tree.ts';
import type { LocalNode } from './node.ts';
import type { Targets } from './node-record.ts';
import type { NodeTable } from './node-table.ts';
import type { LocalOpen, OpenTable } from './open-file.ts';

/** Consecutive writes of a file in one batch of a session. */
interface WriteRun {
  readonly file: LocalOpen;
  readonly observer: ChangeObserver;
}

/** An object's stamp, and when it was asked for. */
interface StampAt {
  readonly stamp: ChangeStamp;
  readonly asked: number;
}

/** No object has this stamp: after a change of one that is gone, the version moves. */
const noStamp: ChangeStamp = 0;

/** Changes of objects. The session's observer gets the stamps before and after each. */
export class Changes {
  readonly #nodes: NodeTable;
  readonly #opens: OpenTable;
  readonly #model: SecurityModel;
  readonly #targets: Targets;
  #run: WriteRun | undefined;

  constructor(nodes: NodeTable, opens: OpenTable, model: SecurityModel, targets: Targets) {
    this.#nodes = nodes;
    this.#opens = opens;
    this.#model = model;
    this.#targets = targets;
  }

  #stampOf(submitter: Submitter, node: LocalNode): MaybePromise<StampAt> {
    return this.#nodes.use(submitter, node, fd => stampAt(submitter, node, fd));
  }

  /** Runs a change of these nodes; undefined and repeated ones are skipped. */
  around<T>(
    ctx: CallContext,
    nodes: readonly (LocalNode | undefined)[],
    act: () => MaybePromise<T>,
  ): MaybePromise<T> {
    return runSteps(this.#around(ctx, nodes, act));
  }

  *#around<T>(
    ctx: CallContext,
    nodes: readonly (LocalNode | undefined)[],
    act: () => MaybePromise<T>,
  ): Steps<T> {
    const { observer } = ctx.session;
    const changed = [...new Set(nodes)].filter(node => node !== undefined);
    const before: StampAt[] = [];
    for (const node of changed) before.push(yield* wait(this.#stampOf(ctx, node)));
    for (const [i, node] of changed.entries()) observer.before(node, before[i]!.stamp, before[i]!.asked);
    try {
      return yield* wait(changed[0]!.volume.withRoom(act));
    } finally {
      for (const node of changed) yield* this.#reportAfter(ctx, node);
    }
  }

  *#reportAfter(ctx: CallContext, node: LocalNode): Steps<void> {
    const asked = changeClock.tick();
    let stamp = noStamp;
    try {
      ({ stamp } = yield* wait(this.#stampOf(ctx, node)));
    } catch {
      // The object is gone.
    }
    ctx.session.observer.after(node, stamp, asked);
  }

  /**
   * Runs a write of `file`, before which set-id bits and file capabilities are cleared. They are read before every write: a write
   * moves ctime, which then does not show that somebody else has set them.
   */
  writing<T>(ctx: CallContext, file: LocalOpen, write: () => MaybePromise<T>): MaybePromise<T> {
    const sys = file.node.volume.sys(ctx);
    this.#endRun();
    return this.around(ctx, [file.node], () =>
      andThen(
        this.#opens.use(file, fd =>
          this.#model.beforeWrite(this.#targets.of(ctx, file.node, sys, fd), ctx.creds),
        ),
        write,
      ),
    );
  }

  /** As `writing`, if reading does not wait; otherwise undefined, with nothing written. */
  writingNow<T>(
    ctx: CallContext,
    file: LocalOpen,
    write: (sys: InlineSyscalls, fd: number) => MaybePromise<T>,
  ): MaybePromise<T> | undefined {
    const { inline: sys, fd, node } = file;
    if (!sys) return undefined;
    const { observer } = ctx.session;
    const inRun = this.#inRun(ctx, file);
    if (!inRun) reportBefore(observer, file);
    try {
      const allowed = this.#model.beforeWrite(this.#targets.of(ctx, node, sys, fd), ctx.creds);
      if (!(allowed instanceof Promise)) {
        const written = write(sys, fd);
        return written instanceof Promise ? this.#lateWrite(observer, file, written) : written;
      }
      // `writing` calls it again, and reports its failure.
      allowed.catch(() => undefined);
      return undefined;
    } catch (error) {
      // `writing` waits for blocks that are being freed.
      if ((error === ENOSPC || error === EDQUOT) && node.volume.isFreeing) return undefined;
      throw error;
    } finally {
      if (!inRun) reportAfter(observer, file);
    }
  }

  /** A late write ends after its run, so its stamps are read separately. */
  #lateWrite<T>(observer: ChangeObserver, file: LocalOpen, written: Promise<T>): Promise<T> {
    this.#opens.borrow(file);
    reportBefore(observer, file);
    return written.finally(() => {
      reportAfter(observer, file);
      this.#opens.giveBack(file);
    });
  }

  /**
   * Whether the stamps of this write are those of its run: read before its first and after its last write, before any is
   * answered. Reading both for each small write makes it three times as slow, since the kernel gives a write after a stat a
   * ctime of its own. A write by somebody else in between counts as the client's, as between the two stamps of a single write.
   */
  #inRun(ctx: CallContext, file: LocalOpen): boolean {
    const { observer } = ctx.session;
    if (this.#run?.file === file && this.#run.observer === observer) return true;
    this.#endRun();
    if (!ctx.defer(this.#endRun)) return false;
    reportBefore(observer, file);
    this.#opens.borrow(file);
    this.#run = { file, observer };
    return true;
  }

  readonly #endRun = (): void => {
    const run = this.#run;
    if (!run) return;
    const { file, observer } = run;
    this.#run = undefined;
    reportAfter(observer, file);
    this.#opens.giveBack(file);
  };

  apply(ctx: CallContext, node: LocalNode, change: Change, file: LocalOpen | undefined): MaybePromise<void> {
    return this.around(ctx, [node], () => runSteps(this.#apply(ctx, node, change, file)));
  }

  *#apply(
    ctx: CallContext,
    node: LocalNode,
    { uid, gid, mode, size, atime, mtime }: Change,
    file: LocalOpen | undefined,
  ): Steps<void> {
    const sys = node.volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    if (uid !== undefined || gid !== undefined || mode !== undefined) {
      const change = { uid, gid, mode };
      yield* wait(
        this.#nodes.use(ctx, node, fd =>
          this.#model.change(this.#targets.of(ctx, node, sys, fd), ctx.creds, change),
        ),
      );
    }
    if (size !== undefined) yield* this.#resize(ctx, node, size, file);
    // The change of size has set mtime to now, for which write permission suffices; utimensat(2) needs the owner.
    const modified = size !== undefined && mtime === 'now' ? undefined : mtime;
    if (atime === undefined && modified === undefined) return;
    yield* wait(
      this.#nodes.use(ctx, node, fd => sys.utimens(creds, fd, atime ?? 'omit', modified ?? 'omit')),
    );
  }

  *#resize(ctx: CallContext, node: LocalNode, size: number, file: LocalOpen | undefined): Steps<void> {
    if (node.type === S_IFDIR) throw EISDIR;
    if (node.type !== S_IFREG) throw EINVAL;
    const { volume } = node;
    const sys = volume.sys(ctx);
    const creds = this.#model.credsFor(ctx.creds);
    yield* wait(
      this.#nodes.use(ctx, node, fd =>
        this.#model.beforeWrite(this.#targets.of(ctx, node, sys, fd), ctx.creds),
      ),
    );
    yield* wait(
      file?.writable
        ? this.#opens.use(file, fd => volume.sysToTruncate(ctx, fd).ftruncate(creds, fd, size))
        : this.#nodes.use(ctx, node, fd => volume.sysToTruncate(ctx, fd).truncate(creds, fd, size)),
    );
  }
}

function stampAt(submitter: Submitter, { volume }: LocalNode, fd: number): MaybePromise<StampAt> {
  if (volume.local) return stampIn(volume.statNow(fd));
  const attr = new Attr();
  return andThen(volume.sys(submitter).stat(serverCreds, fd, attr), () => stampIn(attr));
}

function stampIn(attr: Attr): StampAt {
  return { stamp: stampOf(attr), asked: attr.asked };
}

/** Reports the stamp of a file on a local file system before a change. */
function reportBefore(observer: ChangeObserver, { node, fd }: LocalOpen): void {
  const attr = node.volume.statNow(fd);
  observer.before(node, stampOf(attr), attr.asked);
}

function reportAfter(observer: ChangeObserver, { node, fd }: LocalOpen): void {
  const asked = changeClock.tick();
  let stamp = noStamp;
  try {
    stamp = stampOf(node.volume.statNow(fd));
  } catch {
    // Its attributes cannot be read.
  }
  observer.after(node, stamp, asked);
}
