import { Attr, S_IFDIR } from '#base/attr.ts';
import { EPERM, Errno } from '#base/errno.ts';
import { type MaybePromise, recover } from '#base/maybe-promise.ts';
import { type Bytes, type Name, nameOf } from '#base/name.ts';
import { allocOwned } from '#base/owned.ts';
import { O_DIRECTORY, O_NOATIME, O_RDONLY } from '#host/constants.ts';
import { type Submitter, type Syscalls, serverCreds } from '#host/syscalls.ts';
import { parseDirents } from '#protocol/dirent.ts';
import type { SecurityModel } from '#security/model.ts';
import type { Volume } from './volume.ts';

/**
 * An object is half made for far less than a millisecond. One that is this old belongs to a server that has ended; if it
 * does not after all (a machine that was suspended, a clock of a network file system that is off), its maker finds it
 * gone and refuses that one request, and nothing that anybody has seen is lost.
 */
const ageSecondsMin = 30;

/** How many random bytes the name of an object that is being made has. */
export const unfinishedNameBytes = 12;

/** Entries that are hidden take room in a batch that those of a listing do not. */
const spareBytes = 4096;

/**
 * What a server that was killed leaves behind of objects that it was making: empty directories (and files, where the file
 * system has no unnamed ones) under names that are the model's own. No guest sees them or can make such a name, and they
 * are no more than the requests that ran.
 *
 * They are cleared away where somebody comes upon them: in a listing, and where a directory must be empty. So a start
 * costs nothing, however large the tree, and what stays in a directory that nobody ever looks into is in nobody's way. A
 * hidden place for all of them at the export's root would have to be on the same mount and in the same quota as every
 * directory below, would show in the root's link count, and renames between two directories exclude each other.
 */
export class Orphans {
  readonly #model: SecurityModel;
  readonly #readonly: boolean;

  constructor(model: SecurityModel, readonly: boolean) {
    this.#model = model;
    this.#readonly = readonly;
  }

  /**
   * Clears the part of a directory that a listing of so many bytes from `cookie` on has passed over. Nobody waits for it,
   * and what fails stays for the next time.
   */
  async clearPart(sys: Syscalls, fd: number, low: number, high: number, bytes: number): Promise<void> {
    if (this.#readonly) return;
    // With a position of its own.
    await this.#opened(sys, fd, own => this.#clearBatch(sys, own, low, high, bytes + spareBytes)).catch(
      () => undefined,
    );
  }

  /** Makes the directory `name` empty, if all that is in it are leftovers. Returns whether it cleared anything away. */
  async clearAll(submitter: Submitter, volume: Volume, dirfd: number, name: Name): Promise<boolean> {
    if (this.#readonly || this.#model.reservedPrefix === '') return false;
    const sys = volume.sys(submitter);
    const pathFd = await volume.lookup(submitter, serverCreds, dirfd, name);
    if (pathFd < 0) return false;
    try {
      return await this.#opened(sys, pathFd, fd => this.#clearOwn(sys, fd));
    } catch (error) {
      if (error instanceof Errno) return false;
      throw error;
    } finally {
      await sys.close(pathFd);
    }
  }

  async #clearOwn(sys: Syscalls, fd: number): Promise<boolean> {
    for (let any = false; ; any = true) {
      const { cleared, others } = await this.#clearBatch(sys, fd, 0, 0, spareBytes);
      if (others > 0) return false;
      if (cleared === 0) return any;
    }
  }

  async #opened<T>(sys: Syscalls, dir: number, act: (fd: number) => Promise<T>): Promise<T> {
    const fd = await openUnseen(sys, dir);
    try {
      return await act(fd);
    } finally {
      await sys.close(fd);
    }
  }

  /** Somebody on the host may have chosen a name that begins alike. */
  #isUnfinished(name: Bytes): boolean {
    const { reservedPrefix } = this.#model;
    if (reservedPrefix === '' || !name.startsWith(reservedPrefix)) return false;
    return (
      name.length === reservedPrefix.length + 2 * unfinishedNameBytes &&
      /^[0-9a-f]*$/.test(name.slice(reservedPrefix.length))
    );
  }

  async #clearBatch(
    sys: Syscalls,
    fd: number,
    low: number,
    high: number,
    bytes: number,
  ): Promise<{ cleared: number; others: number }> {
    const into = allocOwned(bytes);
    const packed = await sys.readdir(serverCreds, fd, low, high, into, '', '');
    const names = parseDirents(into.subarray(0, packed)).map(({ name }) => name);
    const own = names.filter(name => this.#isUnfinished(name));
    let cleared = 0;
    for (const name of own) if (await clearOne(sys, fd, nameOf(name))) cleared++;
    const dots = names.filter(name => name === '.' || name === '..').length;
    return { cleared, others: names.length - own.length - dots };
  }
}

async function clearOne(sys: Syscalls, dirfd: number, name: Name): Promise<boolean> {
  const attr = new Attr();
  if ((await sys.statAt(serverCreds, dirfd, name, attr)) !== 0) return false;
  if (attr.mtimeSec > Date.now() / 1000 - ageSecondsMin) return false;
  try {
    // A directory that is not empty is not one that was being made.
    await sys.unlink(serverCreds, dirfd, name, attr.type === S_IFDIR);
    return true;
  } catch (error) {
    if (error instanceof Errno) return false;
    throw error;
  }
}

/** Opens a directory in which nobody but the server reads: its atime stays, where that is for the server to say (open(2)). */
function openUnseen(sys: Syscalls, dir: number): MaybePromise<number> {
  const flags = O_RDONLY | O_DIRECTORY;
  return recover<number>(
    () => sys.reopen(serverCreds, dir, flags | O_NOATIME),
    error => {
      if (error !== EPERM) throw error;
      return sys.reopen(serverCreds, dir, flags);
    },
  );
}
