import { type Answer, andThen, forEach, inOrder, lastly, recover } from '../answer.ts';
import { Attr, S_IFDIR, S_IFREG } from '../attr.ts';
import { putOff } from '../batch.ts';
import { EINVAL, EISDIR } from '../errno.ts';
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

/** No object's stamp, for after a change of one that cannot be asked any more: then the version moves. */
const noStamp = (): Stamp => 0;

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

  #stamp(node: LocalNode): Answer<Stamp> {
    return this.#nodes.use(node, fd => stampAt(node, node.volume.sys, fd));
  }

  /** Runs a change of `node`. */
  around<T>(actor: Actor, node: LocalNode, act: () => Answer<T>): Answer<T> {
    return andThen(this.#stamp(node), before => {
      actor.watch.before(node, before);
      return lastly(act, () => this.#settle(actor, node));
    });
  }

  #settle(actor: Actor, node: LocalNode): Answer<void> {
    return andThen(
      recover<Stamp>(() => this.#stamp(node), noStamp),
      after => actor.watch.after(node, after),
    );
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

  /** The same where nothing waits; elsewhere undefined, with nothing written. */
  writingNow<T>(actor: Actor, file: LocalOpen, write: (sys: InlineSyscalls, fd: number) => T): T | undefined {
    const { inline: sys, fd, node } = file;
    if (!sys) return undefined;
    const { caller, watch } = actor;
    const inRun = this.#inRun(watch, file);
    if (!inRun) watch.before(node, stampNow(file));
    try {
      const allowed = this.#model.writing({ sys, fd }, caller);
      if (!(allowed instanceof Promise)) return write(sys, fd);
      // `writing` asks again, and tells of a failure.
      allowed.catch(() => undefined);
      return undefined;
    } finally {
      if (!inRun) watch.after(node, recover<Stamp>(() => stampNow(file), noStamp) as Stamp);
    }
  }

  /**
   * Whether this write goes without looks of its own. Two looks make a small write three times as dear, since the kernel
   * gives a write that follows a look a ctime of its own. So writes of one batch that follow each other have one before
   * the first and one after the last, before any of them is answered. What somebody else writes between the two is taken for
   * the client's own, as it is between the two of a single write. None of them waits.
   */
  #inRun(watch: Watch, file: LocalOpen): boolean {
    if (this.#run?.file === file && this.#run.watch === watch) return true;
    this.#endRun();
    if (!putOff(this.#endRun)) return false;
    watch.before(file.node, stampNow(file));
    this.#opens.borrow(file);
    this.#run = { file, watch };
    return true;
  }

  readonly #endRun = (): void => {
    const run = this.#run;
    if (!run) return;
    const { file, watch } = run;
    this.#run = undefined;
    watch.after(file.node, recover<Stamp>(() => stampNow(file), noStamp) as Stamp);
    this.#opens.giveBack(file);
  };

  /** Runs a change of several nodes at once; absent ones and repetitions do not count. */
  aroundAll<T>(actor: Actor, nodes: readonly (LocalNode | undefined)[], act: () => Answer<T>): Answer<T> {
    const distinct: LocalNode[] = [];
    const before: Stamp[] = [];
    for (const node of nodes) if (node && !distinct.includes(node)) distinct.push(node);
    const asked = forEach(distinct, node => andThen(this.#stamp(node), stamp => before.push(stamp)));
    return andThen(asked, () => {
      distinct.forEach((node, i) => void actor.watch.before(node, before[i]!));
      return lastly(act, () => forEach(distinct, node => this.#settle(actor, node)));
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
    const { sys } = node.volume;
    const as = this.#model.runsAs(caller);
    const dropped = this.#nodes.use(node, fd => this.#model.writing({ sys, fd }, caller));
    return andThen(dropped, () =>
      file?.writable
        ? this.#opens.use(file, fd => sys.ftruncate(as, fd, size))
        : this.#nodes.use(node, fd => sys.truncate(as, fd, size)),
    );
  }
}

/** The stamp of what is open at `fd`. */
function stampAt({ volume }: LocalNode, sys: Syscalls, fd: number): Answer<Stamp> {
  if (volume.local) return stampOf(volume.statNow(fd));
  const attr = new Attr();
  return andThen(sys.stat(serverCaller, fd, attr), () => stampOf(attr));
}

/** The stamp of a file on a local file system that has its descriptor. */
function stampNow({ node, fd }: LocalOpen): Stamp {
  return stampOf(node.volume.statNow(fd));
}
