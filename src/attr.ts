/**
 * The attributes of an object as one flat record of bytes: the first 153 are the body of Rgetattr in wire order, so that
 * the shim writes them where they can be sent; behind them lie what only the host knows. Models overlay owner, mode,
 * type and rdev in place.
 *
 * | at  | field | at | field |
 * |-----|-------|----|-------|
 * | 0   | valid u64 | 97  | mtime_nsec u64 |
 * | 8   | qid: type u8, version u32, path u64 | 105 | ctime_sec u64 |
 * | 21  | mode u32 | 113 | ctime_nsec u64 |
 * | 25  | uid u32  | 121 | btime_sec u64 |
 * | 29  | gid u32  | 129 | btime_nsec u64 |
 * | 33  | nlink u64 | 137 | gen u64 |
 * | 41  | rdev u64 (new_encode_dev) | 145 | data_version u64 |
 * | 49  | size u64 | 153 | end of the wire record; 3 bytes of padding |
 * | 57  | blksize u64 | 156 | host device u32 (new_encode_dev) |
 * | 65  | blocks u64 (512 bytes each) | 160 | host inode number u64 |
 * | 73  | atime_sec u64 | 168 | mount id u32 (low half of stx_mnt_id) |
 * | 81  | atime_nsec u64 | 172 | flags u32: 1 = root of a mount |
 * | 89  | mtime_sec u64 | 176 | end |
 */
export const attrBytes = 176;
export const attrWireBytes = 153;

/** Bits of Rgetattr.valid (include/net/9p/9p.h: P9_STATS_*). */
export const validBasic = 0x7ff;
export const validBtime = 0x800;
export const validGen = 0x1000;

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

/** qid.type bits; only these three are used (FIFO, socket and device are plain). */
export const QTDIR = 0x80;
export const QTSYMLINK = 0x02;
export const QTFILE = 0;

export class Attr {
  readonly bytes: Buffer;
  /** What of `bytes` goes over the wire. */
  readonly wire: Uint8Array;

  constructor(bytes: Buffer = Buffer.alloc(attrBytes)) {
    this.bytes = bytes;
    this.wire = bytes.subarray(0, attrWireBytes);
  }

  get qidType(): number {
    return this.bytes[8]!;
  }
  set qidType(type: number) {
    this.bytes[8] = type;
  }
  get qidVersion(): number {
    return this.bytes.readUInt32LE(9);
  }
  set qidVersion(version: number) {
    this.bytes.writeUInt32LE(version, 9);
  }
  /** qid.path as two 32-bit halves: it is only carried, so it never becomes a BigInt. */
  get qidPathLow(): number {
    return this.bytes.readUInt32LE(13);
  }
  get qidPathHigh(): number {
    return this.bytes.readUInt32LE(17);
  }
  setQidPath(low: number, high: number): void {
    this.bytes.writeUInt32LE(low, 13);
    this.bytes.writeUInt32LE(high, 17);
  }
  /** The full st_mode; setting it sets the qid's type too, since the two must agree. */
  get mode(): number {
    return this.bytes.readUInt32LE(21);
  }
  set mode(mode: number) {
    this.bytes.writeUInt32LE(mode, 21);
    this.bytes[8] = qidTypeOf(mode);
  }
  get type(): number {
    return this.mode & S_IFMT;
  }
  get uid(): number {
    return this.bytes.readUInt32LE(25);
  }
  set uid(uid: number) {
    this.bytes.writeUInt32LE(uid, 25);
  }
  get gid(): number {
    return this.bytes.readUInt32LE(29);
  }
  set gid(gid: number) {
    this.bytes.writeUInt32LE(gid, 29);
  }
  get nlink(): number {
    return this.bytes.readUInt32LE(33);
  }
  set nlink(nlink: number) {
    setU64(this.bytes, 33, nlink);
  }
  get rdev(): number {
    return this.bytes.readUInt32LE(41);
  }
  set rdev(rdev: number) {
    this.bytes.writeUInt32LE(rdev, 41);
    this.bytes.writeUInt32LE(0, 45);
  }
  get size(): number {
    return u64(this.bytes, 49);
  }
  set size(size: number) {
    setU64(this.bytes, 49, size);
  }
  get blksize(): number {
    return this.bytes.readUInt32LE(57);
  }
  set blksize(size: number) {
    setU64(this.bytes, 57, size);
  }
  get ctimeSec(): number {
    return u64(this.bytes, 105);
  }
  get ctimeNsec(): number {
    return this.bytes.readUInt32LE(113);
  }
  set gen(gen: number) {
    setU64(this.bytes, 137, gen);
  }
  get gen(): number {
    return this.bytes.readUInt32LE(137);
  }
  /** The host's device number (new_encode_dev). */
  get dev(): number {
    return this.bytes.readUInt32LE(156);
  }
  get inoLow(): number {
    return this.bytes.readUInt32LE(160);
  }
  get inoHigh(): number {
    return this.bytes.readUInt32LE(164);
  }
  get mountId(): number {
    return this.bytes.readUInt32LE(168);
  }
}

export function qidTypeOf(mode: number): number {
  const type = mode & S_IFMT;
  return type === S_IFDIR ? QTDIR : type === S_IFLNK ? QTSYMLINK : QTFILE;
}

/** Reads a u64 as a number; exact below 2^53. */
export function u64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}

export function setU64(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE((value % 0x1_0000_0000) >>> 0, at);
  bytes.writeUInt32LE(Math.floor(value / 0x1_0000_0000) >>> 0, at + 4);
}

/** new_encode_dev of include/linux/kdev_t.h: what the guest's kernel decodes from Rgetattr.rdev. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}
