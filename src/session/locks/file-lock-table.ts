import type { Node, Tree } from '#backend/tree.ts';
import { EBADF, ENOLCK } from '#base/errno.ts';
import type { LockClient, LockOwner } from './lock-client.ts';
import { add, conflict, type LockedThrough, overlaps, type Region, subtract } from './lock-regions.ts';
import type { LockRequest } from './lock-request.ts';

type Wanted = Pick<LockRequest, 'owner' | 'type' | 'start' | 'end'>;
type Range = Pick<LockRequest, 'start' | 'end'>;

/**
 * Delays between two tries when nobody will tell that the lock is free. A holder outside that locks again as soon as it
 * has unlocked leaves gaps that are hit by chance: the more tries, the sooner. One costs some 10 µs.
 */
const retryMsMin = 1;
const retryMsMax = 10;
const endless = Number.POSITIVE_INFINITY;

/**
 * The locks of one file: a table of regions for the owners of all sessions, mirrored to the host so that programs outside
 * see them and are seen. What changes the table runs one after another, since the host may take time to answer.
 *
 * A request that has to wait stands in a queue and holds no thread. As with fcntl(2), only a lock that is held makes anybody
 * wait, and a request that waits keeps nobody out (fs/locks.c: a waiter blocks on the holder and tries again when that
 * lets go). A writer behind readers would otherwise make a reader wait that one of those waits for in turn. When
 * something is given up, those that wait for it are tried in their order.
 *
 * There is no search for deadlocks: a client_id and proc_id is a process with all its threads and its flock(2) locks, and a
 * cycle among processes is none among those.
 *
 * A region is *doubtful* when another process of the same client unlocked the whole file through the same fid: that is
 * either `flock -u` in a child, which gives the lock up, or a child's close(2), which does not. The client's kernel knows,
 * and asks for a conflicting lock only when its own are gone: so the region yields to its own client, and to nobody else.
 */
export class FileLockTable {
  readonly #tree: Tree;
  readonly #node: Node;
  readonly #emptied: () => void;
  readonly #held = new Map<LockOwner, Region<LockOwner>[]>();
  /** Regions and unanswered requests. */
  readonly #counts = new Map<LockClient, number>();
  /** Owners that the host was asked for and that may hold nothing. */
  readonly #asked = new Set<LockOwner>();
  #queue: LockRequest[] = [];
  /** The one being tried: it cannot be called off before the host has answered. */
  #trying: LockRequest | undefined;
  #last: Promise<void> = Promise.resolve();
  #turns = 0;
  /** What was given up since those that wait were tried. */
  #freed: Range[] = [];
  #timer: NodeJS.Timeout | undefined;
  #retryMs = retryMsMin;

  constructor(tree: Tree, node: Node, emptied: () => void) {
    this.#tree = tree;
    this.#node = node;
    this.#emptied = emptied;
  }

  ask(request: LockRequest): void {
    const { client } = request.owner;
    const { locksPerFile } = client.quota.limits;
    const full = client.isFull || (this.#counts.get(client) ?? 0) >= locksPerFile;
    this.#count(request.owner, 1);
    const refused = full && request.type !== 2;
    void this.#serialize(async () => {
      if (refused) this.#answer(request, () => request.fail(ENOLCK));
      else await this.#first(request);
    });
  }

  /** Calls a wish off: at once when it waits, otherwise when it was tried in vain. */
  cancel(request: LockRequest): void {
    request.cancelled = true;
    if (this.#trying === request || !this.#queue.includes(request)) return;
    this.#answer(request, () => request.settle('cancelled'));
  }

  /** The region that would be in the way; `free` when all that is in the way would yield. */
  blockingLock(wanted: Wanted): Region<LockOwner> | 'free' | undefined {
    const conflicts = this.#conflicts(wanted);
    return (
      conflicts.find(region => !yields(region, wanted.owner)) ?? (conflicts.length > 0 ? 'free' : undefined)
    );
  }

  /** Gives up what was taken through an open fid, and fails with EBADF what waits through it. */
  dropThrough(through: LockedThrough): Promise<void> {
    return this.#drop(
      one => one.through === through,
      request => request.fail(EBADF),
    );
  }

  /** Gives up everything of a client; what waits is cancelled. */
  dropClient(client: LockClient): Promise<void> {
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
      // Here they are gone even where the host did not say so: its descriptor for the owner is closed next.
      await Promise.allSettled(this.#regions(wanted).map(region => this.#giveUpRegion(region)));
    });
  }

  #serialize(act: () => Promise<void>): Promise<void> {
    this.#turns++;
    const run = this.#last.then(act);
    const done = async () => {
      this.#forgetIdle();
      await this.#tryWaiting();
      if (--this.#turns === 0 && this.#counts.size === 0) this.#emptied();
    };
    this.#last = run.then(done, done);
    return run;
  }

  async #first(request: LockRequest): Promise<void> {
    if (!request.cancelled && (await this.#try(request))) return;
    if (request.cancelled) return this.#answer(request, () => request.settle('cancelled'));
    const { client } = request.owner;
    // A client that is told "blocked" asks again by itself, later.
    const mayWait = request.block && client.waiting < client.quota.limits.waitingLocksPerSession;
    if (!mayWait) return this.#answer(request, () => request.settle('blocked'));
    this.#queue.push(request);
    client.waiting++;
    if (request.outside) this.#retryMs = retryMsMin;
  }

  /** Tries to grant; true when the wish is answered by that. */
  async #try(request: LockRequest): Promise<boolean> {
    this.#trying = request;
    try {
      const obstacle = await this.#attempt(request);
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

  /** Says what is in the way, or grants. */
  async #attempt(request: LockRequest): Promise<undefined | 'inside' | 'outside'> {
    const { owner, type, start, end, through } = request;
    if (type === 2) {
      this.#doubt(request);
      await this.#giveUp(owner, through, start, end);
      return undefined;
    }
    const conflicts = this.#conflicts(request);
    if (!conflicts.every(region => yields(region, owner))) return 'inside';
    for (const region of conflicts) await this.#giveUpRegion(region);
    const range = { type, start, length: lengthOf(start, end) };
    this.#asked.add(owner);
    if (!(await this.#tree.lock(owner, through.file, range))) return 'outside';
    const held = this.#held.get(owner) ?? [];
    this.#set(owner, add(held, { owner, type, start, end, through, doubtful: false }));
    if (type === 0 && held.some(one => one.type === 1 && overlaps(one, request)))
      this.#freed.push({ start, end });
    return undefined;
  }

  #doubt({ owner, start, end, through }: LockRequest): void {
    if (start !== 0 || end !== endless) return;
    for (const region of this.#regions(one => one.through === through)) {
      if (region.owner !== owner && region.owner.isOfSameClient(owner)) region.doubtful = true;
    }
  }

  #giveUpRegion(region: Region<LockOwner>): Promise<void> {
    return this.#giveUp(region.owner, region.through, region.start, region.end);
  }

  async #giveUp(owner: LockOwner, through: LockedThrough, start: number, end: number): Promise<void> {
    this.#freed.push({ start, end });
    const held = this.#held.get(owner);
    if (!held) return;
    this.#set(owner, subtract(held, owner, start, end));
    this.#asked.add(owner);
    await this.#tree.lock(owner, through.file, { type: 2, start, length: lengthOf(start, end) });
  }

  /** Lets go of what the host needs to hold locks for owners that hold none and wait for none. */
  #forgetIdle(): void {
    for (const owner of this.#asked) {
      if (this.#queue.some(request => request.owner === owner)) continue;
      this.#asked.delete(owner);
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
      void this.#serialize(async () => void this.#freed.push({ start: 0, end: endless }));
    }, this.#retryMs);
  }

  /** Tries those that wait for what was given up, in their order, and again for what they give up by that. */
  async #tryWaiting(): Promise<void> {
    while (this.#freed.length > 0 && this.#queue.length > 0) {
      const freed = this.#freed;
      this.#freed = [];
      for (const request of this.#queue) {
        // Others may have been called off meanwhile.
        if (request.answered || ![...freed, ...this.#freed].some(range => overlaps(range, request))) continue;
        await this.#try(request);
      }
      this.#forgetIdle();
    }
    this.#freed = [];
    this.#retryLater();
  }
}

/** Whether a region gives way to an owner that asks for what it is in the way of. */
function yields(region: Region<LockOwner>, owner: LockOwner): boolean {
  return region.doubtful && region.owner.isOfSameClient(owner);
}

function lengthOf(start: number, end: number): number {
  return end === endless ? 0 : end - start;
}
