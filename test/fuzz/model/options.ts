import type { ModelOptions } from './nodes.ts';

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

/** `passthrough` as root. */
export const passthroughOptions: ModelOptions = {
  setGidInherits: true,
  // The kernel validates ACLs and capabilities.
  xattrNames: ['user.a', 'user.b', '', 'trusted.t', 'user.c', 'user.a\0b'],
  users: [0],
  directorySize: undefined,
};
