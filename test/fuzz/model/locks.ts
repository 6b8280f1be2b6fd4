/** Byte-range locks of one object, as an array of cells: the owners and lock types of each. */

export interface Owner {
  /** The owning session. */
  readonly session: object;
  readonly clientId: string;
  readonly procId: number;
  /** The export through which it was taken, of two independent ones. */
  readonly exported: boolean;
}

interface Held {
  readonly owner: Owner;
  readonly type: number;
  /** The open fid through which it was taken. */
  readonly through: object;
  /** Adjacent cells with equal numbers are one lock. */
  region: number;
  doubtful: boolean;
}

/** A lock in a reply. */
export interface Told {
  readonly type: number;
  readonly clientId: string;
  readonly procId: number;
  /** A held lock. */
  readonly cell: number;
}

/** Each cell is a byte, the last one the rest of the file. */
export const lockCells = 24;

const sameClient = (a: Owner, b: Owner) =>
  a.session === b.session && a.clientId === b.clientId && a.exported === b.exported;
const same = (a: Owner, b: Owner) => sameClient(a, b) && a.procId === b.procId;

export class Row {
  readonly cells: Held[][] = Array.from({ length: lockCells }, () => []);
  #regions = 0;

  #range(start: number, length: number): number[] {
    const end = length === 0 ? lockCells : start + length;
    return Array.from({ length: end - start }, (_, i) => start + i);
  }

  /** The conflicting locks of other owners. */
  conflicts(owner: Owner, type: number, start: number, length: number): { cell: number; held: Held }[] {
    return this.#range(start, length).flatMap(cell =>
      this.cells[cell]!.filter(held => !same(held.owner, owner) && (held.type === 1 || type === 1)).map(
        held => ({
          cell,
          held,
        }),
      ),
    );
  }

  yields(held: Held, owner: Owner): boolean {
    return held.doubtful && sameClient(held.owner, owner);
  }

  /** Whether the lock is granted. */
  lock(owner: Owner, through: object, type: number, start: number, length: number): boolean {
    const conflicts = this.conflicts(owner, type, start, length);
    if (conflicts.some(({ held }) => !this.yields(held, owner))) return false;
    for (const { cell, held } of conflicts) this.#giveUpRegion(cell, held);
    this.#remove(owner, this.#range(start, length));
    const region = ++this.#regions;
    const cells = this.#range(start, length);
    for (const cell of cells) this.cells[cell]!.push({ owner, type, through, region, doubtful: false });
    this.#join(cells[0]! - 1, -1, owner, through, type, region);
    this.#join(cells.at(-1)! + 1, 1, owner, through, type, region);
    return true;
  }

  /** Merges adjacent cells of one type. */
  #join(from: number, step: number, owner: Owner, through: object, type: number, region: number): void {
    const at = (cell: number) => this.cells[cell]?.find(held => same(held.owner, owner));
    const first = at(from);
    if (!first || first.type !== type || first.through !== through || first.doubtful) return;
    const joined = first.region;
    for (let cell = from; at(cell)?.region === joined; cell += step) at(cell)!.region = region;
  }

  #giveUpRegion(from: number, { owner, region }: Held): void {
    const isOf = (cell: number) =>
      this.cells[cell]?.some(held => same(held.owner, owner) && held.region === region) ?? false;
    const cells: number[] = [];
    for (let cell = from; isOf(cell); cell--) cells.push(cell);
    for (let cell = from + 1; isOf(cell); cell++) cells.push(cell);
    this.#remove(owner, cells);
  }

  #remove(owner: Owner, cells: readonly number[]): void {
    for (const cell of cells) this.cells[cell] = this.cells[cell]!.filter(held => !same(held.owner, owner));
  }

  unlock(owner: Owner, through: object, start: number, length: number): void {
    if (start === 0 && length === 0) {
      for (const held of this.cells.flat())
        if (held.through === through && !same(held.owner, owner) && sameClient(held.owner, owner))
          held.doubtful = true;
    }
    this.#remove(owner, this.#range(start, length));
  }

  drop(gone: (held: Held) => boolean): void {
    for (const [cell, held] of this.cells.entries()) this.cells[cell] = held.filter(one => !gone(one));
  }

  /** Whether Rgetlock names a conflicting lock. */
  tells(owner: Owner, type: number, start: number, length: number, told: Told, known: boolean): boolean {
    const conflicts = this.conflicts(owner, type, start, length).filter(
      ({ held }) => !this.yields(held, owner),
    );
    const isOwnersCell = (held: Held) =>
      this.cells[told.cell]?.some(one => same(one.owner, held.owner)) ?? false;
    // The kernel merges adjacent locks of one owner.
    if (told.clientId === '') {
      const unknown = conflicts.filter(({ held }) => !known || held.owner.exported !== owner.exported);
      if (unknown.some(({ held }) => held.type === told.type && isOwnersCell(held))) return true;
    }
    return conflicts.some(
      ({ held }) =>
        held.type === told.type &&
        held.owner.clientId === told.clientId &&
        held.owner.procId === told.procId &&
        this.cells[told.cell]?.some(one => same(one.owner, held.owner) && one.region === held.region),
    );
  }
}
