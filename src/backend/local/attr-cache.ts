import type { Attr } from '#base/attr.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { SecurityModel } from '#security/model.ts';
import type { CallContext } from '../tree.ts';
import type { CachedAttr, LocalNode } from './node.ts';
import type { Targets } from './node-record.ts';
import type { NodeTable } from './node-table.ts';

/** More than a tick of the kernel's clock (10 ms at HZ=100). */
const tickMsMax = 20;

/**
 * Replaces the host's attributes by those that the client sees. What the model computed is kept in the node and used while
 * ctime is unchanged, if the file system's ctime shows every change (as git trusts its index).
 */
export class AttrCache {
  readonly #nodes: NodeTable;
  readonly #model: SecurityModel;
  readonly #targets: Targets;

  constructor(nodes: NodeTable, model: SecurityModel, targets: Targets) {
    this.#nodes = nodes;
    this.#model = model;
    this.#targets = targets;
  }

  /** `attr` has the host's attributes, read in this callback. */
  applyModel(ctx: CallContext, node: LocalNode, attr: Attr): MaybePromise<void> {
    if (!this.#model.overlaysAttrs) {
      const owner = this.#model.shownOwner?.(ctx.creds);
      if (owner) {
        attr.uid = owner.uid;
        attr.gid = owner.gid;
      }
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
    // Decided before the model reads. A record file that QEMU changes leaves the object's ctime as it is.
    const trusted = !this.#model.recordFiles && ctimeShowsChanges(node, attr);
    const sys = node.volume.sys(ctx);
    return andThen(
      this.#nodes.use(ctx, node, fd =>
        andThen(this.#targets.hideLinks(ctx, node, fd, attr), () =>
          this.#model.overlayAttrs(this.#targets.of(ctx, node, sys, fd), attr),
        ),
      ),
      () => {
        node.type = attr.type;
        node.cachedAttr = trusted ? cached(attr) : undefined;
        attr.setQidPath(node.pathLow, node.pathHigh);
      },
    );
  }
}

/** Whether every later change will move ctime. */
function ctimeShowsChanges({ volume }: LocalNode, attr: Attr): boolean {
  if (volume.ctimeTells === 'exact') return true;
  if (volume.ctimeTells === 'unknown') return false;
  const ageMs = Date.now() - attr.ctimeSec * 1000 - attr.ctimeNsec / 1e6;
  return ageMs > tickMsMax;
}

function cached(attr: Attr): CachedAttr {
  const { ctimeSecLow: ctimeSec, ctimeNsec, uid, gid, mode, rdev } = attr;
  return { ctimeSec, ctimeNsec, uid, gid, mode, rdev };
}
