import { ENOSPC } from '#base/errno.ts';

/** The bytes that a tree in memory may take: content in whole pages, and what objects, names and xattrs cost. */
export class MemoryQuota {
  readonly bytesMax: number;
  #used = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  get free(): number {
    return this.bytesMax - this.#used;
  }

  /** Whether `bytes` were to be had. */
  tryTake(bytes: number): boolean {
    if (bytes > this.free) return false;
    this.#used += bytes;
    return true;
  }

  /** Throws ENOSPC when there is not that much. */
  take(bytes: number): void {
    if (!this.tryTake(bytes)) throw ENOSPC;
  }

  give(bytes: number): void {
    this.#used -= bytes;
  }
}
