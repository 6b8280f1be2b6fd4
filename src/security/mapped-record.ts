import { EACCES, ENODATA, EOPNOTSUPP, EPERM, ERANGE, Errno } from '#base/errno.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { allocOwned } from '#base/owned.ts';
import { serverCreds } from '#host/syscalls.ts';
import type { Target } from './model.ts';

/**
 * The record of a mapped object, in the format of QEMU's `mapped-xattr`: four extended attributes of the host's object, each a
 * little-endian integer of a fixed length. Where one is absent, the host's own attribute counts.
 *
 * | attribute | bytes | meaning |
 * |---|---|---|
 * | user.virtfs.uid, user.virtfs.gid | 4 | the client's owner |
 * | user.virtfs.mode | 4 | the whole st_mode, type included |
 * | user.virtfs.rdev | 8 | dev_t of a device |
 */
export const recordPrefix: Bytes = 'user.virtfs.';
export const modeXattr: Bytes = 'user.virtfs.mode';

export type Field = 'uid' | 'gid' | 'mode' | 'rdev';

/** Logs an attribute of the wrong length, which is treated as absent. */
export type Warn = (text: string) => void;

/** Errors of getxattr(2) that count as absent, as in QEMU. */
const absent = new Set([ENODATA, EOPNOTSUPP, EPERM, EACCES].map(errno => -errno.code));

/** A field's value; undefined if it is absent, of the wrong length, or −1 (QEMU's "unset"). */
export function readField(target: Target, field: Field, warn: Warn): MaybePromise<number | undefined> {
  const bytes = allocOwned(8);
  const expected = field === 'rdev' ? 8 : 4;
  return andThen(target.sys.getxattr(serverCreds, target.fd, recordPrefix + field, bytes), length => {
    if (length === expected) {
      const value = bytes.readUInt32LE(0);
      const unset = value === 0xffff_ffff && (expected === 4 || bytes.readUInt32LE(4) === 0xffff_ffff);
      return unset ? undefined : value;
    }
    if (absent.has(length)) return undefined;
    if (length >= 0 || length === -ERANGE.code) {
      warn(
        `${recordPrefix}${field} has ${length >= 0 ? length : 'more than 8'} bytes instead of ${expected}: ignored`,
      );
      return undefined;
    }
    throw Errno.of(-length);
  });
}

export function writeField(target: Target, field: Field, value: number): MaybePromise<void> {
  const bytes = allocOwned(field === 'rdev' ? 8 : 4);
  bytes.writeUInt32LE(value, 0);
  if (field === 'rdev') bytes.writeUInt32LE(0, 4);
  return target.sys.setxattr(serverCreds, target.fd, recordPrefix + field, bytes, 0);
}
