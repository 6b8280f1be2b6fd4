import { type Answer, andThen, forEach, inOrder, lastly, recover } from '../answer.ts';
import { Attr, changeClock, S_IFDIR, S_IFREG } from '../attr.ts';
import { putOff } from '../batch.ts';
import { EDQUOT, EINVAL, EISDIR, ENOSPC } from '../errno.ts';
import { type Caller, type InlineSyscalls, type Syscalls, serverCaller } from '../host/syscalls.ts';
import type { SecurityModel } from '../security/model.ts';
import type { LocalNode, NodeTable } from './local-node.ts';
import type { LocalOpen, OpenTable } from './open-file.ts';
import { type Actor, type Change, type Stamp, stampOf, type Watch } from './tree.ts';

/** Writes of a file that one client sent together. */
interface Run {
  readonly file: LocalOpen;
  readonly watch: Watch;
}

/** What an object was like, and when it was asked. */
interface Look {
  readonly stamp: Stamp;
  readonly asked: number;
}

/** No object's stamp, for after a change of one that cannot be asked any more: then the version moves. */
const noStamp: Stamp = 0;

/** Changes of objects: every one is framed by the stamps that the actor's watch is told of. */
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

  #look(node: LocalNode): Answer<Look> {
    return this.#nodes.use(node, fd => lookAt(node, node.volume.sys, fd));
  }

  /** Runs a change of `node`. */
  around<T>(actor: Actor, node: LocalNode, act: () => Answer<T>): Answer<T> {
    return andThen(this.#look(node), ({ stamp, asked }) => {
      actor.watch.before(node, stamp, asked);
      return lastly(
        () => node.volume.withRoom(act),
        () => this.#settle(actor, node),
      );
    });
  }

  #settle(actor: Actor, node: LocalNode): Answer<void> {
    const asked = changeClock.tick();
    const stamp = recover<Stamp>(
      () => andThen(this.#look(node), look => look.stamp),
      () => noStamp,
    );
    return andThen(stamp, after => actor.watch.after(node, after, asked));
  }

  /**
   * Runs a write of `file`, before which set-id bits and file capabilities fall. That is asked anew before every write: a
   * write moves ctime itself, so that ctime cannot tell whether somebody else has set such a bit at the same time.
   */
  writing<T>(actor: Actor, file: LocalOpen, write: () => Answer<T>): Answer<T> {
    const { sys } = file.node.volume;
    this.#endRun();
    return this.around(actor, file.node, () =>
      andThen(
        this.#opens.use(file, fd => this.#model.writing({ sys, fd }, actor.caller)),
        write,
      ),
    );
  }

  /** The same where reading does not wait; elsewhere undefined, with nothing written. */
  writingNow<T>(
    actor: Actor,
    file: LocalOpen,
    write: (sys: InlineSyscalls, fd: number) => Answer<T>,
  ): Answer<T> | undefined {
    const { inline: sys, fd, node } = file;
    if (!sys) return undefined;
    const { caller, watch } = actor;
    const inRun = this.#inRun(watch, file);
    if (!inRun) tellBefore(watch, file);
    try {
      const allowed = this.#model.writing({ sys, fd }, caller);
      if (!(allowed instanceof Promise)) {
        const written = write(sys, fd);
        return written instanceof Promise ? this.#late(watch, file, written) : written;
      }
      // `writing` asks again, and tells of a failure.
      allowed.catch(() => undefined);
      return undefined;
    } catch (error) {
      // `writing` waits for room.
      if ((error === ENOSPC || error === EDQUOT) && node.volume.isFreeing) return undefined;
      throw error;
    } finally {
      if (!inRun) tellAfter(watch, file);
    }
  }

  /** A late write ends after its run, so it has looks of its own. */
  #late<T>(watch: Watch, file: LocalOpen, written: Promise<T>): Promise<T> {
    this.#opens.borrow(file);
    tellBefore(watch, file);
    return written.finally(() => {
      tellAfter(watch, file);
      this.#opens.giveBack(file);
    });
  }

  /**
   * Whether this write goes without looks of its own. Two looks make a small write three times as dear, since the kernel
   * gives a write that follows a look a ctime of its own. So writes of one batch that follow each other have one before
   * the first and one after the last, before any of them is answered. What somebody else writes between the two is taken for
   * the client's own, as it is between the two of a single write.
   */
  #inRun(watch: Watch, file: LocalOpen): boolean {
    if (this.#run?.file === file && this.#run.watch === watch) return true;
    this.#endRun();
    if (!putOff(this.#endRun)) return false;
    tellBefore(watch, file);
    this.#opens.borrow(file);
    this.#run = { file, watch };
    return true;
  }

  readonly #endRun = (): void => {
    const run = this.#run;
    if (!run) return;
    const { file, watch } = run;
    this.#run = undefined;
    tellAfter(watch, file);
    this.#opens.giveBack(file);
  };

  /** Runs a change of several nodes at once; absent ones and repetitions do not count. */
  aroundAll<T>(actor: Actor, nodes: readonly (LocalNode | undefined)[], act: () => Answer<T>): Answer<T> {
    const distinct: LocalNode[] = [];
    const before: Look[] = [];
    for (const node of nodes) if (node && !distinct.includes(node)) distinct.push(node);
    const asked = forEach(distinct, node => andThen(this.#look(node), look => before.push(look)));
    return andThen(asked, () => {
      distinct.forEach((node, i) => void actor.watch.before(node, before[i]!.stamp, before[i]!.asked));
      return lastly(
        () => distinct[0]!.volume.withRoom(act),
        () => forEach(distinct, node => this.#settle(actor, node)),
      );
    });
  }

  apply(actor: Actor, node: LocalNode, change: Change, file: LocalOpen | undefined): Answer<void> {
    return this.around(actor, node, () => this.#apply(actor.caller, node, change, file));
  }

  #apply(caller: Caller, node: LocalNode, change: Change, file: LocalOpen | undefined): Answer<void> {
    const { uid, gid, mode, size, atime, mtime } = change;
    const { sys } = node.volume;
    const as = this.#model.runsAs(caller);
    const owned = uid !== undefined || gid !== undefined || mode !== undefined;
    // The change of size has set mtime to now, by the right to write; utimensat(2) would ask for the owner.
    const modified = size !== undefined && mtime === 'now' ? undefined : mtime;
    const timed = atime !== undefined || modified !== undefined;
    return inOrder([
      owned &&
        (() => this.#nodes.use(node, fd => this.#model.change({ sys, fd }, caller, { uid, gid, mode }))),
      size !== undefined && (() => this.#resize(caller, node, size, file)),
      timed && (() => this.#nodes.use(node, fd => sys.utimens(as, fd, atime ?? 'omit', modified ?? 'omit'))),
    ]);
  }

  #resize(caller: Caller, node: LocalNode, size: number, file: LocalOpen | undefined): Answer<void> {
    if (node.type === S_IFDIR) throw EISDIR;
    if (node.type !== S_IFREG) throw EINVAL;
    const { volume } = node;
    const { sys } = volume;
    const as = this.#model.runsAs(caller);
    const dropped = this.#nodes.use(node, fd => this.#model.writing({ sys, fd }, caller));
    return andThen(dropped, () =>
      file?.writable
        ? this.#opens.use(file, fd => volume.sysToTruncate(fd).ftruncate(as, fd, size))
        : this.#nodes.use(node, fd => volume.sysToTruncate(fd).truncate(as, fd, size)),
    );
  }
}

/** At what is open at `fd`. */
function lookAt({ volume }: LocalNode, sys: Syscalls, fd: number): Answer<Look> {
  if (volume.local) return lookIn(volume.statNow(fd));
  const attr = new Attr();
  return andThen(sys.stat(serverCaller, fd, attr), () => lookIn(attr));
}

function lookIn(attr: Attr): Look {
  return { stamp: stampOf(attr), asked: attr.asked };
}

/** Tells a watch how a file on a local file system is before a change. */
function tellBefore(watch: Watch, { node, fd }: LocalOpen): void {
  const attr = node.volume.statNow(fd);
  watch.before(node, stampOf(attr), attr.asked);
}

/** The same after it. */
function tellAfter(watch: Watch, { node, fd }: LocalOpen): void {
  const asked = changeClock.tick();
  const stamp = recover<Stamp>(
    () => stampOf(node.volume.statNow(fd)),
    () => noStamp,
  );
  watch.after(node, stamp as Stamp, asked);
}
