import {
  ATTR_ATIME_SEC,
  ATTR_BLKSIZE,
  ATTR_BLOCKS,
  ATTR_BTIME_SEC,
  ATTR_BYTES,
  ATTR_CTIME_NSEC,
  ATTR_CTIME_SEC,
  ATTR_DEV,
  ATTR_GEN,
  ATTR_GID,
  ATTR_INO,
  ATTR_MODE,
  ATTR_MOUNT_ID,
  ATTR_MTIME_SEC,
  ATTR_NLINK,
  ATTR_QID_PATH,
  ATTR_QID_TYPE,
  ATTR_QID_VERSION,
  ATTR_RDEV,
  ATTR_SIZE,
  ATTR_UID,
  ATTR_VALID,
  ATTR_WIRE_BYTES,
  P9_STATS_BASIC,
  P9_STATS_BTIME,
  P9_STATS_GEN,
  QTDIR,
  QTFILE,
  QTSYMLINK,
} from './layout.ts';

export const S_IFMT = 0o170000;
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o060000;
export const S_IFDIR = 0o040000;
export const S_IFCHR = 0o020000;
export const S_IFIFO = 0o010000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;

/**
 * Counts changes, to order them with requests for attributes: it advances after each change, before the object is read
 * again. Times compare correctly if they are fewer than 2^31 changes apart.
 */
export const changeClock = {
  now: 0,
  tick(): number {
    changeClock.now = (changeClock.now + 1) | 0;
    return changeClock.now;
  },
  isEarlier(time: number, than: number): boolean {
    return ((time - than) | 0) < 0;
  },
};

/** A point in time since 1970, in seconds, which may be negative, and nanoseconds. */
export interface TimeSpec {
  readonly sec: number;
  readonly nsec: number;
}

/**
 * Attributes of an object as a byte record (ATTR_* of layout.ts). It begins with the body of Rgetattr, so what the native addon
 * (native-shims/attr.c) fills is ready to send; fields for the host follow. Security models overwrite owner, mode, type and rdev.
 */
export class Attr {
  readonly bytes: Buffer;
  /** The part of `bytes` that is the body of Rgetattr. */
  readonly wire: Uint8Array;

  /** View of `bytes`; faster than Buffer's methods. */
  readonly view: DataView;

  /** The `changeClock` when the host was asked; the answer may come much later. */
  asked = 0;

  constructor(bytes: Buffer = Buffer.alloc(ATTR_BYTES)) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.wire = bytes.subarray(0, ATTR_WIRE_BYTES);
  }

  /** Sets all fields to zero, and `valid` to the attributes that this class can set. For trees without a host file system. */
  clear(): void {
    this.bytes.fill(0);
    this.valid = P9_STATS_BASIC | P9_STATS_BTIME | P9_STATS_GEN;
  }

  /** P9_STATS_* below 2^31. */
  get valid(): number {
    return this.view.getUint32(ATTR_VALID, true);
  }
  set valid(bits: number) {
    this.view.setUint32(ATTR_VALID, bits, true);
  }
  get qidType(): number {
    return this.bytes[ATTR_QID_TYPE]!;
  }
  set qidType(type: number) {
    this.bytes[ATTR_QID_TYPE] = type;
  }
  get qidVersion(): number {
    return this.view.getUint32(ATTR_QID_VERSION, true);
  }
  set qidVersion(version: number) {
    this.view.setUint32(ATTR_QID_VERSION, version, true);
  }
  /** qid.path as two 32-bit halves, which avoids BigInt: it is never computed with. */
  get qidPathLow(): number {
    return this.view.getUint32(ATTR_QID_PATH, true);
  }
  get qidPathHigh(): number {
    return this.view.getUint32(ATTR_QID_PATH + 4, true);
  }
  setQidPath(low: number, high: number): void {
    this.view.setUint32(ATTR_QID_PATH, low, true);
    this.view.setUint32(ATTR_QID_PATH + 4, high, true);
  }
  /** st_mode with type bits. Setting it also sets qid.type. */
  get mode(): number {
    return this.view.getUint32(ATTR_MODE, true);
  }
  set mode(mode: number) {
    this.view.setUint32(ATTR_MODE, mode, true);
    this.bytes[ATTR_QID_TYPE] = qidTypeOf(mode);
  }
  get type(): number {
    return this.mode & S_IFMT;
  }
  get uid(): number {
    return this.view.getUint32(ATTR_UID, true);
  }
  set uid(uid: number) {
    this.view.setUint32(ATTR_UID, uid, true);
  }
  get gid(): number {
    return this.view.getUint32(ATTR_GID, true);
  }
  set gid(gid: number) {
    this.view.setUint32(ATTR_GID, gid, true);
  }
  get nlink(): number {
    return this.view.getUint32(ATTR_NLINK, true);
  }
  set nlink(nlink: number) {
    setU64(this.bytes, ATTR_NLINK, nlink);
  }
  get rdev(): number {
    return this.view.getUint32(ATTR_RDEV, true);
  }
  set rdev(rdev: number) {
    this.view.setUint32(ATTR_RDEV, rdev, true);
    this.view.setUint32(ATTR_RDEV + 4, 0, true);
  }
  get size(): number {
    return u64(this.bytes, ATTR_SIZE);
  }
  set size(size: number) {
    setU64(this.bytes, ATTR_SIZE, size);
  }
  get blksize(): number {
    return this.view.getUint32(ATTR_BLKSIZE, true);
  }
  set blksize(size: number) {
    setU64(this.bytes, ATTR_BLKSIZE, size);
  }
  /** st_blocks, in bytes. */
  get blockBytes(): number {
    return u64(this.bytes, ATTR_BLOCKS) * 512;
  }
  set blockBytes(bytes: number) {
    setU64(this.bytes, ATTR_BLOCKS, Math.ceil(bytes / 512));
  }
  set atime(time: TimeSpec) {
    setTime(this.bytes, ATTR_ATIME_SEC, time);
  }
  set mtime(time: TimeSpec) {
    setTime(this.bytes, ATTR_MTIME_SEC, time);
  }
  set ctime(time: TimeSpec) {
    setTime(this.bytes, ATTR_CTIME_SEC, time);
  }
  /** Time of creation. */
  set btime(time: TimeSpec) {
    setTime(this.bytes, ATTR_BTIME_SEC, time);
  }
  /** Negative before 1970. */
  get mtimeSec(): number {
    return i64(this.bytes, ATTR_MTIME_SEC);
  }
  get ctimeSec(): number {
    return i64(this.bytes, ATTR_CTIME_SEC);
  }
  get ctimeSecLow(): number {
    return this.view.getUint32(ATTR_CTIME_SEC, true);
  }
  get ctimeNsec(): number {
    return this.view.getUint32(ATTR_CTIME_NSEC, true);
  }
  set gen(gen: number) {
    setU64(this.bytes, ATTR_GEN, gen);
  }
  get gen(): number {
    return this.view.getUint32(ATTR_GEN, true);
  }
  /** The host's device number (new_encode_dev). */
  get dev(): number {
    return this.view.getUint32(ATTR_DEV, true);
  }
  set ino(ino: number) {
    setU64(this.bytes, ATTR_INO, ino);
  }
  get inoLow(): number {
    return this.view.getUint32(ATTR_INO, true);
  }
  get inoHigh(): number {
    return this.view.getUint32(ATTR_INO + 4, true);
  }
  get mountId(): number {
    return this.view.getUint32(ATTR_MOUNT_ID, true);
  }
}

export function qidTypeOf(mode: number): number {
  const type = mode & S_IFMT;
  return type === S_IFDIR ? QTDIR : type === S_IFLNK ? QTSYMLINK : QTFILE;
}

/** Reads a little-endian u64 as a number; exact below 2^53. */
export function u64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}

function i64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readInt32LE(at + 4) * 0x1_0000_0000;
}

export function setU64(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE((value % 0x1_0000_0000) >>> 0, at);
  bytes.writeUInt32LE(Math.floor(value / 0x1_0000_0000) >>> 0, at + 4);
}

/** Writes seconds u64 and nanoseconds u64. */
function setTime(bytes: Buffer, at: number, { sec, nsec }: TimeSpec): void {
  setU64(bytes, at, sec);
  setU64(bytes, at + 8, nsec);
}

/** new_encode_dev of include/linux/kdev_t.h, the encoding of Rgetattr.rdev. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** Hash of ctime and size. Never 0, since it serves as qid.version, and 0 turns the client's caching off. */
export function stampOf(attr: Attr): number {
  const { view } = attr;
  let h = Math.imul(view.getUint32(ATTR_CTIME_SEC, true) ^ 0x9e3779b9, 0x85ebca6b);
  h = Math.imul((h ^ (h >>> 15)) + view.getUint32(ATTR_CTIME_NSEC, true), 0xc2b2ae35);
  h = Math.imul((h ^ (h >>> 13)) + view.getUint32(ATTR_SIZE, true), 0x27d4eb2f);
  h = Math.imul((h ^ (h >>> 16)) + view.getUint32(ATTR_SIZE + 4, true), 0x165667b1);
  h = (h ^ (h >>> 15)) >>> 0;
  return h === 0 ? 1 : h;
}
