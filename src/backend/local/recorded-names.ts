import { Attr, S_IFDIR } from '#base/attr.ts';
import { EEXIST, EINVAL, ENOENT, Errno } from '#base/errno.ts';
import { type MaybePromise, onError } from '#base/maybe-promise.ts';
import { type Name, nameOf } from '#base/name.ts';
import { allocOwned } from '#base/owned.ts';
import { isAbandoned, isTempName } from '#base/temp-name.ts';
import { expectCount } from '#host/control-block.ts';
import { type Syscalls, serverCreds } from '#host/syscalls.ts';
import { type Dirent, parseDirents } from '#protocol/dirent.ts';
import type { ObjectRecord, StoredAttrs } from '#security/model.ts';
import { inoText, isEntry, type RecordedDir, type RecordFiles } from './record-files.ts';

const listingBytes = 16 * 1024;
/** Directories that are remembered as clean; each costs some 100 bytes. */
const cleanMax = 65_536;

/** The record of an object that has no name yet. */
export class NewRecord implements ObjectRecord {
  readonly #files: RecordFiles;
  readonly #sys: Syscalls;
  readonly #metafd: number;
  #ino = '';

  constructor(files: RecordFiles, sys: Syscalls, metafd: number) {
    this.#files = files;
    this.#sys = sys;
    this.#metafd = metafd;
  }

  read(): StoredAttrs {
    return {};
  }

  /** Takes the inode number of the new object, which is open at `fd`. Comes before `update`. */
  async identify(fd: number): Promise<void> {
    const attr = new Attr();
    await this.#sys.stat(serverCreds, fd, attr);
    this.#ino = inoText(attr);
  }

  update(change: (old: StoredAttrs) => StoredAttrs): Promise<void> {
    return this.#files.pend(this.#sys, this.#metafd, this.#ino, change({}));
  }

  async install(name: Name): Promise<void> {
    await this.#files.install(this.#sys, this.#metafd, this.#ino, name);
  }

  async drop(): Promise<void> {
    if (this.#ino !== '') await this.#files.drop(this.#sys, this.#metafd, this.#ino);
  }
}

/** Changes of names whose objects have record files: each takes the change itself, and runs it where it is safe. */
export class RecordedNames {
  readonly #files: RecordFiles;
  readonly #prefix: string;
  readonly #clean = new Set<string>();

  constructor(files: RecordFiles, reservedPrefix: string) {
    this.#files = files;
    this.#prefix = reservedPrefix;
  }

  /** Creates an object at `name`: `publish` gives the record its content and the object its name. */
  create<T>(dir: RecordedDir, name: Name, publish: (record: NewRecord) => MaybePromise<T>): Promise<T> {
    const { sys } = dir;
    return this.#files.locked(dir, async metafd => {
      await this.#files.secureRoot(dir);
      if ((await sys.statAt(serverCreds, dir.fd, name, new Attr())) === 0) throw EEXIST;
      const record = new NewRecord(this.#files, sys, metafd);
      const made = await onError(
        () => publish(record),
        () => record.drop(),
      );
      await record.install(name);
      return made;
    });
  }

  /**
   * Gives an object another name: the inode number `ino` and the name it has, if that is known; otherwise its record is a copy of
   * `attrs`.
   */
  async link(
    source: { readonly dir: RecordedDir; readonly name: Name } | undefined,
    attrs: StoredAttrs,
    ino: string,
    toDir: RecordedDir,
    to: Name,
    link: () => MaybePromise<void>,
  ): Promise<void> {
    const files = this.#files;
    await this.#lockedBoth(source?.dir, toDir, async (from, metafd) => {
      const { sys } = toDir;
      await files.secureRoot(toDir);
      if ((await sys.statAt(serverCreds, toDir.fd, to, new Attr())) === 0) throw EEXIST;
      const known = source !== undefined && (await isEntry(source.dir, source.name, ino));
      if (known) await files.settle(sys, from, ino, source.name);
      let pending = known && (await files.pendFrom(sys, from, source.name, metafd, ino));
      if (!known && Object.keys(attrs).length > 0) {
        await files.pend(sys, metafd, ino, attrs);
        pending = true;
      }
      await onError(link, () => (pending ? files.drop(sys, metafd, ino) : undefined));
      if (pending) await files.install(sys, metafd, ino, to);
      else await files.remove(sys, metafd, to);
    });
  }

  /** Renames an object. */
  async move(
    fromDir: RecordedDir,
    from: Name,
    toDir: RecordedDir,
    to: Name,
    rename: () => MaybePromise<void>,
  ): Promise<void> {
    const files = this.#files;
    const { sys } = fromDir;
    const attr = new Attr();
    // Without the locks an object that somebody gives the name meanwhile would be renamed without its record.
    const look = async () => expectCount(await sys.statAt(serverCreds, fromDir.fd, from, attr));
    await look();
    await this.#lockedBoth(fromDir, toDir, async (fromfd, tofd) => {
      await files.secureRoot(toDir);
      await look();
      if (await files.isMetadata(fromDir, attr)) throw ENOENT;
      const victim = new Attr();
      const replaces = (await toDir.sys.statAt(serverCreds, toDir.fd, to, victim)) === 0;
      if (replaces && (await files.isMetadata(toDir, victim))) throw EINVAL;
      const ino = inoText(attr);
      // rename(2) of one link over another of the same file does nothing; one to another case leaves the record to be found.
      if (replaces && inoText(victim) === ino && victim.dev === attr.dev) return rename();
      await files.settle(sys, fromfd, ino, from);
      let pending = await files.pendFrom(sys, fromfd, from, tofd, ino);
      if (!pending && (await files.has(sys, tofd, to))) {
        await files.pend(sys, tofd, ino, {});
        pending = true;
      }
      await onError(rename, () => (pending ? files.drop(sys, tofd, ino) : undefined));
      if (pending) await files.install(sys, tofd, ino, to);
      await files.remove(sys, fromfd, from);
    });
  }

  /** Removes a name. */
  remove(dir: RecordedDir, name: Name, unlink: () => MaybePromise<void>): Promise<void> {
    const { sys, fd } = dir;
    return this.#files.lockedIfThere(dir, async metafd => {
      const attr = new Attr();
      const found = (await sys.statAt(serverCreds, fd, name, attr)) === 0;
      if (found && (await this.#files.isMetadata(dir, attr))) throw ENOENT;
      await unlink();
      await this.#files.remove(sys, metafd, name);
      const last = attr.type === S_IFDIR || attr.nlink === 1;
      if (found && last && metafd !== undefined) await this.#files.drop(sys, metafd, inoText(attr));
    });
  }

  /** Removes the metadata of the directory open at `fd`, if it has no other entry. Returns whether it has none. */
  clear(sys: Syscalls, fd: number): Promise<boolean> {
    const { directory, root } = this.#files.names;
    return this.#files.lockedIfThere({ sys, fd, isRoot: false }, async metafd => {
      const others = await list(sys, fd, 0, 0, `/${directory}/${root}`);
      if (others.length > 0) return false;
      if (metafd !== undefined) {
        if (!(await this.#clearDirectory(sys, metafd))) return false;
        await sys.unlink(serverCreds, fd, directory, true);
      }
      await this.#files.remove(sys, fd, root);
      return true;
    });
  }

  async #clearDirectory(sys: Syscalls, metafd: number): Promise<boolean> {
    for (;;) {
      const names = await list(sys, metafd, 0, 0, '');
      if (names.length === 0) return true;
      for (const { name } of names) {
        try {
          await sys.unlink(serverCreds, metafd, nameOf(name), false);
        } catch (error) {
          if (!(error instanceof Errno)) throw error;
          this.#files.names.warn(
            `a directory cannot be removed, since its ${this.#files.names.directory} contains what is no record (${error.name}): remove that`,
          );
          return false;
        }
      }
    }
  }

  /**
   * Removes from a metadata directory what killed servers left: temporary files, and pending records, which get their names if
   * their objects are there. Once for each directory, which `key` identifies.
   */
  async clean(key: string, dir: RecordedDir): Promise<void> {
    if (this.#clean.has(key)) return;
    if (this.#clean.size === cleanMax) this.#clean.clear();
    this.#clean.add(key);
    const { sys, fd } = dir;
    await this.#files.lockedIfThere(dir, async metafd => {
      if (metafd === undefined) return;
      const left = (await listAll(sys, metafd)).filter(({ name }) => name.startsWith(this.#prefix));
      const attr = new Attr();
      for (const { name } of left) {
        const own = nameOf(name);
        if ((await sys.statAt(serverCreds, metafd, own, attr)) !== 0 || !isAbandoned(attr.mtimeSec)) continue;
        const ino = this.#files.pendingIno(name);
        const entry = ino === undefined ? undefined : (await listAll(sys, fd)).find(one => hex(one) === ino);
        if (entry) await this.#files.install(sys, metafd, ino!, nameOf(entry.name));
        else if (ino !== undefined || isTempName(this.#prefix, name))
          await this.#files.remove(sys, metafd, own);
      }
    });
  }

  /** In the order of the directories' inode numbers, so that two processes do not wait for each other. */
  async #lockedBoth<T>(
    fromDir: RecordedDir | undefined,
    toDir: RecordedDir,
    act: (fromfd: number | undefined, tofd: number) => MaybePromise<T>,
  ): Promise<T> {
    const files = this.#files;
    if (!fromDir) return files.locked(toDir, tofd => act(undefined, tofd));
    const [a, b] = [new Attr(), new Attr()];
    await fromDir.sys.stat(serverCreds, fromDir.fd, a);
    await toDir.sys.stat(serverCreds, toDir.fd, b);
    if (a.dev === b.dev && inoText(a) === inoText(b)) return files.locked(toDir, tofd => act(tofd, tofd));
    if (inoText(a) < inoText(b))
      return files.locked(fromDir, fromfd => files.locked(toDir, tofd => act(fromfd, tofd)));
    return files.locked(toDir, tofd => files.locked(fromDir, fromfd => act(fromfd, tofd)));
  }
}

/** Entries from a position on but for the dots; empty at the end. */
async function list(sys: Syscalls, fd: number, low: number, high: number, hide: string): Promise<Dirent[]> {
  const into = allocOwned(listingBytes);
  const bytes = await sys.readdir(serverCreds, fd, low, high, into, hide, '');
  return parseDirents(into.subarray(0, bytes)).filter(({ name }) => name !== '.' && name !== '..');
}

async function listAll(sys: Syscalls, fd: number): Promise<Dirent[]> {
  const into = allocOwned(listingBytes);
  const all: Dirent[] = [];
  for (let low = 0, high = 0; ; ) {
    const bytes = await sys.readdir(serverCreds, fd, low, high, into, '', '');
    if (bytes === 0) return all;
    const found = parseDirents(into.subarray(0, bytes));
    all.push(...found.filter(({ name }) => name !== '.' && name !== '..'));
    ({ low, high } = found.at(-1)!.offset);
  }
}

function hex({ qid }: Dirent): string {
  return qid.pathHigh.toString(16).padStart(8, '0') + qid.pathLow.toString(16).padStart(8, '0');
}
