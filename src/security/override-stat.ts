import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK } from '#base/attr.ts';
import { EACCES, ENODATA, EOPNOTSUPP, EPERM, ERANGE, Errno } from '#base/errno.ts';
import { noId } from '#base/ids.ts';
import { andThen, type MaybePromise } from '#base/maybe-promise.ts';
import type { Bytes } from '#base/name.ts';
import { allocOwned } from '#base/owned.ts';
import { serverCreds } from '#host/syscalls.ts';
import type { Warn } from './mapped-record.ts';
import type { Target } from './model.ts';

/**
 * The xattr by which Podman (containers/storage, pkg/idtools) and libkrun (virtio/fs/macos) keep what a container sees of a file:
 *
 *     UID:GID:MODE[:TYPE]
 *
 * UID and GID are decimal, MODE is octal. TYPE, which libkrun leaves out, is file, dir, symlink, pipe, socket, block-MAJOR-MINOR or
 * char-MAJOR-MINOR, and may be longer in the future. libkrun's MODE has the type in it, and `x` is a number that it does not know.
 */
export const overrideXattr: Bytes = 'user.containers.override_stat';

/** Longer than any value of today: two ids, a mode and a device. */
const valueBytesMax = 128;

export interface OverrideStat {
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  /** Permission bits, and S_IFMT if the value has a type. */
  readonly mode?: number | undefined;
  /** new_encode_dev. */
  readonly rdev?: number | undefined;
}

const none: OverrideStat = {};
const absent = new Set([ENODATA, EOPNOTSUPP, EPERM, EACCES].map(errno => -errno.code));

/** The types by their words. A symlink has no user xattrs, so a file that is said to be one stays a file. */
const types = new Map([
  ['file', S_IFREG],
  ['dir', S_IFDIR],
  ['symlink', 0],
  ['pipe', S_IFIFO],
  ['socket', S_IFSOCK],
  ['block', S_IFBLK],
  ['char', S_IFCHR],
]);

/** What the xattr of an object says; nothing if there is none or a malformed one. */
export function readOverrideStat(target: Target, warn: Warn): MaybePromise<OverrideStat> {
  const bytes = allocOwned(valueBytesMax);
  return andThen(target.sys.getxattr(serverCreds, target.fd, overrideXattr, bytes), length => {
    if (absent.has(length)) return none;
    if (length < 0 && length !== -ERANGE.code) throw Errno.of(-length);
    const found = length < 0 ? undefined : parseOverrideStat(bytes.toString('latin1', 0, length));
    if (!found) warn(`${overrideXattr} of a file is malformed: ignored`);
    return found ?? none;
  });
}

/** Undefined for a malformed value. */
export function parseOverrideStat(text: string): OverrideStat | undefined {
  const [, uid, gid, bits, type = ''] =
    /^(x|[0-9]{1,10}):(x|[0-9]{1,10}):(x|[0-7]{1,7})(?::(.*))?$/s.exec(text.replace(/\0$/, '')) ?? [];
  if (uid === undefined || gid === undefined || bits === undefined) return undefined;
  const ids = [uid, gid].map(id => (id === 'x' ? undefined : Number(id)));
  if (ids.some(id => id !== undefined && id >= noId)) return undefined;
  const [word = '', major, minor] = type.split(/[-:]/);
  const kind = type === '' ? 0 : types.get(word);
  if (kind === undefined) return undefined;
  const mode = bits === 'x' ? undefined : Number.parseInt(bits, 8);
  const owner = { uid: ids[0], gid: ids[1] };
  if (kind !== S_IFCHR && kind !== S_IFBLK)
    return { ...owner, mode: mode === undefined ? undefined : (kind || mode & S_IFMT) | (mode & 0o7777) };
  const rdev = encodeDevice(Number(major ?? Number.NaN), Number(minor ?? Number.NaN));
  return rdev === undefined || mode === undefined
    ? undefined
    : { ...owner, mode: kind | (mode & 0o7777), rdev };
}

/** new_encode_dev of linux/kdev_t.h: 12 bits of major, 20 of minor. */
function encodeDevice(major: number, minor: number): number | undefined {
  if (!(major >= 0 && major < 2 ** 12 && minor >= 0 && minor < 2 ** 20)) return undefined;
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}
