import { EFBIG, ENOSPC } from '#base/errno.ts';
import type { Segments } from '#base/owned.ts';
import type { MemoryQuota } from './memory-quota.ts';

export const pageBytes = 4096;

/** Largest file: the largest integer that a number holds exactly. */
const fileBytesMax = Number.MAX_SAFE_INTEGER;

/** The content of a file. Only written pages exist; holes read as zeros. */
export class Pages {
  size = 0;
  readonly #pages = new Map<number, Uint8Array>();
  readonly #quota: MemoryQuota;

  constructor(quota: MemoryQuota) {
    this.#quota = quota;
  }

  /** Bytes of the pages that exist. */
  get allocated(): number {
    return this.#pages.size * pageBytes;
  }

  read(into: Segments, offset: number): number {
    let at = offset;
    for (const segment of into) {
      const wanted = Math.min(segment.length, this.size - at);
      if (wanted <= 0) break;
      this.#readOne(segment.subarray(0, wanted), at);
      at += wanted;
    }
    return at - offset;
  }

  #readOne(into: Uint8Array, offset: number): void {
    for (let done = 0; done < into.length; ) {
      const within = (offset + done) % pageBytes;
      const part = into.subarray(done, done + pageBytes - within);
      const page = this.#pages.get(Math.floor((offset + done) / pageBytes));
      if (page) part.set(page.subarray(within, within + part.length));
      else part.fill(0);
      done += part.length;
    }
  }

  /** Writes what the quota allows. ENOSPC if that is nothing, EFBIG beyond the largest file. */
  write(from: Segments, offset: number): number {
    let at = offset;
    for (const segment of from) {
      const wanted = segment.subarray(0, Math.min(segment.length, fileBytesMax - at));
      if (segment.length > 0 && wanted.length === 0 && at === offset) throw EFBIG;
      const written = this.#writeOne(wanted, at);
      at += written;
      if (written < segment.length) break;
    }
    if (at === offset && from.some(segment => segment.length > 0)) throw ENOSPC;
    this.size = Math.max(this.size, at);
    return at - offset;
  }

  #writeOne(from: Uint8Array, offset: number): number {
    let done = 0;
    while (done < from.length) {
      const within = (offset + done) % pageBytes;
      const page = this.#pageToWrite(Math.floor((offset + done) / pageBytes));
      if (!page) break;
      const part = from.subarray(done, done + pageBytes - within);
      page.set(part, within);
      done += part.length;
    }
    return done;
  }

  #pageToWrite(index: number): Uint8Array | undefined {
    const known = this.#pages.get(index);
    if (known) return known;
    if (!this.#quota.tryTake(pageBytes)) return undefined;
    const page = new Uint8Array(pageBytes);
    this.#pages.set(index, page);
    return page;
  }

  /** Shrinks, or grows with a hole. */
  resize(size: number): void {
    if (size > fileBytesMax) throw EFBIG;
    if (size < this.size) {
      const keep = Math.ceil(size / pageBytes);
      for (const index of this.#pages.keys()) if (index >= keep) this.#drop(index);
      // Zeros beyond the new end, in case the file grows again.
      this.#pages.get(keep - 1)?.fill(0, size - (keep - 1) * pageBytes);
    }
    this.size = size;
  }

  #drop(index: number): void {
    this.#pages.delete(index);
    this.#quota.give(pageBytes);
  }

  free(): void {
    this.#quota.give(this.allocated);
    this.#pages.clear();
  }
}
