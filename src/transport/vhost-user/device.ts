import type { Logger } from '#base/log.ts';
import type { Peer } from '#base/peer.ts';
import { mappingFaults, signal } from '#host/vhost.ts';
import type { SessionPort, TransportPort } from '#session/exchange.ts';
import { Chain, type ChainOwner } from './chain.ts';
import { Gap } from './gap.ts';
import { GuestMemory } from './memory.ts';
import { VhostUserError } from './messages.ts';
import { type RingLayout, SplitRing } from './ring.ts';
import { Unmapped, VirtioError } from './virtio-error.ts';

export type OpenSession = (line: TransportPort) => SessionPort;

export interface DeviceOptions {
  readonly open: OpenSession;
  /**
   * For so many microseconds after a request the queue is looked at in every turn of the event loop. The guest need not
   * kick meanwhile, and this process does not go to sleep: both cost more than answering most requests.
   */
  readonly busyPoll: number;
  readonly log: Logger;
}

/** Requests taken in one turn, before other guests and connections have theirs. */
const requestsPerTurnMax = 64;
/** How long a monitor waits at most for calls that work on the guest's memory, when it stops the device. */
const stopMsMax = 10_000;

/**
 * A virtio-9p device as its driver sees it: one virtqueue, and behind it a session. A queue that was stopped goes on where
 * it was when it is started again as it was (the guest was paused); otherwise the guest has started anew, and so does the
 * session.
 */
export class Device implements ChainOwner, TransportPort {
  readonly peer: Peer;
  readonly memory = new GuestMemory();
  /** Told of what was given back, and of a broken device; undefined while the monitor gives none. */
  callDescriptor: number | undefined;
  errorDescriptor: number | undefined;

  readonly #open: OpenSession;
  readonly #log: Logger;
  readonly #idle: Chain[] = [];
  #session: SessionPort | undefined;
  #ring: SplitRing | undefined;
  #stopped: SplitRing | undefined;
  /** Replies to a queue that is stopped, or that waits for memory. */
  #heldReplies: (() => void)[] = [];
  #lent = 0;
  #whenNothingLent: (() => void) | undefined;
  #broken = false;
  #enabled = false;
  #serving = false;
  #signalling = false;
  /** While it is waited for, the queue stands still. */
  readonly #gap = new Gap(() => this.#lookAgain());
  #next = 0;
  #faults = mappingFaults();
  readonly #pollMs: number;
  /** Until when the queue is looked at, by performance.now(). */
  #pollEnd = 0;
  #polling = false;

  constructor(peer: Peer, { open, busyPoll, log }: DeviceOptions) {
    this.peer = peer;
    this.#open = open;
    this.#pollMs = busyPoll / 1000;
    this.#log = log;
  }

  get running(): boolean {
    return this.#ring !== undefined;
  }

  /** Whether it waits to be reset. */
  get broken(): boolean {
    return this.#broken;
  }

  /** Starts the queue. Throws Broken when it does not lie in the guest's memory. */
  start(place: RingLayout, next: number): void {
    const stopped = this.#stopped;
    if (stopped && stopped.next === next && same(stopped.place, place)) {
      stopped.locate();
      if (stopped.continues) {
        this.#continue(stopped);
        return;
      }
    }
    const ring = new SplitRing(this.memory, place, next);
    void this.#endSession();
    this.#ring = ring;
    this.#session = this.#open(this);
  }

  #continue(ring: SplitRing): void {
    this.#ring = ring;
    this.#stopped = undefined;
    this.#deliverHeld();
  }

  #deliverHeld(): void {
    for (const deliver of this.#heldReplies.splice(0)) deliver();
  }

  /** A queue that is not enabled keeps its place. */
  enable(enabled: boolean): void {
    this.#enabled = enabled;
    this.serve();
  }

  /**
   * Stops the queue, and resolves with where it stopped once nothing works on the guest's memory any more. What still
   * waits, such as for a lock, is answered when the queue goes on.
   */
  async stop(): Promise<number> {
    const ring = this.#ring;
    if (ring) {
      this.#tell(ring);
      this.#stopped = ring;
      this.#next = ring.next;
      this.#ring = undefined;
      this.#gap.stopWaiting();
    }
    this.#broken = false;
    await this.#nothingLent();
    return this.#next;
  }

  /** Stops the queue and ends the session. */
  async reset(): Promise<void> {
    await this.stop();
    void this.#endSession();
    this.#next = 0;
  }

  /** Gives up, without a word to the guest. Resolves when nothing works on the guest's memory, which is then let go. */
  async close(): Promise<void> {
    this.#ring = undefined;
    this.#gap.stopWaiting();
    await this.#endSession();
    this.memory.clear();
    if (this.#lent === 0) this.memory.release();
  }

  /** Takes no more requests. Resolves when those that run are answered. */
  async finish(): Promise<void> {
    this.#enabled = false;
    await this.#session?.finish();
  }

  /** The guest's memory is another: regions came or went. Those that went may come again as parts of others. */
  memoryChanged(mayComeAgain: boolean): void {
    if (mayComeAgain) this.#gap.begin();
    if (this.#lent === 0) this.memory.release();
    this.#lookAgain();
  }

  /** Goes on with the memory that there is now. */
  #lookAgain(): void {
    const ring = this.#ring;
    const { waited } = this.#gap;
    this.#gap.stopWaiting();
    if (!ring) return;
    this.#guard(() => ring.locate());
    if (!waited || this.#gap.waited || this.#ring !== ring) return;
    this.#deliverHeld();
    this.serve();
  }

  hangUp(reason: string): void {
    this.fail(reason);
  }

  resume(): void {
    setImmediate(() => this.serve());
  }

  /** Marks the device as broken; only a reset helps. */
  fail(reason: string): void {
    if (this.#broken) return;
    // What stood in memory that was lost explains nothing.
    const why = this.memory.faulted()
      ? "the file of the guest's memory was cut short by its monitor"
      : reason;
    this.#log.warn(`${this.peer.label}: the device is broken until the guest resets it: ${why}`);
    this.#broken = true;
    if (this.#ring) this.#next = this.#ring.next;
    this.#ring = undefined;
    this.#gap.stopWaiting();
    void this.#endSession();
    if (this.errorDescriptor !== undefined) signal(this.errorDescriptor);
  }

  /** Takes the requests that wait in the queue. */
  serve(): void {
    const ring = this.#ring;
    if (!ring || !this.#enabled || this.#serving || this.#gap.waited) return;
    this.#serving = true;
    try {
      this.#guard(() => this.#takeAll(ring));
    } finally {
      this.#serving = false;
    }
    if (this.#ring === ring && !this.#gap.waited) this.#tell(ring);
    this.#checkFaults();
  }

  #takeAll(ring: SplitRing): void {
    ring.disableKicks();
    for (let taken = 0; this.#ring === ring && this.#enabled; ) {
      if (taken === requestsPerTurnMax) {
        setImmediate(() => this.serve());
        return;
      }
      const index = ring.popAvail();
      if (index >= 0) {
        taken++;
        if (this.#receive(ring, index)) continue;
        ring.putBack(index);
        return;
      } else {
        if (this.#pollMs > 0 && this.#pollsFor(taken)) return;
        if (!ring.enableKicks()) return;
        ring.disableKicks();
      }
    }
  }

  /** Whether the guest need not kick for its next request, since the queue will be looked at. */
  #pollsFor(taken: number): boolean {
    const now = performance.now();
    if (taken > 0) this.#pollEnd = now + this.#pollMs;
    if (now >= this.#pollEnd) return false;
    if (!this.#polling) {
      this.#polling = true;
      setImmediate(this.#look);
    }
    return true;
  }

  readonly #look = (): void => {
    const ring = this.#ring;
    if (ring && performance.now() < this.#pollEnd) {
      setImmediate(this.#look);
      if (ring.waiting) this.serve();
    } else {
      this.#polling = false;
      // Asks for kicks again, and takes what has come meanwhile.
      this.serve();
    }
  };

  /** Hands a request over. False when it has to wait: the session says when it has room again. */
  #receive(ring: SplitRing, index: number): boolean {
    const session = this.#session!;
    const chain = this.#idle.pop() ?? new Chain(this);
    try {
      ring.collect(index, chain.readable, chain.writable);
    } catch (error) {
      this.#free(chain);
      if (error instanceof Unmapped) ring.putBack(index);
      throw error;
    }
    chain.era = this.memory.era;
    // Replies are written to the guest's memory at once, read or not.
    if (!session.takes(chain.readHead(), 0)) {
      this.#free(chain);
      return false;
    }
    chain.ring = ring;
    chain.index = index;
    chain.open();
    session.receive(chain);
    return true;
  }

  /** What breaks the rules of virtio breaks the device and nothing else; what is no memory now may be soon. */
  #guard(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof VirtioError)) throw error;
      if (error instanceof Unmapped && this.#gap.open) this.#gap.wait();
      else this.fail(error.message);
    }
  }

  reachable(chain: Chain): boolean {
    return chain.ring === this.#ring && !this.#gap.waited && this.#translate(chain);
  }

  /** Looks the buffers for the reply up anew when the memory has changed. False when some of them are no memory now. */
  #translate(chain: Chain): boolean {
    const { era } = this.memory;
    if (chain.era === era) return true;
    if (!chain.writable.translate(this.memory)) return false;
    chain.era = era;
    return true;
  }

  lent(): void {
    this.#lent++;
  }

  answered(chain: Chain, deliver: () => number): void {
    if (chain.lent) this.#returned(chain);
    const { ring } = chain;
    if (ring === undefined) return;
    if (ring !== this.#ring && ring !== this.#stopped) this.#free(chain);
    else if (ring === this.#stopped || this.#gap.waited) this.#hold(ring, chain, deliver);
    else this.#deliver(ring, chain, deliver);
  }

  #returned(chain: Chain): void {
    chain.lent = false;
    this.#lent--;
    if (this.#lent > 0) return;
    this.memory.release();
    this.#whenNothingLent?.();
  }

  #hold(ring: SplitRing, chain: Chain, deliver: () => number): void {
    this.#heldReplies.push(() => this.#deliver(ring, chain, deliver));
  }

  #deliver(ring: SplitRing, chain: Chain, deliver: () => number): void {
    const there = this.#translate(chain);
    if (!there && this.#gap.open) {
      this.#hold(ring, chain, deliver);
      this.#gap.wait();
      return;
    }
    if (!there)
      this.#log.warn(`${this.peer.label}: a reply is lost: the monitor took away the memory for it`);
    this.#guard(() => ring.pushUsed(chain.index, there ? deliver() : 0));
    this.#free(chain);
    if (!this.#serving) this.#tellSoon();
  }

  #free(chain: Chain): void {
    chain.recycle();
    this.#idle.push(chain);
  }

  /** Once for all that is answered in this turn. */
  #tellSoon(): void {
    if (this.#signalling) return;
    this.#signalling = true;
    process.nextTick(() => {
      this.#signalling = false;
      if (this.#ring) this.#tell(this.#ring);
    });
  }

  #tell(ring: SplitRing): void {
    if (ring.wantsSignal()) this.interrupt();
  }

  /** Tells the guest to look at what was given back. */
  interrupt(): void {
    if (this.callDescriptor !== undefined) signal(this.callDescriptor);
  }

  #checkFaults(): void {
    const faults = mappingFaults();
    if (faults === this.#faults) return;
    this.#faults = faults;
    if (this.memory.faulted()) this.fail('memory is lost');
  }

  /** The session ends, and what it still answers reaches nobody. */
  async #endSession(): Promise<void> {
    const session = this.#session;
    this.#stopped = undefined;
    this.#heldReplies = [];
    this.#session = undefined;
    await session?.close();
  }

  #nothingLent(): Promise<void> {
    if (this.#lent === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const late = () => reject(new VhostUserError('calls on the host take too long to stop the device'));
      const timer = setTimeout(late, stopMsMax);
      this.#whenNothingLent = () => {
        clearTimeout(timer);
        this.#whenNothingLent = undefined;
        resolve();
      };
    });
  }
}

function same(a: RingLayout, b: RingLayout): boolean {
  const keys = ['size', 'descriptors', 'available', 'used', 'indirect', 'eventIndex'] as const;
  return keys.every(key => a[key] === b[key]);
}
