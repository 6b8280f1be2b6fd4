import { qidTypeOf, S_IFMT, setU64 } from '#base/attr.ts';
import { EINVAL } from '#base/errno.ts';
import {
  DIRENT_COOKIE,
  DIRENT_NAME,
  DIRENT_NAME_BYTES,
  DIRENT_QID_PATH,
  DIRENT_QID_TYPE,
  DIRENT_QID_VERSION,
  DIRENT_TYPE,
} from '#base/layout.ts';
import type { Bytes } from '#base/name.ts';
import type { Node } from '../tree.ts';

/** Packs whole entries of Rreaddir, for `Tree.readdir`. */
export class DirentPacker {
  readonly #into: Uint8Array;
  #bytes = 0;

  constructor(into: Uint8Array) {
    this.#into = into;
  }

  /** Packs an entry. False if it does not fit. `cookie`: what readdir gets to continue after it; never 0. */
  put(name: Bytes, node: Node, cookie: number): boolean {
    const into = this.#into;
    const bytes = DIRENT_NAME + name.length;
    if (into.length - this.#bytes < bytes) return false;
    const packed = Buffer.from(into.buffer, into.byteOffset + this.#bytes, bytes);
    packed[DIRENT_QID_TYPE] = qidTypeOf(node.type);
    packed.writeUInt32LE(0, DIRENT_QID_VERSION);
    packed.writeUInt32LE(node.pathLow, DIRENT_QID_PATH);
    packed.writeUInt32LE(node.pathHigh, DIRENT_QID_PATH + 4);
    setU64(packed, DIRENT_COOKIE, cookie);
    // DT_* of dirent.h are the type bits of a mode (IFTODT).
    packed[DIRENT_TYPE] = (node.type & S_IFMT) >> 12;
    packed.writeUInt16LE(name.length, DIRENT_NAME_BYTES);
    packed.write(name, DIRENT_NAME, 'latin1');
    this.#bytes += bytes;
    return true;
  }

  /** The result of readdir: the packed bytes. EINVAL if there are none though an entry was left, that is, unless `complete`. */
  end(complete: boolean): number {
    if (!complete && this.#bytes === 0) throw EINVAL;
    return this.#bytes;
  }
}
