import { EDQUOT, EIO, ENOSPC, EROFS, type Errno } from './errno.ts';

/** Errors that an administrator has to do something about, and what they mean. */
const meanings: ReadonlyMap<Errno, string> = new Map([
  [EIO, 'the disk or the way to it fails: the log of the kernel says more'],
  [ENOSPC, 'the file system is full'],
  [EDQUOT, 'a quota is used up'],
  [EROFS, 'the file system is mounted read-only'],
]);

/** A guest that goes on after an error would fill the log. */
const repeatMsMin = 10 * 60 * 1000;

/** Says what is wrong with the host's side of one export: once, and again if it still is after ten minutes. */
export class HostErrorLog {
  readonly #warn: (text: string) => void;
  readonly #saidAt = new Map<string, number>();

  constructor(warn: (text: string) => void) {
    this.#warn = warn;
  }

  /** Reports the error of a reply, if an administrator has to do something about it. `request` describes the request. */
  report(errno: Errno, request: () => string): void {
    if (!meanings.has(errno)) return;
    this.#once(errno.name, () => `${errno.name}: ${meanings.get(errno)}; it was in answer to ${request()}`);
  }

  /** The export's directory has no name any more. */
  rootRemoved(): void {
    const text =
      'its directory was removed from the host: nothing can be made there, and one that is made anew at its path is ' +
      'served after a restart';
    this.#once('removed', () => text);
  }

  /** A record that was not written by a server. `text` is one of a few. */
  badRecord(text: string): void {
    this.#once(text, () => text);
  }

  #once(key: string, text: () => string): void {
    const now = performance.now();
    const last = this.#saidAt.get(key);
    if (last !== undefined && now - last < repeatMsMin) return;
    this.#saidAt.set(key, now);
    this.#warn(text());
  }
}
