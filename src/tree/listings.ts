import { type Answer, andThen } from '../answer.ts';
import { Attr } from '../attr.ts';
import { READDIR_HID } from '../host/constants.ts';
import { serverCaller } from '../host/syscalls.ts';
import type { Owned } from '../owned.ts';
import type { SecurityModel } from '../security/model.ts';
import { EntryTypes, type Exceptions } from './entry-types.ts';
import type { Leftovers } from './leftovers.ts';
import { fixListing } from './listing.ts';
import type { NodeTable } from './local-node.ts';
import type { LocalOpen, OpenTable } from './open-file.ts';

/** For listings of models that keep no types of their own. */
const noExceptions: Exceptions = new Map();
const noAttr = new Attr();

/** Entries of open directories, as `Tree.readdir` and `readdirNow` return them. */
export class Listings {
  readonly #nodes: NodeTable;
  readonly #opens: OpenTable;
  readonly #model: SecurityModel;
  readonly #leftovers: Leftovers;
  readonly #types = new EntryTypes();

  constructor(nodes: NodeTable, opens: OpenTable, model: SecurityModel, leftovers: Leftovers) {
    this.#nodes = nodes;
    this.#opens = opens;
    this.#model = model;
    this.#leftovers = leftovers;
  }

  read(dir: LocalOpen, cookieLow: number, cookieHigh: number, into: Owned): Answer<number> {
    const { sys } = dir.node.volume;
    const { ownPrefix, typeXattr } = this.#model;
    const attr = new Attr();
    const described =
      typeXattr === '' ? undefined : this.#opens.use(dir, fd => sys.stat(serverCaller, fd, attr));
    return andThen(described, () => {
      const known = typeXattr === '' ? noExceptions : this.#types.of(dir.node, attr);
      const read = this.#opens.use(dir, fd =>
        sys.readdir(serverCaller, fd, cookieLow, cookieHigh, into, ownPrefix, known ? '' : typeXattr),
      );
      return andThen(read, result => this.#listed(dir, cookieLow, cookieHigh, into, result, attr, known));
    });
  }

  readNow(dir: LocalOpen, cookieLow: number, cookieHigh: number, into: Uint8Array): number | undefined {
    const { inline: sys, fd, node } = dir;
    if (!sys) return undefined;
    const { ownPrefix, typeXattr } = this.#model;
    const attr = typeXattr === '' ? noAttr : node.volume.statNow(fd);
    const known = typeXattr === '' ? noExceptions : this.#types.of(node, attr);
    const xattr = known ? '' : typeXattr;
    const result = sys.readdir(serverCaller, fd, cookieLow, cookieHigh, into, ownPrefix, xattr);
    return this.#listed(dir, cookieLow, cookieHigh, into, result, attr, known);
  }

  /**
   * Completes the `result` of a readdir(2) into `into`, and returns its bytes. `attr` are the directory's attributes from before;
   * `known` are the types that it was not asked for.
   */
  #listed(
    dir: LocalOpen,
    cookieLow: number,
    cookieHigh: number,
    into: Uint8Array,
    result: number,
    attr: Attr,
    known: Exceptions | undefined,
  ): number {
    const { node } = dir;
    const packed = Buffer.from(into.buffer, into.byteOffset, into.byteLength);
    const bytes = result & ~READDIR_HID;
    if (bytes !== result) {
      void this.#opens.use(dir, fd =>
        this.#leftovers.clearPart(node.volume.sys, fd, cookieLow, cookieHigh, into.byteLength),
      );
    }
    if (!known) this.#types.learn(dir, attr, cookieLow, cookieHigh, packed, bytes);
    const root = this.#nodes.isRoot(node) ? node : undefined;
    fixListing(packed, bytes, this.#nodes.volumes.paths, node.volume, root, known);
    return bytes;
  }
}
