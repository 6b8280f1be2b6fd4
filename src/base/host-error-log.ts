import { E2BIG, EDQUOT, EIO, ENOSPC, EROFS, type Errno } from './errno.ts';
import { Once } from './once.ts';

/** Errors that need an administrator, and their meaning. */
const meanings: ReadonlyMap<Errno, string> = new Map([
  [EIO, 'the disk or the path to it fails: see the kernel log'],
  [ENOSPC, 'the file system is full'],
  [EDQUOT, 'a disk quota is exhausted'],
  [EROFS, 'the file system is mounted read-only'],
]);

/** Minimum time between two equal lines, so that a guest that retries does not fill the log. */
const repeatMsMin = 10 * 60 * 1000;

/** Logs errors of one export's host file system: each kind at most once in ten minutes. */
export class HostErrorLog {
  readonly #warn: (text: string) => void;
  readonly #orElse: string;
  readonly #kinds = new Once(repeatMsMin);

  /** `model`: a security model of the embedding program, from which the errors may come too. */
  constructor(warn: (text: string) => void, model?: string) {
    this.#warn = warn;
    this.#orElse = model === undefined ? '' : `, or the security model "${model}" gave this error`;
  }

  /** Logs the error of a reply if it needs an administrator. `request` describes the request. */
  report(errno: Errno, request: () => string): void {
    if (!meanings.has(errno)) return;
    this.#once(
      errno.name,
      () => `${errno.name}: ${meanings.get(errno)}${this.#orElse}; request: ${request()}`,
    );
  }

  rootRemoved(): void {
    const text =
      'its directory was removed from the host: nothing can be created there. To serve a new directory at its path, ' +
      'restart the server';
    this.#once('removed', () => text);
  }

  /** Logs an invalid user.virtfs.* record. `text` must be one of a few, since each is remembered. */
  badRecord(text: string): void {
    this.#once(text, () => text);
  }

  /** The groups of a user could not be had, so the user cannot attach. */
  noGroups(uid: number, errno: Errno): void {
    const of = `the groups of uid ${uid}`;
    if (errno === E2BIG)
      this.#once(of, () => `${of} are more than the 65,536 that Linux knows: the user cannot attach`);
    else this.#once(`groups ${errno.name}`, () => `${of} cannot be had (${errno}): the user cannot attach`);
  }

  /** A user of an export with `check=host` may not create with a gid, which is not the host's problem but its administrator's. */
  notInGroup(uid: number, gid: number): void {
    this.#once(
      'not in group',
      () =>
        `uid ${uid} may not create with gid ${gid} (EPERM): the host's user database does not have it in that group. Add it there ` +
        "(usermod -aG), make the directory set-gid with that group, or use check=guest if the guest's root is trusted",
    );
  }

  /** A guest's root may not set xattrs of this namespace. */
  needsSysAdmin(namespace: 'trusted' | 'security'): void {
    this.#once(
      namespace,
      () =>
        `${namespace}.* xattrs cannot be set (EPERM): they need CAP_SYS_ADMIN, which the sandbox leaves to the server with ` +
        '--trusted-xattrs on',
    );
  }

  #once(key: string, text: () => string): void {
    if (this.#kinds.isFirst(key)) this.#warn(text());
  }
}
