/** ninepd as a library: a server to embed, a client, and what a backend of one's own implements. */
export type { Answer } from './answer.ts';
export { Attr } from './attr.ts';
export { Client } from './client/client.ts';
export * from './errno.ts';
export type { ExportOptions, SecurityModelName } from './exports.ts';
export type { Logger } from './log.ts';
export { type Bytes, type Name, nameOf } from './name.ts';
export type { SecurityModel } from './security/model.ts';
export { Server, type ServerOptions } from './server.ts';
export { StartFaults } from './start-faults.ts';
export { LocalTree, type LocalTreeParts } from './tree/local-tree.ts';
export type * from './tree/tree.ts';
