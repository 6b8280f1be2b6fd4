/** ninepd as a library: a server to embed, a client, and what a backend of one's own implements. */
export type { Answer } from './answer.ts';
export { Attr } from './attr.ts';
export { Client } from './client/client.ts';
export { type Address, Disconnected, Wire } from './client/wire.ts';
export * from './errno.ts';
export type { ExportOptions, SecurityModelName, TreeExport } from './exports.ts';
export type { Caller, Segments, Time } from './host/syscalls.ts';
export type { Logger } from './log.ts';
export { type Bytes, type Name, nameOf } from './name.ts';
export { type MappedOptions, mapped } from './security/mapped.ts';
export type { SecurityModel, Shape, Target, Want } from './security/model.ts';
export { type GroupsOf, passthrough } from './security/passthrough.ts';
export { Server, type ServerOptions } from './server.ts';
export { StartFaults } from './start-faults.ts';
export { LocalTree, type LocalTreeParts } from './tree/local-tree.ts';
export { MemoryTree } from './tree/memory-tree.ts';
export type * from './tree/tree.ts';
export { stampOf } from './tree/tree.ts';
