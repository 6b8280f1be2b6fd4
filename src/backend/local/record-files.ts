import { setTimeout as sleep } from 'node:timers/promises';
import { Attr, S_IFDIR, S_IFREG } from '#base/attr.ts';
import {
  EACCES,
  EBUSY,
  EEXIST,
  EIO,
  EISDIR,
  ELOOP,
  ENOENT,
  ENOSPC,
  ENOTDIR,
  ENOTEMPTY,
  EPERM,
  Errno,
  ESTALE,
  EXDEV,
} from '#base/errno.ts';
import { andFinally, andThen, type MaybePromise, onError } from '#base/maybe-promise.ts';
import { type Bytes, type Name, nameOf } from '#base/name.ts';
import { allocOwned, asOwned } from '#base/owned.ts';
import { tempNameAfter } from '#base/temp-name.ts';
import { O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR } from '#host/constants.ts';
import { type Syscalls, serverCreds } from '#host/syscalls.ts';
import type { RecordFileNames, StoredAttrs } from '#security/model.ts';
import { formatRecord, parseRecord, recordBytesMax } from '#security/record-text.ts';

/** A directory whose entries have records. */
export interface RecordedDir {
  readonly sys: Syscalls;
  readonly fd: number;
  readonly isRoot: boolean;
}

/** How long a lock of another process is waited for. Longer has one only a process that is stopped, or that waits for a disk. */
const lockMsMax = 10_000;
/** A process has a lock for less than this time, and others between two of its calls. */
const lockedMs = 1;
/** How often a metadata directory is opened anew that is removed meanwhile. */
const openTriesMax = 16;
/** QEMU empties a record before it writes it: a record that was empty a moment ago is read again after this time. */
const rewriteMs = 2;
const rewrittenSecondsMax = 3;

/** What follows the reserved prefix in the name of a pending record, before the inode number. */
const pendingPart = 'record-';

/**
 * The record files of a tree, as QEMU lays them: `.virtfs_metadata/NAME` in the directory of NAME, and `.virtfs_metadata_root` for
 * the root. Everything is reached from a directory's descriptor; what is no regular file, or larger than a record, is not opened.
 *
 * A record is replaced by rename(2) of a temporary file, except one with several links: those are overwritten by one write(2),
 * padded to the old length with newlines, so that hard links of an object keep sharing it. Objects and records cannot be renamed in one
 * step. So a record that comes to a name is a **pending** record first, which is found by the object's inode number and takes
 * precedence over that of the name: whoever reads meanwhile, or after the server was killed, finds the right one. Order:
 * pending record, object, record of the name; a removed name loses its record last.
 *
 * Server processes that change a directory's records hold flock(2) on its metadata directory; readers do not wait. QEMU takes no
 * locks: its changes of the same entry at the same moment can be lost.
 */
export class RecordFiles {
  readonly names: RecordFileNames;
  readonly #prefix: Bytes;
  /** By directory, the last of the calls that change its records. */
  readonly #last = new Map<string, Promise<void>>();

  constructor(names: RecordFileNames, reservedPrefix: Bytes) {
    this.names = names;
    this.#prefix = reservedPrefix;
  }

  pendingName(ino: string): Name {
    return nameOf(this.#prefix + pendingPart + ino);
  }

  /** The inode number of a pending record's name. */
  pendingIno(name: Bytes): string | undefined {
    const start = this.#prefix + pendingPart;
    return name.startsWith(start) ? name.slice(start.length) : undefined;
  }

  /**
   * Whether an entry is a metadata directory or the root's record, whatever name it was found under: file systems without case,
   * with short names (vfat) or with Unicode folding find it under others.
   */
  isMetadata({ sys, fd }: RecordedDir, attr: Attr): MaybePromise<boolean> {
    const name = attr.type === S_IFDIR ? this.names.directory : this.names.root;
    if (attr.type !== S_IFDIR && attr.type !== S_IFREG) return false;
    const own = new Attr();
    return andThen(
      sys.statAt(serverCreds, fd, name, own),
      found => found === 0 && own.dev === attr.dev && inoText(own) === inoText(attr),
    );
  }

  /** Takes the metadata directory out of a directory's links, where the file system counts directories: more than 2. */
  hideLinks({ sys, fd }: RecordedDir, attr: Attr): MaybePromise<void> {
    const own = new Attr();
    return andThen(sys.statAt(serverCreds, fd, this.names.directory, own), found => {
      if (found === 0 && own.type === S_IFDIR) attr.nlink -= 1;
    });
  }

  /** The record of the object `ino` at `name`; empty if it has none; undefined if that name is not the object's now. */
  read(dir: RecordedDir, name: Name, ino: string): MaybePromise<StoredAttrs | undefined> {
    const { sys, fd } = dir;
    return andThen(isEntry(dir, name, ino), is => {
      if (!is) return undefined;
      return andThen(sys.lookup(serverCreds, fd, this.names.directory), metafd =>
        metafd < 0
          ? this.#unreadable(metafd)
          : andFinally(
              () => this.#current(sys, metafd, name, ino),
              () => sys.close(metafd),
            ),
      );
    });
  }

  readRoot({ sys, fd }: RecordedDir): MaybePromise<StoredAttrs> {
    return andThen(this.#readFile(sys, fd, this.names.root), found => found ?? {});
  }

  /** Changes the record of the object `ino` at `name`. False, and nothing is done, if that name is not the object's now. */
  update(
    dir: RecordedDir,
    name: Name,
    ino: string,
    change: (old: StoredAttrs) => StoredAttrs,
  ): Promise<boolean> {
    const { sys } = dir;
    return this.locked(dir, async metafd => {
      if (!(await isEntry(dir, name, ino))) return false;
      await this.settle(sys, metafd, ino, name);
      await this.#change(sys, metafd, name, change);
      return true;
    });
  }

  async updateRoot(dir: RecordedDir, change: (old: StoredAttrs) => StoredAttrs): Promise<void> {
    await this.locked(dir, () => this.#change(dir.sys, dir.fd, this.names.root, change));
  }

  /** Runs `act` with the metadata directory, which is made if need be, open and locked. */
  locked<T>(dir: RecordedDir, act: (metafd: number) => MaybePromise<T>): Promise<T> {
    return this.#locked(dir, true, metafd => act(metafd!));
  }

  /** The same with undefined where there is no metadata directory. */
  lockedIfThere<T>(dir: RecordedDir, act: (metafd: number | undefined) => MaybePromise<T>): Promise<T> {
    return this.#locked(dir, false, act);
  }

  async #locked<T>(
    dir: RecordedDir,
    make: boolean,
    act: (metafd: number | undefined) => MaybePromise<T>,
  ): Promise<T> {
    const { sys, fd } = dir;
    const own = new Attr();
    await sys.stat(serverCreds, fd, own);
    return this.#inTurn(`${own.dev}:${inoText(own)}`, () => this.#opened(dir, make, act));
  }

  /** Calls of this process on one directory, one after another. */
  async #inTurn<T>(key: string, act: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key);
    let end!: () => void;
    const last = new Promise<void>(resolve => {
      end = resolve;
    });
    this.#last.set(key, last);
    await before;
    try {
      return await act();
    } finally {
      if (this.#last.get(key) === last) this.#last.delete(key);
      end();
    }
  }

  async #opened<T>(
    dir: RecordedDir,
    make: boolean,
    act: (metafd: number | undefined) => MaybePromise<T>,
  ): Promise<T> {
    const { sys, fd } = dir;
    for (let tries = 0; tries < openTriesMax; tries++) {
      const metafd = await this.#open(dir, make);
      if (metafd === undefined) return act(undefined);
      try {
        await lock(sys, metafd);
        // Another process may have removed it before it was locked.
        const attr = new Attr();
        await sys.stat(serverCreds, metafd, attr);
        if (await isEntry({ sys, fd }, this.names.directory, inoText(attr))) return await act(metafd);
      } finally {
        await sys.close(metafd);
      }
    }
    throw ESTALE;
  }

  async #open({ sys, fd }: RecordedDir, make: boolean): Promise<number | undefined> {
    let pathFd = await sys.lookup(serverCreds, fd, this.names.directory);
    if (pathFd === -ENOENT.code) {
      if (!make) return undefined;
      await unless(EEXIST, () => sys.mkdir(serverCreds, fd, this.names.directory, 0o700));
      pathFd = await sys.lookup(serverCreds, fd, this.names.directory);
    }
    if (pathFd < 0) throw Errno.of(-pathFd);
    try {
      const attr = new Attr();
      await sys.stat(serverCreds, pathFd, attr);
      if (attr.type !== S_IFDIR) throw this.#inTheWay();
      return await sys.reopen(serverCreds, pathFd, O_RDONLY | O_DIRECTORY);
    } finally {
      await sys.close(pathFd);
    }
  }

  /** The Errno for a metadata directory or record whose place something else has. */
  #inTheWay(): Errno {
    this.names.warn(
      `something else has the place of a ${this.names.directory} directory or of a file in it: remove it`,
    );
    return EIO;
  }

  /**
   * Makes sure that the root has a record, be it empty: else a guest could make one where the file system does not tell its name
   * from others.
   */
  async secureRoot({ sys, fd, isRoot }: RecordedDir): Promise<void> {
    if (!isRoot || (await sys.statAt(serverCreds, fd, this.names.root, new Attr())) !== -ENOENT.code) return;
    await unless(EEXIST, async () =>
      sys.close(await sys.create(serverCreds, fd, this.names.root, O_RDWR | O_EXCL, 0o600)),
    );
  }

  /** Writes the pending record of an object. */
  pend(sys: Syscalls, metafd: number, ino: string, attrs: StoredAttrs): Promise<void> {
    return this.#write(sys, metafd, this.pendingName(ino), attrs);
  }

  /**
   * Makes the record of `name` in `from` the pending one of `ino` in `to`: as a link, so that objects with several links go on
   * sharing it, or as a copy. Returns whether there is one.
   */
  async pendFrom(
    sys: Syscalls,
    from: number | undefined,
    name: Name,
    to: number,
    ino: string,
  ): Promise<boolean> {
    const pathFd = from === undefined ? -ENOENT.code : await sys.lookup(serverCreds, from, name);
    if (pathFd === -ENOENT.code) return false;
    if (pathFd < 0) throw Errno.of(-pathFd);
    try {
      const attr = new Attr();
      await sys.stat(serverCreds, pathFd, attr);
      if (attr.type !== S_IFREG) return false;
      await this.drop(sys, to, ino);
      const failed = await failure(() => sys.link(serverCreds, pathFd, to, this.pendingName(ino)));
      if (failed) await this.pend(sys, to, ino, await this.#readRegular(sys, pathFd));
      return true;
    } finally {
      await sys.close(pathFd);
    }
  }

  /** Gives the record that a killed server left pending for `ino`, which has `name`, its name. */
  async settle(sys: Syscalls, metafd: number | undefined, ino: string, name: Name): Promise<void> {
    if (metafd !== undefined && (await this.has(sys, metafd, this.pendingName(ino))))
      await this.install(sys, metafd, ino, name);
  }

  /** Gives the pending record of `ino` its name. It stays pending if that fails, and counts. */
  async install(sys: Syscalls, metafd: number, ino: string, name: Name): Promise<void> {
    const pending = this.pendingName(ino);
    const failed = await failure(() => sys.rename(serverCreds, metafd, pending, metafd, name, 0));
    if (failed)
      return this.names.warn(`a record cannot be moved to its name (${failed.name}): it stays pending`);
    // rename(2) of one link over another of the same file leaves both.
    await this.drop(sys, metafd, ino);
  }

  async drop(sys: Syscalls, metafd: number, ino: string): Promise<void> {
    await this.remove(sys, metafd, this.pendingName(ino));
  }

  async remove(sys: Syscalls, metafd: number | undefined, name: Name): Promise<void> {
    if (metafd === undefined) return;
    const failed = await failure(() => sys.unlink(serverCreds, metafd, name, false));
    if (failed && failed !== ENOENT) this.names.warn(`a record cannot be removed (${failed.name})`);
  }

  has(sys: Syscalls, metafd: number, name: Name): MaybePromise<boolean> {
    return andThen(sys.statAt(serverCreds, metafd, name, new Attr()), found => found === 0);
  }

  #current(sys: Syscalls, metafd: number, name: Name, ino: string): MaybePromise<StoredAttrs> {
    return andThen(
      this.#readFile(sys, metafd, this.pendingName(ino)),
      pending => pending ?? andThen(this.#readFile(sys, metafd, name), found => found ?? {}),
    );
  }

  /** Undefined if there is none. */
  #readFile(sys: Syscalls, dirfd: number, name: Name): MaybePromise<StoredAttrs | undefined> {
    return andThen(sys.lookup(serverCreds, dirfd, name), pathFd => {
      if (pathFd === -ENOENT.code) return undefined;
      if (pathFd < 0) return this.#unreadable(pathFd);
      return andFinally(
        () => this.#readRegular(sys, pathFd),
        () => sys.close(pathFd),
      );
    });
  }

  #readRegular(sys: Syscalls, pathFd: number, again = true): MaybePromise<StoredAttrs> {
    const attr = new Attr();
    return andThen(sys.stat(serverCreds, pathFd, attr), () => {
      if (attr.type !== S_IFREG) return this.#ignored('is no regular file');
      if (attr.size > recordBytesMax) return this.#ignored(`has more than ${recordBytesMax} bytes`);
      if (attr.size === 0) {
        const fresh = Math.abs(Date.now() / 1000 - attr.mtimeSec) < rewrittenSecondsMax;
        if (!again || !fresh || attr.nlink === 0) return {};
        return sleep(rewriteMs).then(() => this.#readRegular(sys, pathFd, false));
      }
      return andThen(
        readText(sys, pathFd),
        text => parseRecord(text) ?? this.#ignored('has no line virtfs.…='),
      );
    });
  }

  #ignored(what: string): StoredAttrs {
    this.names.warn(`a file in ${this.names.directory} ${what}: ignored`);
    return {};
  }

  /** What a failed look-up of a record or of the metadata directory means: none, if nothing else can be done. */
  #unreadable(result: number): StoredAttrs {
    const error = Errno.of(-result);
    if (error === ENOENT) return {};
    if (error !== ENOTDIR && error !== ELOOP && error !== EACCES && error !== EPERM && error !== EXDEV)
      throw error;
    return this.#ignored(`or the directory itself cannot be used (${error.name})`);
  }

  /** Reads a record, or none, and replaces it. */
  async #change(
    sys: Syscalls,
    dirfd: number,
    name: Name,
    change: (old: StoredAttrs) => StoredAttrs,
  ): Promise<void> {
    const pathFd = await sys.lookup(serverCreds, dirfd, name);
    if (pathFd < 0 && pathFd !== -ENOENT.code) throw this.#inTheWay();
    if (pathFd < 0) return this.#write(sys, dirfd, name, change({}));
    try {
      const attr = new Attr();
      await sys.stat(serverCreds, pathFd, attr);
      if (attr.type === S_IFREG && attr.nlink > 1) await this.#overwrite(sys, pathFd, change);
      else await this.#write(sys, dirfd, name, change(await this.#readRegular(sys, pathFd)));
    } finally {
      await sys.close(pathFd);
    }
  }

  /** Replaces a file, or whatever is no directory, by rename(2). */
  async #write(sys: Syscalls, dirfd: number, name: Name, attrs: StoredAttrs): Promise<void> {
    const temp = tempNameAfter(this.#prefix);
    const fd = await sys.create(serverCreds, dirfd, temp, O_RDWR | O_EXCL, 0o600);
    await onError(
      async () => {
        try {
          const text = Buffer.from(formatRecord(attrs));
          if (text.length > 0 && (await sys.write(serverCreds, fd, [asOwned(text)], 0)) < text.length)
            throw ENOSPC;
        } finally {
          await sys.close(fd);
        }
        try {
          await sys.rename(serverCreds, dirfd, temp, dirfd, name, 0);
        } catch (error) {
          throw error === EISDIR || error === ENOTEMPTY ? this.#inTheWay() : error;
        }
      },
      () => this.remove(sys, dirfd, temp),
    );
  }

  /** A record with several links may be in several directories, so that it has a lock of its own. */
  async #overwrite(sys: Syscalls, pathFd: number, change: (old: StoredAttrs) => StoredAttrs): Promise<void> {
    const fd = await sys.reopen(serverCreds, pathFd, O_RDWR);
    try {
      await lock(sys, fd);
      const attr = new Attr();
      const text = Buffer.from(formatRecord(change(await this.#readRegular(sys, pathFd))));
      await sys.stat(serverCreds, fd, attr);
      const bytes = Buffer.alloc(Math.max(text.length, Math.min(attr.size, recordBytesMax)), '\n');
      text.copy(bytes);
      await sys.write(serverCreds, fd, [asOwned(bytes)], 0);
      await sys.ftruncate(serverCreds, fd, text.length);
    } finally {
      await sys.close(fd);
    }
  }
}

/** An inode number as it is written in names of pending records. */
export function inoText(attr: Attr): string {
  return attr.inoHigh.toString(16).padStart(8, '0') + attr.inoLow.toString(16).padStart(8, '0');
}

export function isEntry(
  dir: Pick<RecordedDir, 'sys' | 'fd'>,
  name: Name,
  ino: string,
): MaybePromise<boolean> {
  const attr = new Attr();
  return andThen(
    dir.sys.statAt(serverCreds, dir.fd, name, attr),
    found => found === 0 && inoText(attr) === ino,
  );
}

async function lock(sys: Syscalls, fd: number): Promise<void> {
  for (let waitedMs = 0; !(await sys.flock(serverCreds, fd)); waitedMs += lockedMs) {
    if (waitedMs > lockMsMax) throw EBUSY;
    await sleep(lockedMs);
  }
}

function readText(sys: Syscalls, pathFd: number): MaybePromise<string> {
  return andThen(sys.reopen(serverCreds, pathFd, O_RDONLY), fd =>
    andFinally(
      () => {
        const bytes = allocOwned(recordBytesMax);
        return andThen(sys.read(serverCreds, fd, [bytes], 0), length => bytes.toString('latin1', 0, length));
      },
      () => sys.close(fd),
    ),
  );
}

async function unless(expected: Errno, act: () => MaybePromise<unknown>): Promise<void> {
  try {
    await act();
  } catch (error) {
    if (error !== expected) throw error;
  }
}

/** The Errno that a call failed with. */
async function failure(act: () => MaybePromise<unknown>): Promise<Errno | undefined> {
  try {
    await act();
    return undefined;
  } catch (error) {
    if (error instanceof Errno) return error;
    throw error;
  }
}
