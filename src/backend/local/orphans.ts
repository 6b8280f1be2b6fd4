import { Attr, S_IFDIR } from '#base/attr.ts';
import { EPERM, Errno } from '#base/errno.ts';
import { type MaybePromise, recover } from '#base/maybe-promise.ts';
import { type Bytes, type Name, nameOf } from '#base/name.ts';
import { allocOwned } from '#base/owned.ts';
import { isAbandoned, isTempName } from '#base/temp-name.ts';
import { O_DIRECTORY, O_NOATIME, O_RDONLY } from '#host/constants.ts';
import { type Submitter, type Syscalls, serverCreds } from '#host/syscalls.ts';
import { parseDirents } from '#protocol/dirent.ts';
import type { SecurityModel } from '#security/model.ts';
import type { RecordedDir } from './record-files.ts';
import type { RecordedNames } from './recorded-names.ts';
import type { Volume } from './volume.ts';

/** Additional bytes for a listing with the hidden entries. */
const spareBytes = 4096;

/**
 * Removes orphans: the staged objects of a killed server. They are empty directories (and files, on file systems without
 * O_TMPFILE) with the model's reserved prefix, hidden from guests, and at most as many as requests ran.
 *
 * Removed are those in a directory that is listed or must be empty: so starting costs nothing, whatever the size of the tree,
 * and orphans elsewhere disturb nobody. A common hidden directory at the root would have to be on the mount and in the quota of
 * every directory below, would show in the root's link count, and renames between directories exclude each other.
 */
export class Orphans {
  readonly #model: SecurityModel;
  readonly #readonly: boolean;
  readonly #records: RecordedNames | undefined;

  constructor(model: SecurityModel, readonly: boolean, records: RecordedNames | undefined) {
    this.#model = model;
    this.#readonly = readonly;
    this.#records = records;
  }

  /**
   * Removes the orphans in the part of a directory that a listing of `bytes` from the cookie on has read. In the background;
   * ignores errors.
   */
  async clearPart(sys: Syscalls, fd: number, low: number, high: number, bytes: number): Promise<void> {
    if (this.#readonly) return;
    await this.#opened(sys, fd, own => this.#clearBatch(sys, own, low, high, bytes + spareBytes)).catch(
      () => undefined,
    );
  }

  /** Removes what killed servers left in the metadata directory of a directory. In the background; ignores errors. */
  async clearRecords(key: string, dir: RecordedDir): Promise<void> {
    if (this.#readonly) return;
    await this.#records?.clean(key, dir).catch(() => undefined);
  }

  /** Empties the directory `name` if it has only orphans and metadata in it. Whether it is empty now. */
  async clearAll(submitter: Submitter, volume: Volume, dirfd: number, name: Name): Promise<boolean> {
    if (this.#readonly || this.#model.reservedPrefix === '') return false;
    const sys = volume.sys(submitter);
    const pathFd = await volume.lookup(submitter, serverCreds, dirfd, name);
    if (pathFd < 0) return false;
    try {
      return await this.#opened(sys, pathFd, fd => this.#clearOrphans(sys, fd));
    } catch (error) {
      if (error instanceof Errno) return false;
      throw error;
    } finally {
      await sys.close(pathFd);
    }
  }

  async #clearOrphans(sys: Syscalls, fd: number): Promise<boolean> {
    for (let any = false; ; any = true) {
      const { cleared, others } = await this.#clearBatch(sys, fd, 0, 0, spareBytes);
      if (others > 0) return false;
      if (cleared > 0) continue;
      return this.#records ? this.#records.clear(sys, fd) : any;
    }
  }

  async #opened<T>(sys: Syscalls, dir: number, act: (fd: number) => Promise<T>): Promise<T> {
    const fd = await openNoAtime(sys, dir);
    try {
      return await act(fd);
    } finally {
      await sys.close(fd);
    }
  }

  #isTempName(name: Bytes): boolean {
    const { reservedPrefix } = this.#model;
    return reservedPrefix !== '' && isTempName(reservedPrefix, name);
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
    const own = names.filter(name => this.#isTempName(name));
    const { directory, root } = this.#model.recordFiles ?? {};
    const metadata = names.filter(name => name === directory || name === root);
    let cleared = 0;
    for (const name of own) if (await clearOne(sys, fd, nameOf(name))) cleared++;
    const dots = names.filter(name => name === '.' || name === '..').length;
    return { cleared, others: names.length - own.length - metadata.length - dots };
  }
}

async function clearOne(sys: Syscalls, dirfd: number, name: Name): Promise<boolean> {
  const attr = new Attr();
  if ((await sys.statAt(serverCreds, dirfd, name, attr)) !== 0) return false;
  if (!isAbandoned(attr.mtimeSec)) return false;
  try {
    // Fails for a directory with content, which was not staged.
    await sys.unlink(serverCreds, dirfd, name, attr.type === S_IFDIR);
    return true;
  } catch (error) {
    if (error instanceof Errno) return false;
    throw error;
  }
}

/** Opens a directory for the server itself, without a change of atime if the server owns it (O_NOATIME, open(2)). */
function openNoAtime(sys: Syscalls, dir: number): MaybePromise<number> {
  const flags = O_RDONLY | O_DIRECTORY;
  return recover<number>(
    () => sys.reopen(serverCreds, dir, flags | O_NOATIME),
    error => {
      if (error !== EPERM) throw error;
      return sys.reopen(serverCreds, dir, flags);
    },
  );
}
