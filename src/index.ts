/** ninepd as a library: a server to embed, a client, and the interfaces of a backend. */

export { LocalTree, type LocalTreeParts } from '#backend/local/local-tree.ts';
export { MemoryTree } from '#backend/memory/memory-tree.ts';
export type * from '#backend/tree.ts';
export { Attr, stampOf } from '#base/attr.ts';
export { ConfigError } from '#base/config-error.ts';
export * from '#base/errno.ts';
export type { Logger } from '#base/log.ts';
export type { MaybePromise } from '#base/maybe-promise.ts';
export { type Bytes, type Name, nameOf } from '#base/name.ts';
export {
  allocOwned,
  asOwned,
  copyOwned,
  type Owned,
  type OwnedSegments,
  type Segments,
} from '#base/owned.ts';
export { Client } from '#client/client.ts';
export { type Address, Disconnected, Wire } from '#client/wire.ts';
export type { AccessOptions } from '#exports/access.ts';
export type { ExportOptions, GuestOptions, TreeExport } from '#exports/exports.ts';
export type { Credentials, Submitter, Time } from '#host/syscalls.ts';
export { defaultLimits, type Limits } from '#quota/limits.ts';
export { type MappedOptions, mapped } from '#security/mapped.ts';
export type { GuestForm, HostForm, SecurityModel, Target } from '#security/model.ts';
export type { ModelOptions, SecurityModelName } from '#security/models.ts';
export { type NoneOptions, none } from '#security/none.ts';
export { type GroupsOf, passthrough } from '#security/passthrough.ts';
export { type IdOptions, withIds } from '#security/squash.ts';
export { Server, type ServerOptions } from './server.ts';
