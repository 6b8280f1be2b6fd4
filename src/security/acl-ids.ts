import { EINVAL } from '#base/errno.ts';
import type { Bytes } from '#base/name.ts';

/** The xattrs with a POSIX ACL: acl(5). */
export const aclXattrs: ReadonlySet<Bytes> = new Set(['system.posix_acl_access', 'system.posix_acl_default']);

/**
 * Layout of system.posix_acl_*: version u32, then entries of tag u16, permissions u16 and id u32, all little-endian
 * (include/uapi/linux/posix_acl_xattr.h).
 */
const version = 2;
const headBytes = 4;
const entryBytes = 8;
const idAt = 4;
const ACL_USER = 0x02;
const ACL_GROUP = 0x08;

/** A copy of an ACL with its user and group ids mapped. Throws EINVAL for an invalid ACL. */
export function mapAcl(
  value: Uint8Array,
  user: (id: number) => number,
  group: (id: number) => number,
): Uint8Array {
  const acl = Buffer.from(value);
  const whole = acl.length >= headBytes && (acl.length - headBytes) % entryBytes === 0;
  if (!whole || acl.readUInt32LE(0) !== version) throw EINVAL;
  for (let at = headBytes; at < acl.length; at += entryBytes) {
    const tag = acl.readUInt16LE(at);
    const id = acl.readUInt32LE(at + idAt);
    if (tag === ACL_USER) acl.writeUInt32LE(user(id), at + idAt);
    else if (tag === ACL_GROUP) acl.writeUInt32LE(group(id), at + idAt);
  }
  return acl;
}
