import { PinBudget } from './pins.ts';

/**
 * The budget of descriptors. A guest may hold a million objects on a machine that allows 20,000 descriptors, so whoever
 * holds a descriptor that can be had again is told to give it up when the budget is spent, least recently used first (by
 * second chance: a holder that was used since it was last looked at is passed over once). Nodes go first, since a node is
 * had again at no risk; open files and directories follow when nodes do not suffice. What cannot be had again is shared out
 * (`PinBudget`), and what is nobody's share goes for good when all else is gone.
 */
export interface Holder {
  /** Set by the holder on every use. */
  touched: boolean;
  /** Closes the descriptor if it can be opened again later; false keeps it. */
  giveUp(): boolean;
  /**
   * For when nothing else is left: closes the descriptor although that is the end of an object, as long as nobody has a right to
   * it. Left out, there is none like that.
   */
  giveUpForGood?(): boolean;
}

export type HolderKind = 'node' | 'open';

const again = (holder: Holder): boolean => holder.giveUp();
const forGood = (holder: Holder): boolean => holder.giveUpForGood?.() ?? false;

export class Descriptors {
  readonly pinned: PinBudget;
  readonly #max: number;
  readonly #held: Readonly<Record<HolderKind, Set<Holder>>> = { node: new Set(), open: new Set() };

  /** `max` is how many descriptors nodes, files and directories may hold together. */
  constructor(max: number) {
    this.#max = max;
    this.pinned = new PinBudget(max);
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
    let freed = 0;
    for (const giveUp of [again, forGood]) {
      for (const held of [this.#held.node, this.#held.open]) {
        if (freed < count) freed += this.#reclaimFrom(held, count - freed, giveUp);
      }
    }
    return freed;
  }

  #reclaimFrom(held: Set<Holder>, count: number, giveUp: (holder: Holder) => boolean): number {
    // Bounded, so that a crowd of holders that cannot give up makes no admission slow.
    let looks = Math.max(64, count * 4);
    let freed = 0;
    for (const holder of held) {
      if (freed >= count || looks-- <= 0) break;
      held.delete(holder);
      const spared = holder.touched;
      holder.touched = false;
      if (!spared && giveUp(holder)) freed++;
      else held.add(holder);
    }
    return freed;
  }
}
