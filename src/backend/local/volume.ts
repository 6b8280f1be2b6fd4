import { Attr, S_IFDIR, S_IFREG } from '#base/attr.ts';
import { EACCES, EDQUOT, ENOSPC, EOPNOTSUPP, Errno, EXDEV } from '#base/errno.ts';
import { STATFS_BYTES, STATFS_FSID, STATFS_TYPE } from '#base/layout.ts';
import { type MaybePromise, recover } from '#base/maybe-promise.ts';
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
import {
  type CtimeTells,
  ctimeTells,
  hasHoles,
  hasShortNames,
  isKernelState,
  keepsHandles,
  waitsFor,
} from './fs-types.ts';
import { QidPaths } from './qid-paths.ts';
import { withFd } from './with-fd.ts';

/**
 * Microseconds after a change that went through in which another may run on the event loop: so that fsfreeze is noticed, unless
 * the file system has more than one change in this time.
 */
const trustUs = 100;

/** The result of `statNow`. */
const attrNow = new Attr();

/** One mount of one device below an export, and its nodes `N`. */
export class Volume<N = unknown> {
  readonly index: number;
  /** The calls on pool threads. */
  readonly pool: (submitter: Submitter) => Syscalls;
  /** Whether attributes are in the kernel's memory: a local file system. */
  readonly local: boolean;
  /** The calls of `sys` while those that read run on this thread, else undefined. Changes with the state of the disk. */
  inline: InlineSyscalls | undefined;
  /** `inline`, for an object that has no name yet. */
  #inlineForNew: InlineSyscalls | undefined;
  /** The pool's calls for the server itself. */
  readonly #background: Syscalls;
  /** Most bytes of a write of `inline`. */
  readonly inlineBytesMax: number;
  readonly nodes = new Map<number | bigint, N>();
  /** Whether O_TMPFILE works here: true until it fails. */
  unnamedFiles = true;
  /** A descriptor on this mount for open_by_handle_at, or −1 where handles cannot be used. */
  mountFd = -1;
  /** Objects found here that are not nodes yet. */
  arriving = 0;
  readonly mountId: number;
  readonly dev: number;
  readonly keepsHandles: boolean;
  readonly hasShortNames: boolean;
  readonly ctimeTells: CtimeTells;
  /** Whether inode numbers have 32 bits here. */
  readonly smallInos: boolean;
  readonly #contention: Contention | undefined;
  /** Whether to read with RWF_NOWAIT: true on disks until it fails. */
  #hasNowait: boolean;
  /** Closes under way that may free blocks. */
  readonly #freeing = new Set<Promise<unknown>>();

  /** `type` is f_type of statfs(2). `freezable`: no change runs on the event loop's thread. */
  constructor({ mountId, dev }: Attr, index: number, type: number, freezable: boolean) {
    const waits = waitsFor(type);
    const group = threadsFor(dev, waits === 'others');
    this.mountId = mountId;
    this.dev = dev;
    this.index = index;
    this.local = waits !== 'others';
    this.#hasNowait = waits === 'disk';
    this.inlineBytesMax = waits === 'disk' ? handOffBytesMax : Number.POSITIVE_INFINITY;
    const onFreeing = (closed: Promise<unknown>) => this.#closing(closed);
    if (waits === 'disk') {
      const contention = new Contention(contended => {
        this.inline = contended ? undefined : inlineCalls;
        this.#inlineForNew = contended ? undefined : inlineCallsForNew;
      });
      const { blocked: onBlocked, during: onLate } = contention;
      const trusted = freezable || !hasHoles(type) ? 0 : trustUs;
      const { inlineCalls, inlineCallsForNew, pooledCalls } = diskCalls(group, trusted, {
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
      this.pool = submitter => pooledOn(group, submitter);
      this.inline = this.local
        ? inMemory(group, { onBlocked: ignore, onLate: ignore, onFreeing })
        : undefined;
      this.#inlineForNew = this.inline;
    }
    this.#background = this.pool(noSession);
    this.keepsHandles = keepsHandles(type);
    this.hasShortNames = hasShortNames(type);
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

  /** Never throws. In no session's queue: a close does not wait behind calls that hang. */
  close(fd: number): MaybePromise<void> {
    return (this.inline ?? this.#background).close(fd);
  }

  closeMount(): void {
    if (this.mountFd >= 0) void this.close(this.mountFd);
    this.mountFd = -1;
  }

  /**
   * Attributes of an open object on a local file system, from the kernel's memory, whatever the state of the disk. Valid until
   * the next call.
   */
  statNow(fd: number): Attr {
    statInMemory(serverCreds, fd, attrNow);
    return attrNow;
  }

  /** Bytes read; undefined if part of them is not in memory, or if calls go to the pool at present. */
  readNow(fd: number, into: Segments, offset: number): number | undefined {
    const sys = this.inline;
    if (!sys) return undefined;
    if (!this.#hasNowait) return sys.read(serverCreds, fd, into, offset);
    const read = sys.readCached(serverCreds, fd, into, offset);
    if (read >= 0) return read;
    // Any other error is returned again by the call that may wait.
    if (read !== -EOPNOTSUPP.code) return undefined;
    this.#hasNowait = false;
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

  /** The calls to truncate an open file, which may free many blocks. */
  sysToTruncate(submitter: Submitter, fd: number): Syscalls {
    const large = this.local && !isLight(this.statNow(fd));
    return large ? this.pool(submitter) : this.sys(submitter);
  }

  #closing(closed: Promise<unknown>): void {
    this.#freeing.add(closed);
    const over = () => void this.#freeing.delete(closed);
    closed.then(over, over);
  }

  /** Whether blocks of removed objects are being freed. */
  get isFreeing(): boolean {
    return this.#freeing.size > 0;
  }

  /** Runs a change. On ENOSPC or EDQUOT waits until blocks that are being freed are free, and runs it again. */
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

/** The volumes of an export. */
export class Volumes<N = unknown> {
  readonly paths = new QidPaths();
  readonly #byMount = new Map<number, Map<number, Volume<N>>>();
  readonly #freezable: boolean;
  readonly #oneMount: boolean;
  /** The mount of the export itself. */
  #root: Pick<Attr, 'mountId' | 'dev'> | undefined;

  /** `freezable` as of `Volume`. `oneMount`: mounts below the export are refused (multidevs=forbid). */
  constructor(freezable: boolean, oneMount = false) {
    this.#freezable = freezable;
    this.#oneMount = oneMount;
  }

  find(attr: Attr): Volume<N> | undefined {
    return this.#byMount.get(attr.mountId)?.get(attr.dev);
  }

  /**
   * Whether a mount below the export is refused. The export's own directory may be on any file system. Before Linux 5.8
   * statx(2) has no mount id, and all are 0.
   */
  #isRefused({ mountId, dev }: Attr, type: number): boolean {
    this.#root ??= { mountId, dev };
    const isRoot = mountId === this.#root.mountId && (mountId !== 0 || dev === this.#root.dev);
    return !isRoot && (this.#oneMount || isKernelState(type));
  }

  /**
   * Finds or makes the volume of an object, of which `fd` is any descriptor and `attr` the attributes. Counts it as arriving.
   * EACCES if the mount is refused.
   */
  async discover(submitter: Submitter, fd: number, attr: Attr): Promise<Volume<N>> {
    const statfs = allocOwned(STATFS_BYTES);
    await unknownFs(submitter).statfs(serverCreds, fd, statfs);
    const known = this.find(attr);
    if (known) {
      known.arriving++;
      return known;
    }
    const type = statfs.readUInt32LE(STATFS_TYPE);
    if (this.#isRefused(attr, type)) throw EACCES;
    const index = this.paths.deviceIndex(attr.dev, statfs.subarray(STATFS_FSID, STATFS_FSID + 8));
    const volume = new Volume<N>(attr, index, type, this.#freezable);
    const onMount = this.#byMount.get(attr.mountId) ?? new Map<number, Volume<N>>();
    onMount.set(attr.dev, volume);
    this.#byMount.set(attr.mountId, onMount);
    volume.arriving++;
    // Files and directories only: opening a device may act.
    const opens = attr.type === S_IFDIR || attr.type === S_IFREG;
    if (opens && volume.keepsHandles) volume.mountFd = await this.#handleMount(volume.pool(submitter), fd);
    return volume;
  }

  /** Opens a descriptor for open_by_handle_at; −1 if process or file system cannot use handles. */
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

  /** Forgets a volume without nodes, so that the host can unmount it. */
  leave(volume: Volume<N>): void {
    if (volume.nodes.size > 0 || volume.arriving > 0) return;
    volume.closeMount();
    const onMount = this.#byMount.get(volume.mountId);
    if (onMount?.get(volume.dev) !== volume) return;
    onMount.delete(volume.dev);
    if (onMount.size === 0) this.#byMount.delete(volume.mountId);
  }

  close(): void {
    for (const onMount of this.#byMount.values()) for (const volume of onMount.values()) volume.closeMount();
    this.#byMount.clear();
  }
}
