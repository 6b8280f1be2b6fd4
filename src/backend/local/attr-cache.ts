import type { Attr } from '#base/attr.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Submitter } from '#host/syscalls.ts';
import type { SecurityModel } from '#security/model.ts';
import type { LocalNode, NodeTable } from './node.ts';

/** Longer than a tick of any kernel's clock (10 ms at HZ=100). */
const tickMsMax = 20;

/** What a model was seen to show, and the ctime at which it was looked at. */
export interface CachedAttr {
  /** Of the seconds the lower half, which goes round in 136 years. */
  readonly ctimeSec: number;
  readonly ctimeNsec: number;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
  readonly rdev: number;
}

/**
 * Overlays what the client sees on the host's attributes. What a model has shown is kept with the node and shown again as
 * long as it cannot be stale: the object's ctime has not moved, and its ctime tells of every change (as git trusts its
 * index). Whatever anybody changes about an object moves its ctime.
 */
export class AttrCache {
  readonly #nodes: NodeTable;
  readonly #model: SecurityModel;

  constructor(nodes: NodeTable, model: SecurityModel) {
    this.#nodes = nodes;
    this.#model = model;
  }

  /** `attr` holds the host's attributes, which were read in this turn. */
  applyModel(submitter: Submitter, node: LocalNode, attr: Attr): MaybePromise<void> {
    if (!this.#model.overlaysAttrs) {
      attr.setQidPath(node.pathLow, node.pathHigh);
      return;
    }
    const { cachedAttr } = node;
    if (cachedAttr && cachedAttr.ctimeSec === attr.ctimeSecLow && cachedAttr.ctimeNsec === attr.ctimeNsec) {
      attr.uid = cachedAttr.uid;
      attr.gid = cachedAttr.gid;
      attr.mode = cachedAttr.mode;
      attr.rdev = cachedAttr.rdev;
      attr.setQidPath(node.pathLow, node.pathHigh);
      return;
    }
    const trusted = tellsOfChanges(node, attr);
    const sys = node.volume.sys(submitter);
    return andThen(
      this.#nodes.use(submitter, node, fd => this.#model.overlayAttrs({ sys, fd }, attr)),
      () => {
        node.type = attr.type;
        node.cachedAttr = trusted ? seenIn(attr) : undefined;
        attr.setQidPath(node.pathLow, node.pathHigh);
      },
    );
  }
}

/** Whether any later change will show in ctime; asked before the model looks. */
function tellsOfChanges({ volume }: LocalNode, attr: Attr): boolean {
  if (volume.ctimeTells === 'exact') return true;
  if (volume.ctimeTells === 'unknown') return false;
  const ageMs = Date.now() - attr.ctimeSec * 1000 - attr.ctimeNsec / 1e6;
  return ageMs > tickMsMax;
}

function seenIn(attr: Attr): CachedAttr {
  const { ctimeSecLow: ctimeSec, ctimeNsec, uid, gid, mode, rdev } = attr;
  return { ctimeSec, ctimeNsec, uid, gid, mode, rdev };
}
