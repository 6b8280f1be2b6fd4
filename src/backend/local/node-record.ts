import { type Attr, S_IFDIR } from '#base/attr.ts';
import { ESTALE } from '#base/errno.ts';
import { andThen, type MaybePromise, recover } from '#base/maybe-promise.ts';
import type { Submitter, Syscalls } from '#host/syscalls.ts';
import type { ObjectRecord, StoredAttrs, Target } from '#security/model.ts';
import type { DirEntry, LocalNode } from './node.ts';
import type { NodeTable } from './node-table.ts';
import type { RecordedDir, RecordFiles } from './record-files.ts';

/** What a security model gets of a node. */
export class Targets {
  readonly #nodes: NodeTable;
  readonly #files: RecordFiles | undefined;

  constructor(nodes: NodeTable, files: RecordFiles | undefined) {
    this.#nodes = nodes;
    this.#files = files;
  }

  of(submitter: Submitter, node: LocalNode, sys: Syscalls, fd: number): Target {
    return this.#files ? { sys, fd, record: this.record(submitter, node) } : { sys, fd };
  }

  /** Takes the metadata directory out of the links of the directory that is open at `fd`. */
  hideLinks(submitter: Submitter, node: LocalNode, fd: number, attr: Attr): MaybePromise<void> {
    if (!this.#files || attr.type !== S_IFDIR || attr.nlink <= 2) return;
    return this.#files.hideLinks(recordedDir(submitter, this.#nodes, node, fd), attr);
  }

  /** The record of a node; undefined for models without record files. */
  record(submitter: Submitter, node: LocalNode): ObjectRecord | undefined {
    return this.#files && new NodeRecord(submitter, this.#nodes, this.#files, node);
  }
}

export function recordedDir(submitter: Submitter, nodes: NodeTable, dir: LocalNode, fd: number): RecordedDir {
  return { sys: dir.volume.sys(submitter), fd, isRoot: nodes.isRoot(dir) };
}

export function inoOf({ ino }: LocalNode): string {
  return ino.toString(16).padStart(16, '0');
}

/**
 * The record of a node, under the names that are known of it, as long as they are its names. When no name is left that is
 * known (it was unlinked, or renamed by a program of the host), what was last read is what counts, and changes are kept in
 * memory, as long as a client holds the node.
 */
class NodeRecord implements ObjectRecord {
  readonly #submitter: Submitter;
  readonly #nodes: NodeTable;
  readonly #files: RecordFiles;
  readonly #node: LocalNode;

  constructor(submitter: Submitter, nodes: NodeTable, files: RecordFiles, node: LocalNode) {
    this.#submitter = submitter;
    this.#nodes = nodes;
    this.#files = files;
    this.#node = node;
  }

  read(): MaybePromise<StoredAttrs> {
    const node = this.#node;
    if (this.#nodes.isRoot(node))
      return this.#nodes.use(this.#submitter, node, fd =>
        this.#files.readRoot(recordedDir(this.#submitter, this.#nodes, node, fd)),
      );
    const found = this.#first((dir, name) => this.#files.read(dir, name, inoOf(node)));
    return andThen(found, stored => {
      if (stored) node.record = stored;
      return node.record ?? {};
    });
  }

  update(change: (old: StoredAttrs) => StoredAttrs): MaybePromise<void> {
    const node = this.#node;
    if (this.#nodes.isRoot(node))
      return this.#nodes.use(this.#submitter, node, fd =>
        this.#files.updateRoot(recordedDir(this.#submitter, this.#nodes, node, fd), change),
      );
    const changed = this.#first(async (dir, name) => {
      const noting = (old: StoredAttrs) => {
        const stored = change(old);
        node.record = stored;
        return stored;
      };
      return (await this.#files.update(dir, name, inoOf(node), noting)) || undefined;
    });
    return andThen(changed, done => {
      if (!done) node.record = change(node.record ?? {});
    });
  }

  /** The first result of the known names. */
  #first<T>(
    act: (dir: RecordedDir, name: DirEntry['name']) => MaybePromise<T | undefined>,
  ): MaybePromise<T | undefined> {
    const { parent, name, otherNames: others = [] } = this.#node;
    const entries = parent && name !== undefined ? [{ dir: parent, name }, ...others] : [...others];
    const next = (at: number): MaybePromise<T | undefined> => {
      const entry = entries[at];
      if (!entry) return undefined;
      const tried = recover<T | undefined>(
        () =>
          this.#nodes.use(this.#submitter, entry.dir, fd =>
            act(recordedDir(this.#submitter, this.#nodes, entry.dir, fd), entry.name),
          ),
        error => {
          // The directory is gone.
          if (error !== ESTALE) throw error;
          return undefined;
        },
      );
      return andThen(tried, result => result ?? next(at + 1));
    };
    return next(0);
  }
}
