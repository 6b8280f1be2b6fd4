import type { Logger } from '#base/log.ts';
import type { Peer } from '#base/peer.ts';
import { signal } from '#host/eventfd.ts';
import { mappingFaults } from '#host/mapping.ts';
import type { SessionPort, TransportPort } from '#session/exchange.ts';
import { Chain, type ChainOwner } from './chain.ts';
import { Gap } from './gap.ts';
import { GuestMemory } from './memory.ts';
import { VhostUserError } from './messages.ts';
import { type RingLayout, SplitRing } from './ring.ts';
import { Unmapped, VirtioError } from './virtio-error.ts';
import type { Windows } from './windows.ts';

export type OpenSession = (port: TransportPort) => SessionPort;

interface DeviceOptions {
  readonly open: OpenSession;
  /**
   * Microseconds after a request during which the queue is polled in every event-loop iteration. The guest need not kick
   * meanwhile, and the process does not sleep: a kick and a wake-up each cost more than most requests.
   */
  readonly busyPoll: number;
  /** Of the listener's device, whichever monitor it has. */
  readonly windows: Windows;
  readonly log: Logger;
}

/** Requests taken in one event-loop callback, before other guests and connections run. */
const requestsPerCallbackMax = 64;
/** How long a monitor that stops the device waits for calls that use the guest's memory. */
const stopMsMax = 10_000;

/**
 * A virtio-9p device: one virtqueue and a session. A stopped queue that is started again with the same layout and indices
 * continues with its session (the guest was paused). Otherwise the guest has restarted, and a new session is opened.
 */
export class Device implements ChainOwner, TransportPort {
  readonly peer: Peer;
  readonly memory: GuestMemory;
  /** Eventfds of the monitor: signalled for used buffers and for a broken device. */
  callDescriptor: number | undefined;
  errorDescriptor: number | undefined;

  readonly #open: OpenSession;
  readonly #log: Logger;
  readonly #idle: Chain[] = [];
  #session: SessionPort | undefined;
  #ring: SplitRing | undefined;
  #stopped: SplitRing | undefined;
  /** Replies for a queue that is stopped or waits for memory. */
  #heldReplies: (() => void)[] = [];
  #pinnedCount = 0;
  #onUnpinned: (() => void) | undefined;
  #broken = false;
  #enabled = false;
  #serving = false;
  #signalling = false;
  /** While `waiting`, no request is taken and replies are held. */
  readonly #gap = new Gap(() => this.#relocate());
  #next = 0;
  #faults = mappingFaults();
  readonly #pollMs: number;
  /** When polling ends, by performance.now(). */
  #pollEnd = 0;
  #polling = false;

  constructor(peer: Peer, { open, busyPoll, windows, log }: DeviceOptions) {
    this.memory = new GuestMemory(windows);
    this.peer = peer;
    this.#open = open;
    this.#pollMs = busyPoll / 1000;
    this.#log = log;
  }

  get running(): boolean {
    return this.#ring !== undefined;
  }

  /** Whether the device is unusable until it is reset (DEVICE_NEEDS_RESET). */
  get broken(): boolean {
    return this.#broken;
  }

  /** Starts the queue. Throws VirtioError if it lies outside of the guest's memory. */
  start(layout: RingLayout, next: number): void {
    const stopped = this.#stopped;
    if (stopped && stopped.next === next && same(stopped.layout, layout)) {
      stopped.locate();
      if (stopped.unchanged) {
        this.#continue(stopped);
        return;
      }
    }
    const ring = new SplitRing(this.memory, layout, next);
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

  /** A disabled queue takes no requests, and keeps its indices. */
  enable(enabled: boolean): void {
    this.#enabled = enabled;
    this.serve();
  }

  /**
   * Stops the queue. Resolves to its next index when no call uses the guest's memory any more. Requests that still wait,
   * such as for a lock, are answered when the queue continues.
   */
  async stop(): Promise<number> {
    const ring = this.#ring;
    if (ring) {
      this.#signalGuest(ring);
      this.#stopped = ring;
      this.#next = ring.next;
      this.#ring = undefined;
      this.#gap.cancel();
    }
    this.#broken = false;
    await this.#memoryUnpinned();
    return this.#next;
  }

  /** Stops the queue and closes the session. */
  async reset(): Promise<void> {
    await this.stop();
    void this.#endSession();
    this.#next = 0;
  }

  /** Closes the device without notifying the guest. Resolves when the session is closed; then unmaps the guest's memory. */
  async close(): Promise<void> {
    this.#ring = undefined;
    this.#gap.cancel();
    await this.#endSession();
    this.memory.clear();
    if (this.#pinnedCount === 0) this.memory.release();
  }

  /** Stops taking requests. Resolves when the running ones are answered. */
  async finish(): Promise<void> {
    this.#enabled = false;
    await this.#session?.finish();
  }

  /** Regions were added or removed. `mayReturn`: removed ones may be added again as parts of others. */
  memoryChanged(mayReturn: boolean): void {
    if (mayReturn) this.#gap.begin();
    if (this.#pinnedCount === 0) this.memory.release();
    this.#relocate();
  }

  /** Locates the ring in the changed memory, and continues a queue that waited for it. */
  #relocate(): void {
    const ring = this.#ring;
    const { waiting } = this.#gap;
    this.#gap.cancel();
    if (!ring) return;
    this.#guard(() => ring.locate());
    if (!waiting || this.#gap.waiting || this.#ring !== ring) return;
    this.#deliverHeld();
    this.serve();
  }

  hangUp(reason: string): void {
    this.fail(reason);
  }

  resume(): void {
    setImmediate(() => this.serve());
  }

  /** Marks the device as broken until it is reset. */
  fail(reason: string): void {
    if (this.#broken) return;
    // An error found in memory that has lost its file is a consequence of that loss.
    const why = this.memory.faulted()
      ? "the file of the guest's memory was cut short by its monitor"
      : reason;
    this.#log.warn(`${this.peer.label}: the device is broken until the guest resets it: ${why}`);
    this.#broken = true;
    if (this.#ring) this.#next = this.#ring.next;
    this.#ring = undefined;
    this.#gap.cancel();
    void this.#endSession();
    if (this.errorDescriptor !== undefined) signal(this.errorDescriptor);
  }

  /** Takes the requests from the queue. */
  serve(): void {
    const ring = this.#ring;
    if (!ring || !this.#enabled || this.#serving || this.#gap.waiting) return;
    this.#serving = true;
    try {
      this.#guard(() => this.#takeAll(ring));
    } finally {
      this.#serving = false;
    }
    if (this.#ring === ring && !this.#gap.waiting) this.#signalGuest(ring);
    this.#checkFaults();
  }

  #takeAll(ring: SplitRing): void {
    ring.disableKicks();
    for (let taken = 0; this.#ring === ring && this.#enabled; ) {
      if (taken === requestsPerCallbackMax) {
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
        if (this.#pollMs > 0 && this.#keepsPolling(taken)) return;
        if (!ring.enableKicks()) return;
        ring.disableKicks();
      }
    }
  }

  /** Whether polling goes on, so that the guest need not kick for its next request. */
  #keepsPolling(taken: number): boolean {
    const now = performance.now();
    if (taken > 0) this.#pollEnd = now + this.#pollMs;
    if (now >= this.#pollEnd) return false;
    if (!this.#polling) {
      this.#polling = true;
      setImmediate(this.#poll);
    }
    return true;
  }

  readonly #poll = (): void => {
    const ring = this.#ring;
    if (ring && performance.now() < this.#pollEnd) {
      setImmediate(this.#poll);
      if (ring.hasAvail) this.serve();
    } else {
      this.#polling = false;
      // Enables kicks again, and takes requests that were added meanwhile.
      this.serve();
    }
  };

  /** Passes a request to the session. False if it has to wait until the session calls `resume`. */
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
    chain.generation = this.memory.generation;
    // No reply is ever unread: they are written to the guest's memory at once.
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

  /** A VirtioError breaks only this device. An unmapped address is waited for if its region may be added again. */
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
    return chain.ring === this.#ring && !this.#gap.waiting && this.#translate(chain);
  }

  /** Translates the reply's buffers again if the memory has changed. False if some are not mapped now. */
  #translate(chain: Chain): boolean {
    const { generation } = this.memory;
    if (chain.generation === generation) return true;
    if (!chain.writable.translate(this.memory)) return false;
    chain.generation = generation;
    return true;
  }

  memoryPinned(): void {
    this.#pinnedCount++;
  }

  completed(chain: Chain, deliver: () => number): void {
    if (chain.pinsMemory) this.#unpin(chain);
    const { ring } = chain;
    if (ring === undefined) return;
    if (ring !== this.#ring && ring !== this.#stopped) this.#free(chain);
    else if (ring === this.#stopped || this.#gap.waiting) this.#hold(ring, chain, deliver);
    else this.#deliver(ring, chain, deliver);
  }

  #unpin(chain: Chain): void {
    chain.pinsMemory = false;
    this.#pinnedCount--;
    if (this.#pinnedCount > 0) return;
    this.memory.release();
    this.#onUnpinned?.();
  }

  #hold(ring: SplitRing, chain: Chain, deliver: () => number): void {
    this.#heldReplies.push(() => this.#deliver(ring, chain, deliver));
  }

  #deliver(ring: SplitRing, chain: Chain, deliver: () => number): void {
    const reachable = this.#translate(chain);
    if (!reachable && this.#gap.open) {
      this.#hold(ring, chain, deliver);
      this.#gap.wait();
      return;
    }
    if (!reachable)
      this.#log.warn(`${this.peer.label}: a reply is lost: the monitor took away the memory for it`);
    this.#guard(() => ring.pushUsed(chain.index, reachable ? deliver() : 0));
    this.#free(chain);
    if (!this.#serving) this.#signalSoon();
  }

  #free(chain: Chain): void {
    chain.recycle();
    this.#idle.push(chain);
  }

  /** Signals once for all replies of this event-loop callback. */
  #signalSoon(): void {
    if (this.#signalling) return;
    this.#signalling = true;
    process.nextTick(() => {
      this.#signalling = false;
      if (this.#ring) this.#signalGuest(this.#ring);
    });
  }

  #signalGuest(ring: SplitRing): void {
    if (ring.wantsSignal()) this.interrupt();
  }

  /** Interrupts the guest for used buffers. */
  interrupt(): void {
    if (this.callDescriptor !== undefined) signal(this.callDescriptor);
  }

  #checkFaults(): void {
    const faults = mappingFaults();
    if (faults === this.#faults) return;
    this.#faults = faults;
    if (this.memory.faulted()) this.fail('memory is lost');
  }

  /** Closes the session. Its later replies are dropped. */
  async #endSession(): Promise<void> {
    const session = this.#session;
    this.#stopped = undefined;
    this.#heldReplies = [];
    this.#session = undefined;
    await session?.close();
  }

  #memoryUnpinned(): Promise<void> {
    if (this.#pinnedCount === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timedOut = () => reject(new VhostUserError('calls on the host take too long to stop the device'));
      const timer = setTimeout(timedOut, stopMsMax);
      this.#onUnpinned = () => {
        clearTimeout(timer);
        this.#onUnpinned = undefined;
        resolve();
      };
    });
  }
}

function same(a: RingLayout, b: RingLayout): boolean {
  const keys = ['size', 'descriptors', 'available', 'used', 'indirect', 'eventIndex'] as const;
  return keys.every(key => a[key] === b[key]);
}
