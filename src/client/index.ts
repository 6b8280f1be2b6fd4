/** `ninepd/client`: a 9P2000.L client. Loads no native code. */

export * from '#base/errno.ts';
export type { Dirent } from '#protocol/dirent.ts';
export type { Qid } from '#protocol/kinds.ts';
export { type AttrChange, type Attributes, Client, type FileSystem } from './client.ts';
export { type Address, Disconnected, Wire } from './wire.ts';
