import type { OpenDir, OpenFile } from '../tree.ts';
import type { MemoryNode } from './memory-node.ts';

/** An open file or directory. Holds its node until it is closed. */
export class MemoryOpen implements OpenFile, OpenDir {
  readonly node: MemoryNode;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly append: boolean;
  closed = false;

  constructor(node: MemoryNode, readable: boolean, writable: boolean, append = false) {
    this.node = node;
    this.readable = readable;
    this.writable = writable;
    this.append = append;
  }
}
