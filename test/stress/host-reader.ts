import { lstatSync, readFileSync, readlinkSync } from 'node:fs';
import { getAttributeSync, listAttributesSync } from 'fs-xattr';
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '#base/attr.ts';

/** The attributes of an object that a guest must see. */
export interface Seen {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Devices: major and minor. */
  readonly device?: readonly [number, number];
  /** Symlinks. */
  readonly target?: string;
  readonly content?: Buffer;
  /** The content may be any prefix of it. */
  readonly partial?: true;
  readonly xattr?: string;
}

export type Model = 'mapped' | 'passthrough';

/** The xattr that guests set. */
export const guestXattr = 'user.guest';

/** Whether it is as expected. */
export function same(is: Seen | undefined, wanted: Seen | undefined): boolean {
  if (!is || !wanted) return is === wanted;
  const { content, partial, ...rest } = wanted;
  const { content: found, ...others } = is;
  const plain = (seen: object) => JSON.stringify(Object.entries(seen).sort());
  if (plain(rest) !== plain(others) || (content === undefined) !== (found === undefined)) return false;
  if (!content || !found) return true;
  return partial ? content.subarray(0, found.length).equals(found) : content.equals(found);
}

const isDevice = (mode: number) => (mode & S_IFMT) === S_IFCHR || (mode & S_IFMT) === S_IFBLK;

/** major(3) and minor(3) of glibc's dev_t. */
function deviceOf(rdev: bigint): [number, number] {
  const major = ((rdev >> 32n) & 0xfffff000n) | ((rdev >> 8n) & 0xfffn);
  const minor = ((rdev >> 12n) & 0xffffff00n) | (rdev & 0xffn);
  return [Number(major), Number(minor)];
}

/**
 * Reads an object from the host's disk without code of ninepd: for `mapped` in the format of QEMU's mapped-xattr
 * (hw/9pfs/9p-local.c: local_set_xattr and local_lstat). Throws if an attribute is missing or incomplete.
 */
export function readFromHost(model: Model, path: string): Seen {
  const host = lstatSync(path, { bigint: true });
  const stat = { mode: Number(host.mode), uid: Number(host.uid), gid: Number(host.gid) };
  if (model === 'mapped') return readRecord(path, stat);
  const type = stat.mode & S_IFMT;
  return {
    ...stat,
    ...(isDevice(stat.mode) ? { device: deviceOf(host.rdev) } : {}),
    ...(type === S_IFLNK ? { target: readlinkSync(path) } : {}),
    ...(type === S_IFREG ? { content: readFileSync(path), ...xattrOf(path) } : {}),
  };
}

function xattrOf(path: string): { xattr?: string } {
  const names = listAttributesSync(path);
  return names.includes(guestXattr) ? { xattr: getAttributeSync(path, guestXattr).toString('latin1') } : {};
}

function readRecord(path: string, host: { mode: number; uid: number; gid: number }): Seen {
  const wanted = (host.mode & S_IFMT) === S_IFDIR ? S_IFDIR | 0o700 : S_IFREG | 0o600;
  if (host.mode !== wanted || host.uid !== process.getuid!() || host.gid !== process.getgid!()) {
    throw new Error(`${path} is ${host.mode.toString(8)} of ${host.uid}:${host.gid} on the host`);
  }
  const word = (name: string, bytes = 4) => {
    const value = getAttributeSync(path, `user.virtfs.${name}`);
    if (value.length !== bytes) throw new Error(`user.virtfs.${name} of ${path} has ${value.length} bytes`);
    return bytes === 4 ? BigInt(value.readUInt32LE()) : value.readBigUInt64LE();
  };
  const mode = Number(word('mode'));
  const type = mode & S_IFMT;
  // QEMU's mknod sets it for FIFOs and sockets too.
  const special = ![S_IFREG, S_IFDIR, S_IFLNK].includes(type);
  const known = ['uid', 'gid', 'mode', ...(special ? ['rdev'] : [])].map(name => `user.virtfs.${name}`);
  const strange = listAttributesSync(path).filter(name => !known.includes(name) && name !== guestXattr);
  if (strange.length > 0) throw new Error(`${path} has ${strange}`);
  return {
    mode,
    uid: Number(word('uid')),
    gid: Number(word('gid')),
    ...(isDevice(mode) ? { device: deviceOf(word('rdev', 8)) } : {}),
    ...(type === S_IFLNK ? { target: readFileSync(path, 'latin1') } : {}),
    ...(type === S_IFREG ? { content: readFileSync(path), ...xattrOf(path) } : {}),
  };
}
