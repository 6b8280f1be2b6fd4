import type { Node } from '#backend/tree.ts';
import type { Attr } from '#base/attr.ts';
import { S_IFDIR } from '#base/attr.ts';
import { EBADF, EBUSY, ENOENT, EOPNOTSUPP, EROFS, Errno } from '#base/errno.ts';
import { andFinally, andThen, type MaybePromise, onError } from '#base/maybe-promise.ts';
import type { Name, Step } from '#base/name.ts';
import type { Qid } from '#protocol/kinds.ts';
import type { Attachment } from '../attachment.ts';
import { Fid, plain } from '../fids.ts';
import type { Request } from '../request.ts';
import { done, type Handlers } from './handler.ts';
import { commitXattr } from './xattr.ts';

/** A walk on its way. It holds where it stands, and the directory that this was reached from. */
class Walk {
  readonly request: Request;
  readonly attachment: Attachment;
  readonly steps: readonly Step[];
  readonly qids: Qid[] = [];
  node: Node;
  dir: Node | undefined;
  name: Name | undefined;
  failure: Errno | undefined = undefined;

  constructor(request: Request, from: Fid, steps: readonly Step[]) {
    const { tree } = from.attachment;
    this.request = request;
    this.attachment = from.attachment;
    this.steps = steps;
    this.node = from.node;
    this.dir = from.dir;
    this.name = from.name;
    tree.hold(from.node);
    if (from.dir) tree.hold(from.dir);
  }

  release(): void {
    const { tree } = this.attachment;
    tree.release(this.node);
    if (this.dir) tree.release(this.dir);
  }

  /** Goes on until the end or the first step that fails; in this turn as long as the tree answers in it. */
  goOn(): MaybePromise<this> {
    while (this.failure === undefined && this.qids.length < this.steps.length) {
      const step = this.steps[this.qids.length]!;
      const { attr } = this.request;
      let found: MaybePromise<Node | Errno>;
      try {
        found = this.#find(step, attr);
      } catch (error) {
        found = failureOf(error);
      }
      if (found instanceof Promise) return this.goOnLater(step, found, attr);
      this.#arrive(step, found, attr);
    }
    return this;
  }

  /** Goes on when the next step, which was begun, is done. */
  goOnLater(step: Step, found: Promise<Node | Errno>, attr: Attr): Promise<this> {
    return found.catch(failureOf).then(node => {
      this.#arrive(step, node, attr);
      return this.goOn();
    });
  }

  #find(step: Step, attr: Attr): MaybePromise<Node | Errno> {
    const { tree, actor } = this.attachment;
    if (step !== '..') return tree.walk(actor.creds, this.node, step as Name, attr);
    return andThen(tree.parent(actor.creds, this.node), parent =>
      onError<Node>(
        () => andThen(tree.stat(parent, attr), () => parent),
        () => tree.release(parent),
      ),
    );
  }

  #arrive(step: Step, found: Node | Errno, attr: Attr): void {
    if (found instanceof Errno) {
      this.failure = found;
      return;
    }
    const { tree } = this.attachment;
    if (this.dir) tree.release(this.dir);
    if (step === '..') {
      tree.release(this.node);
      this.dir = undefined;
      this.name = undefined;
    } else {
      this.dir = this.node;
      this.name = step as Name;
    }
    this.node = found;
    this.qids.push(this.request.session.qidOf(found, attr));
  }

  /** Makes the fid out of what was reached; the walk holds nothing any more. */
  toFid(): Fid {
    return new Fid(this.attachment, this.node, plain, this.dir, this.name);
  }
}

function failureOf(error: unknown): Errno {
  if (error instanceof Errno) return error;
  throw error;
}

/** walk(5): nothing is made of a walk that stops midway; it says how far it came, unless it came nowhere. */
function stopped(walk: Walk): { wqid: readonly Qid[] } | Errno {
  walk.release();
  return walk.qids.length === 0 ? walk.failure! : { wqid: walk.qids };
}

function walkTo(request: Request, from: Fid, newfid: number, steps: readonly Step[]) {
  const { fids } = request.session;
  fids.checkFree(newfid);
  const going = new Walk(request, from, steps).goOn();
  if (!(going instanceof Promise)) {
    if (going.failure) return stopped(going);
    fids.put(newfid, going.toFid());
    return { wqid: going.qids };
  }
  return arriveLater(request, newfid, going);
}

function arriveLater(request: Request, newfid: number, going: Promise<Walk>) {
  const { fids } = request.session;
  const reserved = request.reserve(newfid);
  return onError(
    () =>
      going.then(walk => {
        if (walk.failure) {
          fids.unreserve(reserved);
          return stopped(walk);
        }
        fids.fill(reserved, walk.toFid());
        return { wqid: walk.qids };
      }),
    () => fids.unreserve(reserved),
  );
}

/** A walk by one name to a new fid, whose number is free, that was begun and turned out to wait. */
export function walkLater(
  request: Request,
  from: Fid,
  newfid: number,
  name: Name,
  found: Promise<Node | Errno>,
  attr: Attr,
) {
  const walk = new Walk(request, from, [name]);
  return arriveLater(request, newfid, walk.goOnLater(name, found, attr));
}

/** The fid moves only when all steps succeeded. Nobody may be using it meanwhile, so it is claimed. */
function walkInPlace(request: Request, number: number, fid: Fid, steps: readonly Step[]) {
  if (steps.length === 0) return { wqid: [] };
  if (fid.use.kind !== 'node') throw EBADF;
  if (fid.busy > 0) throw EBUSY;
  fid.use = { kind: 'claimed', number, before: plain };
  const arrived = onError(
    () => new Walk(request, fid, steps).goOn(),
    () => {
      fid.use = plain;
    },
  );
  return andThen(arrived, walk => {
    fid.use = plain;
    if (walk.failure) return stopped(walk);
    const { tree } = fid.attachment;
    tree.release(fid.node);
    if (fid.dir) tree.release(fid.dir);
    fid.node = walk.node;
    fid.dir = walk.dir;
    fid.name = walk.name;
    return { wqid: walk.qids };
  });
}

/** Gives up the locks taken through a fid; it must be let go of by `discard` after that. */
function releaseLocks(request: Request, { use, attachment }: Fid): MaybePromise<void> {
  if (use.kind === 'file' && use.locked) return request.session.locks.dropThrough(attachment.tree, use);
}

function removeEntry(fid: Fid): MaybePromise<void> {
  const { attachment, node, dir, name } = fid;
  const { tree } = attachment;
  if (attachment.readonly) throw EROFS;
  if (!fid.isObject) throw EBADF;
  if (node === tree.root) throw EBUSY;
  if (dir === undefined || name === undefined) throw EOPNOTSUPP;
  return andThen(tree.isEntry(dir, name, node), isThere => {
    if (!isThere) throw ENOENT;
    return tree.unlink(attachment.actor, dir, name, node.type === S_IFDIR ? 'directory' : 'file');
  });
}

export const walking: Handlers<'walk' | 'clunk' | 'remove'> = {
  walk(request, { fid: number, newfid, wname }) {
    const from = request.object(number);
    return number === newfid
      ? walkInPlace(request, number, from, wname)
      : walkTo(request, from, newfid, wname);
  },

  clunk(request, { fid: number }) {
    const { fids } = request.session;
    const fid = request.take(number);
    const { use } = fid;
    if (use.kind === 'node') {
      fids.discard(fid);
      return done;
    }
    // The fid is gone even when writing the xattr fails.
    const letGo = () => fids.discard(fid);
    const last = onError(
      () => (use.kind === 'xattr-write' ? commitXattr(fid, use) : releaseLocks(request, fid)),
      letGo,
    );
    return andThen(last, () => {
      letGo();
      return done;
    });
  },

  remove(request, { fid: number }) {
    const { fids } = request.session;
    const fid = request.take(number);
    const { dir } = fid;
    const { tree } = fid.attachment;
    // Held by the request: one that still runs may move the fid on meanwhile.
    if (dir) tree.hold(dir);
    return andFinally<typeof done>(
      () => andThen(removeEntry(fid), () => done),
      () =>
        andThen(releaseLocks(request, fid), () => {
          if (dir) tree.release(dir);
          fids.discard(fid);
        }),
    );
  },
};
