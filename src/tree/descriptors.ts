/**
 * The budget of descriptors. A guest may hold a million objects on a machine that allows 20,000 descriptors, so whoever
 * holds a descriptor that can be had again is told to give it up when the budget is spent, least recently used first (by
 * second chance: a holder that was used since it was last looked at is passed over once). Nodes go first, since a node is
 * had again at no risk; open files and directories follow when nodes do not suffice.
 */
export interface Holder {
  /** Set by the holder on every use. */
  touched: boolean;
  /** Closes the descriptor if it can be opened again later; false keeps it. */
  giveUp(): boolean;
}

export type HolderKind = 'node' | 'open';

export class Descriptors {
  readonly #max: number;
  readonly #held: Readonly<Record<HolderKind, Set<Holder>>> = { node: new Set(), open: new Set() };

  /** `max` is how many descriptors nodes, files and directories may hold together. */
  constructor(max: number) {
    this.#max = max;
  }

  get count(): number {
    return this.#held.node.size + this.#held.open.size;
  }

  /** Counts a new descriptor, after making room for it. */
  admit(holder: Holder, kind: HolderKind): void {
    if (this.count >= this.#max) this.reclaim(this.count - this.#max + 1);
    this.#held[kind].add(holder);
  }

  /** The holder closed its descriptor itself. */
  leave(holder: Holder, kind: HolderKind): void {
    this.#held[kind].delete(holder);
  }

  /** Gets up to `count` descriptors back; returns how many. */
  reclaim(count: number): number {
    const freed = this.#reclaimFrom(this.#held.node, count);
    return freed < count ? freed + this.#reclaimFrom(this.#held.open, count - freed) : freed;
  }

  #reclaimFrom(held: Set<Holder>, count: number): number {
    // Bounded, so that a crowd of holders that cannot give up makes no admission slow.
    let looks = Math.max(64, count * 4);
    let freed = 0;
    for (const holder of held) {
      if (freed >= count || looks-- <= 0) break;
      held.delete(holder);
      const spared = holder.touched;
      holder.touched = false;
      if (!spared && holder.giveUp()) freed++;
      else held.add(holder);
    }
    return freed;
  }
}
