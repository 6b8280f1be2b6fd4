import { S_IFDIR } from '#base/attr.ts';
import type { Name } from '#base/name.ts';
import type { LocalNode, NodeTable } from './node.ts';

/** A name of an object. The directory is held. */
export interface DirEntry {
  readonly dir: LocalNode;
  readonly name: Name;
}

/** Names of one object that are known besides the one it was last seen under. With more links than that, some are forgotten. */
const othersMax = 8;

/** Under which names objects were seen, by which they are found again where there are no file handles. */
export class KnownNames {
  readonly #nodes: NodeTable;

  constructor(nodes: NodeTable) {
    this.#nodes = nodes;
  }

  /** Notes where the object was just seen; `several` is whether it may have other names. */
  seenAt(node: LocalNode, dir: LocalNode | undefined, name: Name | undefined, several: boolean): void {
    if (dir === undefined || name === undefined || dir === node || this.#nodes.isRoot(node)) return;
    const { parent: old, name: oldName } = node;
    if (old === dir && oldName === name) return;
    if (node.others) this.#forget(node, other => !several || isAt(other, dir, name));
    if (several && node.type !== S_IFDIR && old && oldName !== undefined) this.#noteOther(node, old, oldName);
    node.name = name;
    if (old === dir) return;
    if (old) this.#cutCycle(node, dir);
    this.#nodes.hold(dir);
    node.parent = dir;
    if (old) this.#nodes.release(old);
  }

  /** A name was taken from the object. A directory that was removed still has its parent, for `..`. */
  lost(node: LocalNode, dir: LocalNode, name: Name): void {
    if (node.others) this.#forget(node, other => isAt(other, dir, name));
    if (node.parent !== dir || node.name !== name) return;
    const other = node.others?.pop();
    node.name = other?.name;
    if (!other) return;
    node.parent = other.dir;
    this.#nodes.release(dir);
  }

  forgetOthers(node: LocalNode): void {
    this.#forget(node, () => true);
  }

  #forget(node: LocalNode, which: (other: DirEntry) => boolean): void {
    const { others = [] } = node;
    const rest = others.filter(other => !which(other));
    if (rest.length === others.length) return;
    node.others = rest.length > 0 ? rest : undefined;
    for (const other of others) if (which(other)) this.#nodes.release(other.dir);
  }

  #noteOther(node: LocalNode, dir: LocalNode, name: Name): void {
    this.#nodes.hold(dir);
    node.others = [...(node.others ?? []), { dir, name }];
    if (node.others.length > othersMax) this.#nodes.release(node.others.shift()!.dir);
  }

  /** Directories moved about by others can leave a stale parent above `parent` that leads back to `node`. */
  #cutCycle(node: LocalNode, parent: LocalNode): void {
    for (let at: LocalNode | undefined = parent; at; at = at.parent) {
      if (at.parent !== node) continue;
      at.parent = undefined;
      this.#nodes.release(node);
      return;
    }
  }
}

function isAt(place: DirEntry, dir: LocalNode, name: Name): boolean {
  return place.dir === dir && place.name === name;
}
