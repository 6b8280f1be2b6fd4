import { S_IFDIR } from '#base/attr.ts';
import type { Name } from '#base/name.ts';
import type { DirEntry, LocalNode, NodeOwner } from './node.ts';

/** Names kept of one object besides the last; the oldest are dropped. */
const otherNamesMax = 8;

/** The names under which objects were seen: without file handles, evicted nodes are reopened by them. */
export class KnownNames {
  readonly #nodes: NodeOwner;

  constructor(nodes: NodeOwner) {
    this.#nodes = nodes;
  }

  /** Records where the object was seen last. `several`: it may have other names. */
  seen(node: LocalNode, dir: LocalNode | undefined, name: Name | undefined, several: boolean): void {
    if (dir === undefined || name === undefined || dir === node || this.#nodes.isRoot(node)) return;
    const { parent: old, name: oldName } = node;
    if (old === dir && oldName === name) return;
    if (node.otherNames) this.#forget(node, other => !several || isEntry(other, dir, name));
    if (several && node.type !== S_IFDIR && old && oldName !== undefined) this.#addOther(node, old, oldName);
    node.name = name;
    if (old === dir) return;
    if (old) this.#cutCycle(node, dir);
    this.#nodes.hold(dir);
    node.parent = dir;
    if (old) this.#nodes.release(old);
  }

  /** A name of the object was removed. A removed directory keeps its parent, for `..`. */
  removed(node: LocalNode, dir: LocalNode, name: Name): void {
    if (node.otherNames) this.#forget(node, other => isEntry(other, dir, name));
    if (node.parent !== dir || node.name !== name) return;
    const other = node.otherNames?.pop();
    node.name = other?.name;
    if (!other) return;
    node.parent = other.dir;
    this.#nodes.release(dir);
  }

  forgetOthers(node: LocalNode): void {
    this.#forget(node, () => true);
  }

  #forget(node: LocalNode, which: (other: DirEntry) => boolean): void {
    const { otherNames = [] } = node;
    const kept = otherNames.filter(other => !which(other));
    if (kept.length === otherNames.length) return;
    node.otherNames = kept.length > 0 ? kept : undefined;
    for (const other of otherNames) if (which(other)) this.#nodes.release(other.dir);
  }

  #addOther(node: LocalNode, dir: LocalNode, name: Name): void {
    this.#nodes.hold(dir);
    node.otherNames = [...(node.otherNames ?? []), { dir, name }];
    if (node.otherNames.length > otherNamesMax) this.#nodes.release(node.otherNames.shift()!.dir);
  }

  /** If others have moved directories, a stale parent above `parent` may be `node`. */
  #cutCycle(node: LocalNode, parent: LocalNode): void {
    for (let at: LocalNode | undefined = parent; at; at = at.parent) {
      if (at.parent !== node) continue;
      at.parent = undefined;
      this.#nodes.release(node);
      return;
    }
  }
}

function isEntry(entry: DirEntry, dir: LocalNode, name: Name): boolean {
  return entry.dir === dir && entry.name === name;
}
