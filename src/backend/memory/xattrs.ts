import { S_IFDIR, S_IFLNK, S_IFREG } from '#base/attr.ts';
import { E2BIG, EEXIST, ENODATA, EOPNOTSUPP, EPERM, ERANGE } from '#base/errno.ts';
import type { Bytes } from '#base/name.ts';
import { type Credentials, serverCreds } from '#host/syscalls.ts';
import { xattrNameBytesMax, xattrValueBytesMax } from '#quota/limits.ts';
import type { MemoryQuota } from './memory-quota.ts';

/** setxattr(2). */
const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;

/** Bytes counted for an attribute besides its name and value. */
const xattrBytes = 32;

const acls = new Set(['system.posix_acl_access', 'system.posix_acl_default']);

function isRoot(creds: Credentials): boolean {
  return creds.uid === 0 || creds === serverCreds;
}

/** Throws the errno of xattr(7) for a name that an object of this type cannot have. */
export function refuseXattr(name: Bytes, creds: Credentials, use: 'get' | 'set', type: number): void {
  if (name.length === 0 || name.length > xattrNameBytesMax) throw ERANGE;
  if (name.startsWith('user.')) {
    if (type !== S_IFREG && type !== S_IFDIR) throw use === 'get' ? ENODATA : EPERM;
  } else if (name.startsWith('trusted.')) {
    if (!isRoot(creds)) throw use === 'get' ? ENODATA : EPERM;
  } else if (acls.has(name)) {
    if (type === S_IFLNK) throw EOPNOTSUPP;
  } else if (!name.startsWith('security.')) {
    throw EOPNOTSUPP;
  }
}

/** The extended attributes of one object. */
export class Xattrs {
  readonly #values = new Map<Bytes, Uint8Array>();
  readonly #quota: MemoryQuota;

  constructor(quota: MemoryQuota) {
    this.#quota = quota;
  }

  has(name: Bytes): boolean {
    return this.#values.has(name);
  }

  get(name: Bytes): Uint8Array {
    const value = this.#values.get(name);
    if (!value) throw ENODATA;
    return value.slice();
  }

  /** NUL-terminated names; `trusted.` ones for root only. */
  list(creds: Credentials): Uint8Array {
    const names = [...this.#values.keys()].filter(name => isRoot(creds) || !name.startsWith('trusted.'));
    const bytes = Buffer.from(names.map(name => `${name}\0`).join(''), 'latin1');
    if (bytes.length > xattrValueBytesMax) throw E2BIG;
    return bytes;
  }

  set(name: Bytes, value: Uint8Array, flags: number): void {
    if (value.length > xattrValueBytesMax) throw E2BIG;
    const old = this.#values.get(name);
    if (old && flags & XATTR_CREATE) throw EEXIST;
    if (!old && flags & XATTR_REPLACE) throw ENODATA;
    const before = old ? cost(name, old) : 0;
    const now = cost(name, value);
    if (now > before) this.#quota.take(now - before);
    else this.#quota.give(before - now);
    this.#values.set(name, value.slice());
  }

  remove(name: Bytes): void {
    const old = this.#values.get(name);
    if (!old) throw ENODATA;
    this.#values.delete(name);
    this.#quota.give(cost(name, old));
  }

  free(): void {
    for (const [name, value] of this.#values) this.#quota.give(cost(name, value));
    this.#values.clear();
  }
}

function cost(name: Bytes, value: Uint8Array): number {
  return xattrBytes + name.length + value.length;
}
