import { ENOSPC } from '#base/errno.ts';

/** Bytes that a tree in memory may use: whole pages of content, objects, names and xattrs. */
export class MemoryQuota {
  readonly bytesMax: number;
  #used = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  get free(): number {
    return this.bytesMax - this.#used;
  }

  /** Takes `bytes`; false if they are not free. */
  tryTake(bytes: number): boolean {
    if (bytes > this.free) return false;
    this.#used += bytes;
    return true;
  }

  /** Takes `bytes`; ENOSPC if they are not free. */
  take(bytes: number): void {
    if (!this.tryTake(bytes)) throw ENOSPC;
  }

  give(bytes: number): void {
    this.#used -= bytes;
  }
}
