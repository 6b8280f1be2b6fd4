import { type Answer, andThen } from '../answer.ts';
import { defaultLimits } from '../limits.ts';
import type { Bytes } from '../name.ts';
import type { Node, Tree } from '../tree/tree.ts';
import { Holdings } from './holdings.ts';
import { LockPlace } from './lock-place.ts';
import type { LockedThrough } from './lock-regions.ts';
import { LockWish } from './lock-wish.ts';

/** One file's locks are one table for all sessions. */
const places = new WeakMap<Tree, Map<Node, LockPlace>>();

function placeOf(tree: Tree, node: Node): LockPlace {
  let ofTree = places.get(tree);
  if (!ofTree) {
    ofTree = new Map();
    places.set(tree, ofTree);
  }
  const known = ofTree.get(node);
  if (known) return known;
  const place = new LockPlace(tree, node, () => ofTree.delete(node));
  ofTree.set(node, place);
  return place;
}

/** Who owns a lock. Guests often have equal names and process numbers, so the session is part of it. */
export class LockOwner {
  readonly client: LockClient;
  readonly clientId: Bytes;
  readonly procId: number;
  readonly key: string;
  /** Regions and unanswered requests of its own. */
  count = 0;

  constructor(client: LockClient, clientId: Bytes, procId: number) {
    this.client = client;
    this.clientId = clientId;
    this.procId = procId;
    this.key = keyOf(clientId, procId);
  }

  isOfSameClient(other: LockOwner): boolean {
    return this.client === other.client && this.clientId === other.clientId;
  }
}

/** A byte range as Tlock has it: length 0 is "to the end of the file, however large". */
export interface LockedRange {
  readonly type: 0 | 1 | 2;
  readonly start: number;
  readonly length: number;
}

/** A lock that is in the way, as Rgetlock has it. */
export interface LockInTheWay extends LockedRange {
  readonly procId: number;
  readonly clientId: Bytes;
}

/** The locks of one session. */
export class LockClient {
  /** Regions held and requests not yet answered. */
  count = 0;
  readonly #owners = new Map<string, LockOwner>();
  readonly #places = new Set<LockPlace>();

  /** Requests that wait until somebody lets go. */
  waiting = 0;
  readonly holdings: Holdings;

  constructor(holdings = new Holdings(defaultLimits)) {
    this.holdings = holdings;
  }

  get isFull(): boolean {
    return !this.holdings.mayAdd('locks', 1);
  }

  /** Asks for a lock, or gives one up. What comes of it is the wish's `outcome`. */
  ask(
    tree: Tree,
    through: LockedThrough,
    range: LockedRange,
    block: boolean,
    clientId: Bytes,
    procId: number,
  ): LockWish {
    const place = placeOf(tree, through.file.node);
    const owner = this.#owner(clientId, procId);
    const wish = new LockWish(owner, through, range.type, range.start, endOf(range), block);
    place.ask(wish);
    return wish;
  }

  /** Calls a wish off. It is settled as cancelled, or as granted when it was too late. */
  cancel(tree: Tree, wish: LockWish): void {
    places.get(tree)?.get(wish.through.file.node)?.cancel(wish);
  }

  /** The lock that would keep this owner from `range`: another client's, another process's, or one outside the server. */
  test(
    tree: Tree,
    through: LockedThrough,
    range: LockedRange,
    clientId: Bytes,
    procId: number,
  ): Answer<LockInTheWay | undefined> {
    const owner = this.#owner(clientId, procId);
    const wish = { owner, type: range.type, start: range.start, end: endOf(range) };
    const region = places.get(tree)?.get(through.file.node)?.inTheWay(wish);
    if (region === 'free') return undefined;
    if (region) {
      const { type, start, end } = region;
      const length = end === Number.POSITIVE_INFINITY ? 0 : end - start;
      return { type, start, length, procId: region.owner.procId, clientId: region.owner.clientId };
    }
    return andThen(tree.testLock(owner, through.file, range), found => {
      if (!found) return undefined;
      const { type, start, length, pid } = found;
      // The client shows its programs −proc_id as l_pid; fcntl(2) gives −1 for a lock that belongs to no process.
      return { type, start, length, procId: pid > 0 ? pid : 1, clientId: '' };
    });
  }

  /** An open fid goes, and the locks taken through it fall. */
  dropThrough(tree: Tree, through: LockedThrough): Answer<void> {
    return places.get(tree)?.get(through.file.node)?.dropThrough(through);
  }

  /** The session ends or starts anew: everything falls. */
  async dropAll(): Promise<void> {
    await Promise.allSettled([...this.#places].map(place => place.dropClient(this)));
  }

  /** @internal A place tells what this client has there more or less, and whether anything is left. */
  counted(owner: LockOwner, more: number, place: LockPlace, some: boolean): void {
    this.count += more;
    this.holdings.add('locks', more);
    owner.count += more;
    if (owner.count > 0) this.#owners.set(owner.key, owner);
    else this.#owners.delete(owner.key);
    if (some) this.#places.add(place);
    else this.#places.delete(place);
  }

  #owner(clientId: Bytes, procId: number): LockOwner {
    return this.#owners.get(keyOf(clientId, procId)) ?? new LockOwner(this, clientId, procId);
  }
}

function keyOf(clientId: Bytes, procId: number): string {
  return `${procId} ${clientId}`;
}

function endOf({ start, length }: LockedRange): number {
  return length === 0 ? Number.POSITIVE_INFINITY : start + length;
}
