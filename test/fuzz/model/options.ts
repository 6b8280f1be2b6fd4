import type { ModelOptions, User } from './nodes.ts';

/** `mapped` on a directory of the host. */
export const mappedOptions: ModelOptions = {
  setGidInherits: false,
  xattrNames: [
    ...['user.a', 'user.b', '', 'trusted.t', 'security.capability', 'security.s', 'system.posix_acl_access'],
    ...['system.other', 'none', 'user.a\0b'],
  ],
  users: [1000, 0, 0xffff_ffff],
  directorySize: undefined,
};

/** `none` with a server of this user. The kernel validates ACLs. */
export function noneOptions(server: User): ModelOptions {
  return {
    setGidInherits: true,
    xattrNames: ['user.a', 'user.b', '', 'trusted.t', 'security.s', 'system.other', 'none', 'user.a\0b'],
    users: [1000, 0, 0xffff_ffff],
    directorySize: undefined,
    server,
  };
}

/** `passthrough` as root. */
export const passthroughOptions: ModelOptions = {
  setGidInherits: true,
  // The kernel validates ACLs and capabilities.
  xattrNames: ['user.a', 'user.b', '', 'trusted.t', 'user.c', 'user.a\0b'],
  users: [0],
  directorySize: undefined,
};
