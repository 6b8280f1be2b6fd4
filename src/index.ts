/** ninepd as a library: a server to embed, a client, and the interfaces of a backend. */

export * from '#backend/kit/index.ts';
export { LocalTree, type LocalTreeParts } from '#backend/local/local-tree.ts';
export { MemoryTree } from '#backend/memory/memory-tree.ts';
export { ConfigError } from '#base/config-error.ts';
export type { Logger } from '#base/log.ts';
export { Client } from '#client/client.ts';
export { type Address, Disconnected, Wire } from '#client/wire.ts';
export type { AccessOptions } from '#exports/access.ts';
export type { ExportOptions, GuestOptions, TreeExport } from '#exports/exports.ts';
export type { MakeTree, TreeModuleContext } from '#exports/tree-module.ts';
export type { Syscalls } from '#host/syscalls.ts';
export { defaultLimits, type Limits } from '#quota/limits.ts';
export { extendModel } from '#security/extend.ts';
export { type MappedOptions, mapped } from '#security/mapped.ts';
export type {
  GuestForm,
  HostForm,
  ObjectRecord,
  RecordFileNames,
  SecurityModel,
  StoredAttrs,
  Target,
} from '#security/model.ts';
export type { ModelOptions, SecurityModelName } from '#security/models.ts';
export { type NoneOptions, none } from '#security/none.ts';
export type { Owner } from '#security/owner.ts';
export { type GroupsOf, type PassthroughOptions, passthrough } from '#security/passthrough.ts';
export { type IdOptions, withIds } from '#security/squash.ts';
export { Server, type ServerOptions } from './server.ts';
