import { Attr, S_IFDIR, S_IFREG } from '#base/attr.ts';
import { EACCES, EDQUOT, ENOSPC, EOPNOTSUPP, Errno, EXDEV } from '#base/errno.ts';
import { STATFS_BYTES, STATFS_FSID, STATFS_TYPE } from '#base/layout.ts';
import { andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import type { Name } from '#base/name.ts';
import { allocOwned, type OwnedSegments, type Segments } from '#base/owned.ts';
import { EXT4_SUPER_MAGIC, O_RDONLY } from '#host/constants.ts';
import { handOffBytesMax, threadsFor } from '#host/control-block.ts';
import { diskCalls, inMemory, isLight, pooledOn, statInMemory, unknownFs } from '#host/local.ts';
import {
  type Credentials,
  type InlineSyscalls,
  noSession,
  type Submitter,
  type Syscalls,
  serverCreds,
} from '#host/syscalls.ts';
import { Contention } from './contention.ts';
import { type CtimeTells, ctimeTells, hasHoles, isKernelState, keepsHandles, waitsFor } from './fs-types.ts';
import type { LocalNode } from './node.ts';
import { withFd } from './with-fd.ts';

/** Inode numbers below this fit beside a 16-bit device index in qid.path. */
const plainInoHighMax = 0x1_0000;
const hashedIndex = 0xffff;
const indexesMax = 0x1_0000;

/**
 * Gives every device of an export its index, the upper 16 bits of qid.path, and every inode its qid.path.
 *
 * The export's own device has index 0: paths are the inode numbers. Another device's index is a hash of its file system
 * id (statfs f_fsid), so it is the same after a restart; in the rare case that two hash alike, the one seen later takes
 * the next free index. Inode numbers of 2^48 and more have an index for each value of their upper 16 bits (overlayfs keeps the
 * layer there). So there are never more than 2^16 to remember; should they all be taken, what is left of the paths is a hash,
 * under an index of its own.
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

  /** The first free index from the wanted one on. */
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

  /** Whether `of` changes anything but plain inode numbers of this device: if not, a listing can be sent as it is. */
  static isPlain(index: number, inoHigh: number): boolean {
    return index === 0 && inoHigh < plainInoHighMax;
  }

  #wideIndex(device: number, upper: number): number {
    const key = device * 0x1_0000 + upper;
    const known = this.#wide.get(key);
    if (known !== undefined) return known;
    const index = this.#take(hash(upper, device));
    // What is hashed needs no place.
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

/**
 * How long after a change that has gone through the next one is taken to go through as well: a file system that somebody freezes is
 * then noticed unless it has more changes than one in this time.
 */
const trustUs = 100;

/** What `statNow` returns, until it is called again. */
const attrNow = new Attr();

/** One mount of one device below an export, and the nodes known on it. */
export class Volume {
  readonly index: number;
  /** The calls on pool threads. */
  readonly pool: (submitter: Submitter) => Syscalls;
  /** Whether it is a file system of this machine. Attributes are then there at once, whatever `sys` is. */
  readonly local: boolean;
  /** The calls of `sys` when those that read are made on this thread, else undefined. Changes with the state of the disk. */
  inline: InlineSyscalls | undefined;
  /** `inline`, for an object that has no name yet. */
  #inlineForNew: Syscalls | undefined;
  readonly #background: Syscalls;
  /** Bytes that a write of `inline` may have. */
  readonly inlineBytesMax: number;
  readonly nodes = new Map<number | bigint, LocalNode>();
  /** Whether O_TMPFILE works here: true until it was seen to fail. */
  unnamedFiles = true;
  /** A descriptor on this mount for open_by_handle_at, or −1 where handles cannot be used. */
  mountFd = -1;
  /** Objects that were found here and are not nodes yet. */
  arriving = 0;
  readonly mountId: number;
  readonly dev: number;
  readonly keepsHandles: boolean;
  readonly ctimeTells: CtimeTells;
  /** Whether inode numbers have 32 bits here. */
  readonly smallInos: boolean;
  readonly #contention: Contention | undefined;
  /** Whether RWF_NOWAIT works here, or is asked for nothing. */
  #tellsWhatIsCached: boolean;
  /** What is being closed and may free blocks. */
  readonly #freeing = new Set<Promise<unknown>>();

  /** `type` is statfs(2)'s f_type; `freezable`: no change is ever made on the event loop's thread. */
  constructor({ mountId, dev }: Attr, index: number, type: number, freezable: boolean) {
    const waits = waitsFor(type);
    const place = threadsFor(dev, waits === 'others');
    this.mountId = mountId;
    this.dev = dev;
    this.index = index;
    this.local = waits !== 'others';
    this.#tellsWhatIsCached = waits === 'disk';
    this.inlineBytesMax = waits === 'disk' ? handOffBytesMax : Number.POSITIVE_INFINITY;
    const onFreeing = (closed: Promise<unknown>) => this.#closing(closed);
    if (waits === 'disk') {
      const contention = new Contention(strained => {
        this.inline = strained ? undefined : inlineCalls;
        this.#inlineForNew = strained ? undefined : inlineCallsForNew;
      });
      const { blocked: onBlocked, during: onLate } = contention;
      const trusted = freezable || !hasHoles(type) ? 0 : trustUs;
      const { inlineCalls, inlineCallsForNew, pooledCalls } = diskCalls(place, trusted, {
        onBlocked,
        onLate,
        onFreeing,
      });
      this.#contention = contention;
      this.pool = pooledCalls;
      this.inline = inlineCalls;
      this.#inlineForNew = inlineCallsForNew;
    } else {
      const ignore = () => undefined;
      this.pool = submitter => pooledOn(place, submitter);
      this.inline = this.local
        ? inMemory(place, { onBlocked: ignore, onLate: ignore, onFreeing })
        : undefined;
      this.#inlineForNew = this.inline;
    }
    this.#background = this.pool(noSession);
    this.keepsHandles = keepsHandles(type);
    this.ctimeTells = ctimeTells(type);
    this.smallInos = type === EXT4_SUPER_MAGIC;
  }

  /** The calls for metadata and data. They change with the state of the disk: take them once for each request. */
  sys(submitter: Submitter): Syscalls {
    return this.inline ?? this.pool(submitter);
  }

  /** The same for an object that has no name yet. */
  sysForNew(submitter: Submitter): Syscalls {
    return this.#inlineForNew ?? this.pool(submitter);
  }

  /** Looks up an entry of a directory, which may be the root of another file system. An O_PATH descriptor, or −errno. */
  lookup(submitter: Submitter, creds: Credentials, dirfd: number, name: Name): MaybePromise<number> {
    const found = this.sys(submitter).lookup(creds, dirfd, name);
    if (found instanceof Promise) {
      return found.then(fd => (fd === -EXDEV.code ? unknownFs(submitter).lookup(creds, dirfd, name) : fd));
    }
    return found === -EXDEV.code ? unknownFs(submitter).lookup(creds, dirfd, name) : found;
  }

  /** Never fails. Not counted to any session: what is to be closed does not wait behind calls that hang. */
  close(fd: number): MaybePromise<void> {
    return (this.inline ?? this.#background).close(fd);
  }

  /**
   * The attributes of what is open at `fd`, on a local file system: they are in the kernel's memory, whatever state its disk
   * is in. The record is overwritten by the next call.
   */
  statNow(fd: number): Attr {
    statInMemory(serverCreds, fd, attrNow);
    return attrNow;
  }

  /** Bytes read, or undefined when part of them is not in memory, or the calls of this file system wait at present. */
  readNow(fd: number, into: Segments, offset: number): number | undefined {
    const sys = this.inline;
    if (!sys) return undefined;
    if (!this.#tellsWhatIsCached) return sys.read(serverCreds, fd, into, offset);
    const read = sys.readCached(serverCreds, fd, into, offset);
    if (read >= 0) return read;
    // Any error but this one comes again from the call that may wait.
    if (read !== -EOPNOTSUPP.code) return undefined;
    this.#tellsWhatIsCached = false;
    return sys.read(serverCreds, fd, into, offset);
  }

  /** Always on the pool. */
  read(submitter: Submitter, fd: number, into: OwnedSegments, offset: number): MaybePromise<number> {
    return this.pool(submitter).read(serverCreds, fd, into, offset);
  }

  /** Always on the pool. */
  sync(submitter: Submitter, fd: number, dataOnly: boolean): MaybePromise<void> {
    const synced = this.pool(submitter).fsync(serverCreds, fd, dataOnly) as Promise<void>;
    this.#contention?.during(synced);
    return synced;
  }

  /** The calls to truncate what is open at `fd`, which may free many blocks. */
  sysToTruncate(submitter: Submitter, fd: number): Syscalls {
    const large = this.local && !isLight(this.statNow(fd));
    return large ? this.pool(submitter) : this.sys(submitter);
  }

  #closing(closed: Promise<unknown>): void {
    this.#freeing.add(closed);
    const over = () => void this.#freeing.delete(closed);
    closed.then(over, over);
  }

  /** Whether blocks are being freed of what was removed before. */
  get isFreeing(): boolean {
    return this.#freeing.size > 0;
  }

  /** Runs a change that needs room; what it does not find room for is done again when blocks were freed that were being freed. */
  withRoom<T>(act: () => MaybePromise<T>): MaybePromise<T> {
    return recover<T>(act, error => {
      if ((error !== ENOSPC && error !== EDQUOT) || !this.isFreeing) throw error;
      return Promise.allSettled(this.#freeing).then(act);
    });
  }
}

/** The inode number as a key: a number where it is exact. */
export function inoKey(attr: Attr): number | bigint {
  const high = attr.inoHigh;
  return high < 0x20_0000 ? high * 0x1_0000_0000 + attr.inoLow : (BigInt(high) << 32n) | BigInt(attr.inoLow);
}

/** Finds the volume of an object, making it when its mount is seen for the first time. */
export class Volumes {
  readonly paths = new QidPaths();
  readonly #byMount = new Map<number, Map<number, Volume>>();
  readonly #freezable: boolean;
  readonly #oneMount: boolean;
  /** The mount of the export itself. */
  #root: Pick<Attr, 'mountId' | 'dev'> | undefined;

  /** `freezable` as of `Volume`. `oneMount`: nothing that is mounted below the export can be reached (multidevs=forbid). */
  constructor(freezable: boolean, oneMount = false) {
    this.#freezable = freezable;
    this.#oneMount = oneMount;
  }

  find(attr: Attr): Volume | undefined {
    return this.#byMount.get(attr.mountId)?.get(attr.dev);
  }

  /**
   * Whether what is mounted below the export is refused. The export's own directory may be on any file system. Before Linux 5.8
   * statx(2) tells no mount, and all have number 0.
   */
  #isRefused({ mountId, dev }: Attr, type: number): boolean {
    this.#root ??= { mountId, dev };
    const isRoot = mountId === this.#root.mountId && (mountId !== 0 || dev === this.#root.dev);
    return !isRoot && (this.#oneMount || isKernelState(type));
  }

  /**
   * `fd` is any descriptor on the object that `attr` describes, which counts as arriving until it is a node. Rejects with EACCES
   * for the root of a mount that guests may not enter.
   */
  discover(submitter: Submitter, fd: number, attr: Attr): MaybePromise<Volume> {
    const statfs = allocOwned(STATFS_BYTES);
    return andThen(unknownFs(submitter).statfs(serverCreds, fd, statfs), async () => {
      const known = this.find(attr);
      if (known) {
        known.arriving++;
        return known;
      }
      const type = statfs.readUInt32LE(STATFS_TYPE);
      if (this.#isRefused(attr, type)) throw EACCES;
      const index = this.paths.deviceIndex(attr.dev, statfs.subarray(STATFS_FSID, STATFS_FSID + 8));
      const volume = new Volume(attr, index, type, this.#freezable);
      const onMount = this.#byMount.get(attr.mountId) ?? new Map<number, Volume>();
      onMount.set(attr.dev, volume);
      this.#byMount.set(attr.mountId, onMount);
      volume.arriving++;
      // Never open what is no file or directory: a device acts when it is opened.
      const opens = attr.type === S_IFDIR || attr.type === S_IFREG;
      if (opens && volume.keepsHandles) volume.mountFd = await this.#handleMount(volume.pool(submitter), fd);
      return volume;
    });
  }

  /** Opens a descriptor for open_by_handle_at; −1 where this process or file system cannot use handles. */
  async #handleMount(pool: Syscalls, fd: number): Promise<number> {
    try {
      const handle = await pool.handle(fd);
      if (handle === undefined) return -1;
      // open_by_handle_at refuses O_PATH descriptors (EBADF).
      return await withFd(pool, await pool.reopen(serverCreds, fd, O_RDONLY), async mountFd => {
        const probe = await pool.openHandle(mountFd, handle);
        if (probe < 0) throw Errno.of(-probe);
        await pool.close(probe);
        return mountFd;
      });
    } catch (error) {
      if (error instanceof Errno) return -1;
      throw error;
    }
  }

  /** Lets go of a mount on which no client holds anything any more, so that the host can unmount it. */
  leave(volume: Volume): void {
    if (volume.nodes.size > 0 || volume.arriving > 0) return;
    if (volume.mountFd >= 0) void volume.close(volume.mountFd);
    volume.mountFd = -1;
    const onMount = this.#byMount.get(volume.mountId);
    if (onMount?.get(volume.dev) !== volume) return;
    onMount.delete(volume.dev);
    if (onMount.size === 0) this.#byMount.delete(volume.mountId);
  }

  close(): void {
    for (const onMount of this.#byMount.values()) {
      for (const volume of onMount.values()) {
        if (volume.mountFd >= 0) void volume.close(volume.mountFd);
        volume.mountFd = -1;
      }
    }
    this.#byMount.clear();
  }
}
