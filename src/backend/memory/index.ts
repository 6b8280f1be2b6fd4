/** `ninepd/memory`: a tree in memory, to be exported by a server. Loads no native code. */

export { MemoryTree, type MemoryTreeOptions } from './memory-tree.ts';
