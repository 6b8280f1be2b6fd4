import type { Node, Tree } from '#backend/tree.ts';
import { EBADF, ENOLCK } from '#base/errno.ts';
import { P9_LOCK_RDLCK, P9_LOCK_UNLCK, P9_LOCK_WRLCK } from '#protocol/constants.ts';
import type { LockAccount, LockOwner, LockTable } from './lock-owner.ts';
import { add, conflict, type LockedThrough, overlaps, type Region, subtract } from './lock-regions.ts';
import type { LockRequest } from './lock-request.ts';

type Wanted = Pick<LockRequest, 'owner' | 'type' | 'start' | 'end'>;
type Range = Pick<LockRequest, 'start' | 'end'>;

/**
 * Delays in ms between retries while a lock outside this server conflicts: nothing notifies of its release. A holder that
 * relocks at once leaves short gaps, found only by chance: the more retries, the sooner. One costs about 10 µs.
 */
const retryMsMin = 1;
const retryMsMax = 10;
const endOfFile = Number.POSITIVE_INFINITY;

/**
 * The byte-range locks of one file, of the owners of all sessions, mirrored to the host so that they conflict with those of
 * host programs. Operations run one after another, since a host call may take time.
 *
 * A request that must wait is queued and holds no thread. As with fcntl(2), only held locks block a request, never queued
 * ones (fs/locks.c: a waiter blocks on the holder and retries when that unlocks). Otherwise a writer queued behind readers
 * could block a reader that one of these readers waits for. After an unlock, overlapping requests are retried in queue order.
 *
 * No deadlock detection: client_id and proc_id stand for a process with all its threads and its flock(2) locks, and a cycle
 * among processes need not be a deadlock among those.
 *
 * A region is *doubtful* after another process of the same client has unlocked the whole file through the same fid. That is
 * either `flock -u` in a child, which releases the lock, or a child's close(2), which does not. The client's kernel knows
 * which: it requests a conflicting lock only when its own are gone. So the region yields to its own client and to no other.
 */
export class FileLockTable implements LockTable {
  readonly #tree: Tree;
  readonly #node: Node;
  readonly #onEmpty: () => void;
  readonly #held = new Map<LockOwner, Region<LockOwner>[]>();
  /** Number of regions and unanswered requests of each client. */
  readonly #counts = new Map<LockAccount, number>();
  /** Owners for which the host was called since the last `#forgetIdle`; they may hold nothing. */
  readonly #hostOwners = new Set<LockOwner>();
  #queue: LockRequest[] = [];
  /** The request in a host call: it cannot be cancelled before the call returns. */
  #trying: LockRequest | undefined;
  #last: Promise<void> = Promise.resolve();
  /** Operations that run or wait for their predecessors. */
  #operations = 0;
  /** Ranges released since queued requests were last retried. */
  #freed: Range[] = [];
  #timer: NodeJS.Timeout | undefined;
  #retryMs = retryMsMin;

  constructor(tree: Tree, node: Node, onEmpty: () => void) {
    this.#tree = tree;
    this.#node = node;
    this.#onEmpty = onEmpty;
  }

  ask(request: LockRequest): void {
    const { client } = request.owner;
    const { locksPerFile } = client.quota.limits;
    const full = client.isFull || (this.#counts.get(client) ?? 0) >= locksPerFile;
    this.#count(request.owner, 1);
    const refused = full && request.type !== P9_LOCK_UNLCK;
    void this.#serialize(async () => {
      if (refused) this.#answer(request, () => request.fail(ENOLCK));
      else await this.#tryFirst(request);
    });
  }

  /** Cancels a request: a queued one at once, one in a host call when that finds a conflict. */
  cancel(request: LockRequest): void {
    request.cancelled = true;
    if (this.#trying === request || !this.#queue.includes(request)) return;
    this.#answer(request, () => request.settle('cancelled'));
  }

  /** A region that blocks the request; `free` if all conflicting regions yield; undefined without conflict. */
  blockingLock(wanted: Wanted): Region<LockOwner> | 'free' | undefined {
    const conflicts = this.#conflicts(wanted);
    return (
      conflicts.find(region => !yields(region, wanted.owner)) ?? (conflicts.length > 0 ? 'free' : undefined)
    );
  }

  /** Releases the locks taken through an open fid; its waiting requests fail with EBADF. */
  dropThrough(through: LockedThrough): Promise<void> {
    return this.#drop(
      one => one.through === through,
      request => request.fail(EBADF),
    );
  }

  dropClient(client: LockAccount): Promise<void> {
    return this.#drop(
      one => one.owner.client === client,
      request => request.settle('cancelled'),
    );
  }

  #drop(
    wanted: (one: { owner: LockOwner; through: LockedThrough }) => boolean,
    answer: (request: LockRequest) => void,
  ): Promise<void> {
    return this.#serialize(async () => {
      for (const request of this.#queue.filter(wanted)) this.#answer(request, () => answer(request));
      // A failed host call is ignored: the table has removed the region, and closing the owner's descriptor unlocks it.
      await Promise.allSettled(this.#regions(wanted).map(region => this.#releaseRegion(region)));
    });
  }

  #serialize(act: () => Promise<void>): Promise<void> {
    this.#operations++;
    const run = this.#last.then(act);
    const done = async () => {
      this.#forgetIdle();
      await this.#tryWaiting();
      if (--this.#operations === 0 && this.#counts.size === 0) this.#onEmpty();
    };
    this.#last = run.then(done, done);
    return run;
  }

  async #tryFirst(request: LockRequest): Promise<void> {
    if (!request.cancelled && (await this.#try(request))) return;
    if (request.cancelled) return this.#answer(request, () => request.settle('cancelled'));
    const { client } = request.owner;
    // With status BLOCKED the client asks again by itself, later.
    const mayWait = request.block && client.waiting < client.quota.limits.waitingLocksPerSession;
    if (!mayWait) return this.#answer(request, () => request.settle('blocked'));
    this.#queue.push(request);
    client.waiting++;
    if (request.outside) this.#retryMs = retryMsMin;
  }

  /** Tries to grant the request; true if it was answered: granted, cancelled or failed. */
  async #try(request: LockRequest): Promise<boolean> {
    this.#trying = request;
    try {
      const obstacle = await this.#tryGrant(request);
      request.outside = obstacle === 'outside';
      if (obstacle !== undefined && !request.cancelled) return false;
      const outcome = obstacle === undefined ? 'granted' : 'cancelled';
      this.#answer(request, () => request.settle(outcome));
    } catch (error) {
      this.#answer(request, () => request.fail(error));
    } finally {
      this.#trying = undefined;
    }
    return true;
  }

  /** Grants the request, or returns where the blocking lock is held. */
  async #tryGrant(request: LockRequest): Promise<undefined | 'inside' | 'outside'> {
    const { owner, type, start, end, through } = request;
    if (type === P9_LOCK_UNLCK) {
      this.#doubt(request);
      await this.#release(owner, through, start, end);
      return undefined;
    }
    const conflicts = this.#conflicts(request);
    if (!conflicts.every(region => yields(region, owner))) return 'inside';
    for (const region of conflicts) await this.#releaseRegion(region);
    const range = { type, start, length: lengthOf(start, end) };
    this.#hostOwners.add(owner);
    if (!(await this.#tree.lock(owner, through.file, range))) return 'outside';
    const held = this.#held.get(owner) ?? [];
    this.#set(owner, add(held, { owner, type, start, end, through, doubtful: false }));
    if (type === P9_LOCK_RDLCK && held.some(one => one.type === P9_LOCK_WRLCK && overlaps(one, request)))
      this.#freed.push({ start, end });
    return undefined;
  }

  #doubt({ owner, start, end, through }: LockRequest): void {
    if (start !== 0 || end !== endOfFile) return;
    for (const region of this.#regions(one => one.through === through)) {
      if (region.owner !== owner && region.owner.isOfSameClient(owner)) region.doubtful = true;
    }
  }

  #releaseRegion(region: Region<LockOwner>): Promise<void> {
    return this.#release(region.owner, region.through, region.start, region.end);
  }

  async #release(owner: LockOwner, through: LockedThrough, start: number, end: number): Promise<void> {
    this.#freed.push({ start, end });
    const held = this.#held.get(owner);
    if (!held) return;
    this.#set(owner, subtract(held, owner, start, end));
    this.#hostOwners.add(owner);
    await this.#tree.lock(owner, through.file, { type: P9_LOCK_UNLCK, start, length: lengthOf(start, end) });
  }

  /** Frees the host's resources (`Tree.forgetLocks`) of owners that hold no lock and wait for none. */
  #forgetIdle(): void {
    for (const owner of this.#hostOwners) {
      if (this.#queue.some(request => request.owner === owner)) continue;
      this.#hostOwners.delete(owner);
      if (!this.#held.has(owner)) this.#tree.forgetLocks(owner, this.#node);
    }
  }

  #conflicts(wanted: Wanted): Region<LockOwner>[] {
    const found: Region<LockOwner>[] = [];
    for (const regions of this.#held.values()) {
      for (const region of regions) if (conflict(region, wanted)) found.push(region);
    }
    return found;
  }

  #regions(wanted: (region: Region<LockOwner>) => boolean): Region<LockOwner>[] {
    return [...this.#held.values()].flat().filter(wanted);
  }

  #set(owner: LockOwner, regions: Region<LockOwner>[]): void {
    const before = this.#held.get(owner)?.length ?? 0;
    if (regions.length === 0) this.#held.delete(owner);
    else this.#held.set(owner, regions);
    this.#count(owner, regions.length - before);
  }

  #count(owner: LockOwner, more: number): void {
    const { client } = owner;
    const count = (this.#counts.get(client) ?? 0) + more;
    if (count === 0) this.#counts.delete(client);
    else this.#counts.set(client, count);
    client.counted(owner, more, this, count > 0);
  }

  #answer(request: LockRequest, answer: () => void): void {
    this.#leaveQueue(request);
    this.#count(request.owner, -1);
    answer();
  }

  #leaveQueue(request: LockRequest): void {
    if (!this.#queue.includes(request)) return;
    this.#queue = this.#queue.filter(one => one !== request);
    request.owner.client.waiting--;
    if (this.#queue.length > 0) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #retryLater(): void {
    if (this.#timer !== undefined || !this.#queue.some(request => request.outside)) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#retryMs = Math.min(this.#retryMs * 2, retryMsMax);
      void this.#serialize(async () => void this.#freed.push({ start: 0, end: endOfFile }));
    }, this.#retryMs);
  }

  /** Retries queued requests that overlap released ranges, in queue order, until no retry releases more. */
  async #tryWaiting(): Promise<void> {
    while (this.#freed.length > 0 && this.#queue.length > 0) {
      const freed = this.#freed;
      this.#freed = [];
      for (const request of this.#queue) {
        // It may have been cancelled during the retry of another.
        if (request.answered || ![...freed, ...this.#freed].some(range => overlaps(range, request))) continue;
        await this.#try(request);
      }
      this.#forgetIdle();
    }
    this.#freed = [];
    this.#retryLater();
  }
}

function yields(region: Region<LockOwner>, owner: LockOwner): boolean {
  return region.doubtful && region.owner.isOfSameClient(owner);
}

function lengthOf(start: number, end: number): number {
  return end === endOfFile ? 0 : end - start;
}
