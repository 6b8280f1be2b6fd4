import type { Node } from '#backend/tree.ts';
import type { Attr } from '#base/attr.ts';
import { S_IFDIR } from '#base/attr.ts';
import { EBADF, EBUSY, ENOENT, EOPNOTSUPP, EROFS, Errno } from '#base/errno.ts';
import { andThen, type MaybePromise, onError } from '#base/maybe-promise.ts';
import type { Name, Step } from '#base/name.ts';
import type { Qid } from '#protocol/kinds.ts';
import type { Attachment } from '../attachment.ts';
import { Fid, plain } from '../fids.ts';
import type { Request } from '../request.ts';
import { done, fillLater, type Handlers } from './handler.ts';
import { commitXattr } from './xattr.ts';

/** A walk in progress. Holds the current node and the directory in which it was looked up. */
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

  /** Walks the remaining steps, up to one that fails and sets `failure`. Synchronous while the tree is. */
  run(): MaybePromise<this> {
    while (this.failure === undefined && this.qids.length < this.steps.length) {
      const step = this.steps[this.qids.length]!;
      const { attr } = this.request;
      let found: MaybePromise<Node | Errno>;
      try {
        found = this.#find(step, attr);
      } catch (error) {
        found = failureOf(error);
      }
      if (found instanceof Promise) return this.runAfter(step, found, attr);
      this.#advance(step, found, attr);
    }
    return this;
  }

  runAfter(step: Step, found: Promise<Node | Errno>, attr: Attr): Promise<this> {
    return found.catch(failureOf).then(node => {
      this.#advance(step, node, attr);
      return this.run();
    });
  }

  #find(step: Step, attr: Attr): MaybePromise<Node | Errno> {
    const { tree } = this.attachment;
    const ctx = this.request.as(this.attachment);
    if (step !== '..') return tree.walk(ctx, this.node, step as Name, attr);
    return andThen(tree.parent(ctx, this.node), parent =>
      onError<Node>(
        () => andThen(tree.stat(ctx, parent, attr), () => parent),
        () => tree.release(parent),
      ),
    );
  }

  #advance(step: Step, found: Node | Errno, attr: Attr): void {
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

  /** Makes a fid, which takes over the walk's references. */
  toFid(): Fid {
    return new Fid(this.attachment, this.node, plain, this.dir, this.name);
  }
}

function failureOf(error: unknown): Errno {
  if (error instanceof Errno) return error;
  throw error;
}

/** The reply to a walk that failed: the qids so far, or Rlerror if the first step failed; no new fid (walk(5)). */
function stopped(walk: Walk): { wqid: readonly Qid[] } | Errno {
  walk.release();
  return walk.qids.length === 0 ? walk.failure! : { wqid: walk.qids };
}

function walkTo(request: Request, from: Fid, newfid: number, steps: readonly Step[]) {
  const { fids } = request.session;
  fids.checkFree(newfid);
  const walked = new Walk(request, from, steps).run();
  if (!(walked instanceof Promise)) {
    if (walked.failure) return stopped(walked);
    fids.put(newfid, walked.toFid());
    return { wqid: walked.qids };
  }
  return finishLater(request, newfid, walked);
}

function finishLater(request: Request, newfid: number, walked: Promise<Walk>) {
  return fillLater(request, newfid, walked, walk =>
    walk.failure
      ? { fid: undefined, reply: stopped(walk) }
      : { fid: walk.toFid(), reply: { wqid: walk.qids } },
  );
}

/** Continues a walk of one name when the fast path got a promise from `Tree.walk`. `newfid` is free. */
export function walkLater(
  request: Request,
  from: Fid,
  newfid: number,
  name: Name,
  found: Promise<Node | Errno>,
  attr: Attr,
) {
  const walk = new Walk(request, from, [name]);
  return finishLater(request, newfid, walk.runAfter(name, found, attr));
}

/** Walks with newfid = fid. The fid moves only if all steps succeed. EBUSY if a request uses it; claimed meanwhile. */
async function walkInPlace(request: Request, number: number, fid: Fid, steps: readonly Step[]) {
  if (steps.length === 0) return { wqid: [] };
  if (fid.use.kind !== 'node') throw EBADF;
  if (fid.busy > 0) throw EBUSY;
  fid.use = { kind: 'claimed', number, before: plain };
  let walk: Walk;
  try {
    walk = await new Walk(request, fid, steps).run();
  } finally {
    fid.use = plain;
  }
  if (walk.failure) return stopped(walk);
  const { tree } = fid.attachment;
  tree.release(fid.node);
  if (fid.dir) tree.release(fid.dir);
  fid.node = walk.node;
  fid.dir = walk.dir;
  fid.name = walk.name;
  return { wqid: walk.qids };
}

/** Releases the locks taken through a fid. The caller discards the fid afterwards. */
function releaseLocks(request: Request, { use, attachment }: Fid): MaybePromise<void> {
  if (use.kind === 'file' && use.locked) return request.session.locks.dropThrough(attachment.tree, use);
}

/** Discards a taken fid after its last call, even if that fails. */
async function endUse(request: Request, fid: Fid, last: MaybePromise<void>): Promise<typeof done> {
  try {
    await last;
    return done;
  } finally {
    request.session.fids.discard(fid);
  }
}

function removeEntry(request: Request, fid: Fid): MaybePromise<void> {
  const { attachment, node, dir, name } = fid;
  const { tree } = attachment;
  if (attachment.readonly) throw EROFS;
  if (!fid.isObject) throw EBADF;
  if (node === tree.root) throw EBUSY;
  if (dir === undefined || name === undefined) throw EOPNOTSUPP;
  const ctx = request.as(attachment);
  return andThen(tree.isEntry(ctx, dir, name, node), isThere => {
    if (!isThere) throw ENOENT;
    return tree.unlink(ctx, dir, name, node.type === S_IFDIR ? 'directory' : 'file');
  });
}

export const walking = {
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
    if (use.kind === 'xattr-write') return endUse(request, fid, commitXattr(request, fid, use));
    if (use.kind === 'file' && use.locked) return endUse(request, fid, releaseLocks(request, fid));
    fids.discard(fid);
    return done;
  },

  async remove(request, { fid: number }) {
    const { fids } = request.session;
    const fid = request.take(number);
    const { dir } = fid;
    const { tree } = fid.attachment;
    // Hold it: a Trename that still runs may move the fid and release its directory.
    if (dir) tree.hold(dir);
    try {
      await removeEntry(request, fid);
      return done;
    } finally {
      await releaseLocks(request, fid);
      if (dir) tree.release(dir);
      fids.discard(fid);
    }
  },
} satisfies Partial<Handlers>;
