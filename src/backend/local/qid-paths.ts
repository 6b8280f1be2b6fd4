/** Inode numbers below 2^48 fit beside a 16-bit device index in qid.path. */
const plainInoHighMax = 0x1_0000;
const hashedIndex = 0xffff;
const indexesMax = 0x1_0000;

/**
 * The qid.paths of an export: a 16-bit index of the device above a 48-bit inode number.
 *
 * The export's own device has index 0, so its paths are inode numbers. The index of another device is a hash of its file system
 * id (f_fsid of statfs(2)), hence the same after a restart; on a collision the device seen later takes the next free index.
 * Inode numbers of 2^48 and more (overlayfs keeps the layer in the upper bits) have an index for each value of their upper 16
 * bits. At most 2^16 indexes are kept; when all are taken, further paths are hashes, with an index of their own.
 */
export class QidPaths {
  readonly #indexOf = new Map<number, number>();
  readonly #taken = new Set<number>([0, hashedIndex]);
  /** By the device's index and the upper 16 bits of the inode number. */
  readonly #wide = new Map<number, number>();

  /** The index of a device, for the life of the export. `fsid` is 8 bytes. */
  deviceIndex(dev: number, fsid: Buffer): number {
    const known = this.#indexOf.get(dev);
    if (known !== undefined) return known;
    const isFirst = this.#indexOf.size === 0;
    const index = isFirst ? 0 : this.#take(hash(fsid.readUInt32LE(0) || dev, fsid.readUInt32LE(4)));
    this.#indexOf.set(dev, index);
    return index;
  }

  /** The first free index from `wanted` on. */
  #take(wanted: number): number {
    if (this.#taken.size === indexesMax) return hashedIndex;
    let index = wanted & 0xffff;
    while (this.#taken.has(index)) index = (index + 1) & 0xffff;
    this.#taken.add(index);
    return index;
  }

  /** qid.path of an inode as [low, high]. */
  of(device: number, inoLow: number, inoHigh: number): readonly [number, number] {
    const upper = inoHigh >>> 16;
    const index = upper === 0 ? device : this.#wideIndex(device, upper);
    if (index !== hashedIndex) return [inoLow, (index * 0x1_0000 + (inoHigh & 0xffff)) >>> 0];
    const high = hash(inoHigh, inoLow + device) & 0xffff;
    return [hash(inoLow ^ device, inoHigh), (hashedIndex * 0x1_0000 + high) >>> 0];
  }

  /** Whether `of` returns the inode number unchanged. */
  static isPlain(index: number, inoHigh: number): boolean {
    return index === 0 && inoHigh < plainInoHighMax;
  }

  #wideIndex(device: number, upper: number): number {
    const key = device * 0x1_0000 + upper;
    const known = this.#wide.get(key);
    if (known !== undefined) return known;
    const index = this.#take(hash(upper, device));
    if (index !== hashedIndex) this.#wide.set(key, index);
    return index;
  }
}

function hash(a: number, b: number): number {
  let h = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b);
  h = Math.imul((h ^ (h >>> 13)) + b, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16), 0x27d4eb2f);
  return (h ^ (h >>> 15)) >>> 0;
}
