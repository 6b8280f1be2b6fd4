import type { CallContext, Node, Tree } from '#backend/tree.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { defaultLimits } from '#quota/limits.ts';
import { SessionQuota } from '#quota/session-quota.ts';
import { FileLockTable } from './file-lock-table.ts';
import { type LockAccount, LockOwner, type LockTable, ownerKey } from './lock-owner.ts';
import type { LockedThrough } from './lock-regions.ts';
import { LockRequest } from './lock-request.ts';

/** The lock table of each file, shared by all sessions. */
const tables = new WeakMap<Tree, Map<Node, FileLockTable>>();

function tableFor(tree: Tree, node: Node): FileLockTable {
  let ofTree = tables.get(tree);
  if (!ofTree) {
    ofTree = new Map();
    tables.set(tree, ofTree);
  }
  const known = ofTree.get(node);
  if (known) return known;
  const table = new FileLockTable(tree, node, () => ofTree.delete(node));
  ofTree.set(node, table);
  return table;
}

/** Type and byte range of Tlock; length 0 means to the end of the file, however large. */
export interface LockedRange {
  readonly type: 0 | 1 | 2;
  readonly start: number;
  readonly length: number;
}

interface BlockingLock extends LockedRange {
  readonly procId: number;
  readonly clientId: Bytes;
}

/** The locks of one session. */
export class LockClient implements LockAccount {
  /** Number of regions held and requests not yet answered. */
  count = 0;
  readonly #owners = new Map<string, LockOwner>();
  readonly #tables = new Set<LockTable>();
  waiting = 0;
  readonly quota: SessionQuota;

  constructor(quota = new SessionQuota(defaultLimits)) {
    this.quota = quota;
  }

  get isFull(): boolean {
    return !this.quota.mayAdd('locks', 1);
  }

  /** Locks or unlocks a range; the result is the request's `outcome`. */
  ask(
    tree: Tree,
    through: LockedThrough,
    range: LockedRange,
    block: boolean,
    clientId: Bytes,
    procId: number,
  ): LockRequest {
    const table = tableFor(tree, through.file.node);
    const owner = this.#owner(clientId, procId);
    const request = new LockRequest(owner, through, range.type, range.start, endOf(range), block);
    table.ask(request);
    return request;
  }

  /** Cancels a request: its outcome is `cancelled`, or `granted` if it was too late. */
  cancel(tree: Tree, request: LockRequest): void {
    tables.get(tree)?.get(request.through.file.node)?.cancel(request);
  }

  /** A conflicting lock of another owner, or of a program outside the server. */
  async test(
    ctx: CallContext,
    tree: Tree,
    through: LockedThrough,
    range: LockedRange,
    clientId: Bytes,
    procId: number,
  ): Promise<BlockingLock | undefined> {
    const owner = this.#owner(clientId, procId);
    const request = { owner, type: range.type, start: range.start, end: endOf(range) };
    const region = tables.get(tree)?.get(through.file.node)?.blockingLock(request);
    if (region === 'free') return undefined;
    if (region) {
      const { type, start, end } = region;
      const length = end === Number.POSITIVE_INFINITY ? 0 : end - start;
      return { type, start, length, procId: region.owner.procId, clientId: region.owner.clientId };
    }
    const found = await tree.testLock(ctx, owner, through.file, range);
    if (!found) return undefined;
    const { type, start, length, pid } = found;
    // fs/9p shows −proc_id as l_pid, and fcntl(2) gives −1 for a lock without a process: hence 1.
    return { type, start, length, procId: pid > 0 ? pid : 1, clientId: '' };
  }

  /** Releases the locks taken through an open fid, before it is closed. */
  dropThrough(tree: Tree, through: LockedThrough): MaybePromise<void> {
    return tables.get(tree)?.get(through.file.node)?.dropThrough(through);
  }

  /** Releases all locks and cancels all requests: the session ends or is reset. */
  async dropAll(): Promise<void> {
    await Promise.allSettled([...this.#tables].map(table => table.dropClient(this)));
  }

  /** @internal */
  counted(owner: LockOwner, more: number, table: LockTable, some: boolean): void {
    this.count += more;
    this.quota.add('locks', more);
    owner.count += more;
    if (owner.count > 0) this.#owners.set(owner.key, owner);
    else this.#owners.delete(owner.key);
    if (some) this.#tables.add(table);
    else this.#tables.delete(table);
  }

  #owner(clientId: Bytes, procId: number): LockOwner {
    return this.#owners.get(ownerKey(clientId, procId)) ?? new LockOwner(this, clientId, procId);
  }
}

function endOf({ start, length }: LockedRange): number {
  return length === 0 ? Number.POSITIVE_INFINITY : start + length;
}
