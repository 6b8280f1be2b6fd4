import { Attr, changeClock, S_IFDIR, S_IFREG } from '#base/attr.ts';
import { EDQUOT, EINVAL, EISDIR, ENOSPC } from '#base/errno.ts';
import { andFinally, andThen, forEach, type MaybePromise, recover, series } from '#base/maybe-promise.ts';
import { type InlineSyscalls, type Submitter, serverCreds } from '#host/syscalls.ts';
import type { SecurityModel } from '#security/model.ts';
import { type CallContext, type Change, type ChangeObserver, type ChangeStamp, stampOf } from '../tree.ts';
import type { LocalNode, NodeTable } from './node.ts';
import type { LocalOpen, OpenTable } from './open-file.ts';

/** Writes of a file that one client sent together. */
interface Run {
  readonly file: LocalOpen;
  readonly observer: ChangeObserver;
}

/** What an object was like, and when it was asked. */
interface Look {
  readonly stamp: ChangeStamp;
  readonly asked: number;
}

/** No object's stamp, for after a change of one that cannot be asked any more: then the version moves. */
const noStamp: ChangeStamp = 0;

/** Changes of objects: every one is framed by the stamps that its session's observer gets. */
export class Changes {
  readonly #nodes: NodeTable;
  readonly #opens: OpenTable;
  readonly #model: SecurityModel;
  #run: Run | undefined;

  constructor(nodes: NodeTable, opens: OpenTable, model: SecurityModel) {
    this.#nodes = nodes;
    this.#opens = opens;
    this.#model = model;
  }

  #look(submitter: Submitter, node: LocalNode): MaybePromise<Look> {
    return this.#nodes.use(submitter, node, fd => lookAt(node, submitter, fd));
  }

  /** Runs a change of `node`. */
  around<T>(ctx: CallContext, node: LocalNode, act: () => MaybePromise<T>): MaybePromise<T> {
    return andThen(this.#look(ctx, node), ({ stamp, asked }) => {
      ctx.session.observer.before(node, stamp, asked);
      return andFinally(
        () => node.volume.withRoom(act),
        () => this.#settle(ctx, node),
      );
    });
  }

  #settle(ctx: CallContext, node: LocalNode): MaybePromise<void> {
    const asked = changeClock.tick();
    const stamp = recover<ChangeStamp>(
      () => andThen(this.#look(ctx, node), look => look.stamp),
      () => noStamp,
    );
    return andThen(stamp, after => ctx.session.observer.after(node, after, asked));
  }

  /**
   * Runs a write of `file`, before which set-id bits and file capabilities fall. That is asked anew before every write: a
   * write moves ctime itself, so that ctime cannot tell whether somebody else has set such a bit at the same time.
   */
  writing<T>(ctx: CallContext, file: LocalOpen, write: () => MaybePromise<T>): MaybePromise<T> {
    const sys = file.node.volume.sys(ctx);
    this.#endRun();
    return this.around(ctx, file.node, () =>
      andThen(
        this.#opens.use(file, fd => this.#model.beforeWrite({ sys, fd }, ctx.creds)),
        write,
      ),
    );
  }

  /** The same where reading does not wait; elsewhere undefined, with nothing written. */
  writingNow<T>(
    ctx: CallContext,
    file: LocalOpen,
    write: (sys: InlineSyscalls, fd: number) => MaybePromise<T>,
  ): MaybePromise<T> | undefined {
    const { inline: sys, fd, node } = file;
    if (!sys) return undefined;
    const { observer } = ctx.session;
    const inRun = this.#inRun(ctx, file);
    if (!inRun) tellBefore(observer, file);
    try {
      const allowed = this.#model.beforeWrite({ sys, fd }, ctx.creds);
      if (!(allowed instanceof Promise)) {
        const written = write(sys, fd);
        return written instanceof Promise ? this.#late(observer, file, written) : written;
      }
      // `writing` asks again, and tells of a failure.
      allowed.catch(() => undefined);
      return undefined;
    } catch (error) {
      // `writing` waits for room.
      if ((error === ENOSPC || error === EDQUOT) && node.volume.isFreeing) return undefined;
      throw error;
    } finally {
      if (!inRun) tellAfter(observer, file);
    }
  }

  /** A late write ends after its run, so it has looks of its own. */
  #late<T>(observer: ChangeObserver, file: LocalOpen, written: Promise<T>): Promise<T> {
    this.#opens.borrow(file);
    tellBefore(observer, file);
    return written.finally(() => {
      tellAfter(observer, file);
      this.#opens.giveBack(file);
    });
  }

  /**
   * Whether this write goes without looks of its own. Two looks make a small write three times as dear, since the kernel
   * gives a write that follows a look a ctime of its own. So writes of one batch that follow each other have one before
   * the first and one after the last, before any of them is answered. What somebody else writes between the two is taken for
   * the client's own, as it is between the two of a single write.
   */
  #inRun(ctx: CallContext, file: LocalOpen): boolean {
    const { observer } = ctx.session;
    if (this.#run?.file === file && this.#run.observer === observer) return true;
    this.#endRun();
    if (!ctx.defer(this.#endRun)) return false;
    tellBefore(observer, file);
    this.#opens.borrow(file);
    this.#run = { file, observer };
    return true;
  }

  readonly #endRun = (): void => {
    const run = this.#run;
    if (!run) return;
    const { file, observer } = run;
    this.#run = undefined;
    tellAfter(observer, file);
    this.#opens.giveBack(file);
  };

  /** Runs a change of several nodes at once; absent ones and repetitions do not count. */
  aroundAll<T>(
    ctx: CallContext,
    nodes: readonly (LocalNode | undefined)[],
    act: () => MaybePromise<T>,
  ): MaybePromise<T> {
    const distinct: LocalNode[] = [];
    const before: Look[] = [];
    for (const node of nodes) if (node && !distinct.includes(node)) distinct.push(node);
    const asked = forEach(distinct, node => andThen(this.#look(ctx, node), look => before.push(look)));
    return andThen(asked, () => {
      distinct.forEach(
        (node, i) => void ctx.session.observer.before(node, before[i]!.stamp, before[i]!.asked),
      );
      return andFinally(
        () => distinct[0]!.volume.withRoom(act),
        () => forEach(distinct, node => this.#settle(ctx, node)),
      );
    });
  }

  apply(ctx: CallContext, node: LocalNode, change: Change, file: LocalOpen | undefined): MaybePromise<void> {
    return this.around(ctx, node, () => this.#apply(ctx, node, change, file));
  }

  #apply(ctx: CallContext, node: LocalNode, change: Change, file: LocalOpen | undefined): MaybePromise<void> {
    const { uid, gid, mode, size, atime, mtime } = change;
    const sys = node.volume.sys(ctx);
    const as = this.#model.credsFor(ctx.creds);
    const owned = uid !== undefined || gid !== undefined || mode !== undefined;
    // The change of size has set mtime to now, by the right to write; utimensat(2) would ask for the owner.
    const modified = size !== undefined && mtime === 'now' ? undefined : mtime;
    const timed = atime !== undefined || modified !== undefined;
    return series([
      owned &&
        (() =>
          this.#nodes.use(ctx, node, fd => this.#model.change({ sys, fd }, ctx.creds, { uid, gid, mode }))),
      size !== undefined && (() => this.#resize(ctx, node, size, file)),
      timed &&
        (() => this.#nodes.use(ctx, node, fd => sys.utimens(as, fd, atime ?? 'omit', modified ?? 'omit'))),
    ]);
  }

  #resize(ctx: CallContext, node: LocalNode, size: number, file: LocalOpen | undefined): MaybePromise<void> {
    if (node.type === S_IFDIR) throw EISDIR;
    if (node.type !== S_IFREG) throw EINVAL;
    const { volume } = node;
    const sys = volume.sys(ctx);
    const as = this.#model.credsFor(ctx.creds);
    const dropped = this.#nodes.use(ctx, node, fd => this.#model.beforeWrite({ sys, fd }, ctx.creds));
    return andThen(dropped, () =>
      file?.writable
        ? this.#opens.use(file, fd => volume.sysToTruncate(ctx, fd).ftruncate(as, fd, size))
        : this.#nodes.use(ctx, node, fd => volume.sysToTruncate(ctx, fd).truncate(as, fd, size)),
    );
  }
}

/** At what is open at `fd`. */
function lookAt({ volume }: LocalNode, submitter: Submitter, fd: number): MaybePromise<Look> {
  if (volume.local) return lookIn(volume.statNow(fd));
  const attr = new Attr();
  return andThen(volume.sys(submitter).stat(serverCreds, fd, attr), () => lookIn(attr));
}

function lookIn(attr: Attr): Look {
  return { stamp: stampOf(attr), asked: attr.asked };
}

/** Tells a watch how a file on a local file system is before a change. */
function tellBefore(observer: ChangeObserver, { node, fd }: LocalOpen): void {
  const attr = node.volume.statNow(fd);
  observer.before(node, stampOf(attr), attr.asked);
}

/** The same after it. */
function tellAfter(observer: ChangeObserver, { node, fd }: LocalOpen): void {
  const asked = changeClock.tick();
  const stamp = recover<ChangeStamp>(
    () => stampOf(node.volume.statNow(fd)),
    () => noStamp,
  );
  observer.after(node, stamp as ChangeStamp, asked);
}
