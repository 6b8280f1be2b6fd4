import { Attr } from '#base/attr.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import type { Owned } from '#base/owned.ts';
import { READDIR_HID } from '#host/constants.ts';
import { serverCreds } from '#host/syscalls.ts';
import type { SecurityModel } from '#security/model.ts';
import type { CallContext } from '../tree.ts';
import { hideRegularTypes, translateDirents } from './dirents.ts';
import { DTypeCache, type DTypes, keyOf } from './dtype-cache.ts';
import { recordedDir } from './node-record.ts';
import type { NodeTable } from './node-table.ts';
import type { LocalOpen, OpenTable } from './open-file.ts';
import type { Orphans } from './orphans.ts';

/** For models without types of their own. */
const noExceptions: DTypes = new Map();
const noAttr = new Attr();

/** Implements `Tree.readdir` and `readdirNow`. */
export class DirReader {
  readonly #nodes: NodeTable;
  readonly #opens: OpenTable;
  readonly #model: SecurityModel;
  readonly #orphans: Orphans;
  readonly #types = new DTypeCache();
  /** Names to leave out, as `Syscalls.readdir` takes them. */
  readonly #hide: Bytes;

  constructor(nodes: NodeTable, opens: OpenTable, model: SecurityModel, orphans: Orphans) {
    this.#nodes = nodes;
    this.#opens = opens;
    this.#model = model;
    this.#orphans = orphans;
    const { reservedPrefix, recordFiles } = model;
    this.#hide = recordFiles
      ? `${reservedPrefix}/${recordFiles.directory}/${recordFiles.root}`
      : reservedPrefix;
  }

  read(
    ctx: CallContext,
    dir: LocalOpen,
    cookieLow: number,
    cookieHigh: number,
    into: Owned,
  ): MaybePromise<number> {
    const sys = dir.node.volume.sys(ctx);
    const { typeXattr } = this.#model;
    const attr = new Attr();
    const described =
      typeXattr === '' ? undefined : this.#opens.use(dir, fd => sys.stat(serverCreds, fd, attr));
    return andThen(described, () => {
      const known = typeXattr === '' ? noExceptions : this.#types.of(dir.node, attr);
      const read = this.#opens.use(dir, fd =>
        sys.readdir(serverCreds, fd, cookieLow, cookieHigh, into, this.#hide, known ? '' : typeXattr),
      );
      return andThen(read, result => this.#listed(dir, cookieLow, cookieHigh, into, result, attr, known));
    });
  }

  readNow(dir: LocalOpen, cookieLow: number, cookieHigh: number, into: Uint8Array): number | undefined {
    const { inline: sys, fd, node } = dir;
    if (!sys) return undefined;
    const { typeXattr } = this.#model;
    const attr = typeXattr === '' ? noAttr : node.volume.statNow(fd);
    const known = typeXattr === '' ? noExceptions : this.#types.of(node, attr);
    const xattr = known ? '' : typeXattr;
    const result = sys.readdir(serverCreds, fd, cookieLow, cookieHigh, into, this.#hide, xattr);
    return this.#listed(dir, cookieLow, cookieHigh, into, result, attr, known);
  }

  /**
   * Completes the entries that `Syscalls.readdir` has packed with this `result`, and returns their bytes. `attr`: the directory's
   * attributes before. `known`: the cached types, if the call has not read them.
   */
  #listed(
    dir: LocalOpen,
    cookieLow: number,
    cookieHigh: number,
    into: Uint8Array,
    result: number,
    attr: Attr,
    known: DTypes | undefined,
  ): number {
    const { node } = dir;
    const packed = Buffer.from(into.buffer, into.byteOffset, into.byteLength);
    const bytes = result & ~READDIR_HID;
    if (bytes !== result) {
      void this.#opens.use(dir, fd =>
        this.#orphans.clearPart(node.volume.sys(dir.session), fd, cookieLow, cookieHigh, into.byteLength),
      );
    }
    if (this.#model.recordFiles && cookieLow === 0 && cookieHigh === 0) {
      void this.#opens.use(dir, fd =>
        this.#orphans.clearRecords(keyOf(node), recordedDir(dir.session, this.#nodes, node, fd)),
      );
    }
    if (!known) this.#types.learn(dir, attr, cookieLow, cookieHigh, packed, bytes);
    const root = this.#nodes.isRoot(node) ? node : undefined;
    translateDirents(packed, bytes, this.#nodes.volumes.paths, node.volume, root, known);
    if (this.#model.typesMissing) hideRegularTypes(packed, bytes);
    return bytes;
  }
}
