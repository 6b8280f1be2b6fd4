/**
 * Attributes of an object as a flat byte record. The first 153 bytes are the body of Rgetattr in wire order, so that the native
 * addon (native-shims/attr.c) writes bytes that are ready to send; host-only fields follow. Security models overwrite owner,
 * mode, type and rdev in place.
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
const attrBytes = 176;
export const attrWireBytes = 153;

/** Bits of Rgetattr.valid (P9_STATS_* of include/net/9p/9p.h). */
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

/** qid.type; FIFOs, sockets and devices have QTFILE. */
export const QTDIR = 0x80;
export const QTSYMLINK = 0x02;
const QTFILE = 0;

/**
 * Orders requests for attributes among changes: it moves on after every change, before the object is looked at again. Times that
 * are fewer than 2^31 changes apart can be compared.
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

export class Attr {
  readonly bytes: Buffer;
  /** The part of `bytes` that is the body of Rgetattr. */
  readonly wire: Uint8Array;

  /** View of `bytes`; faster than Buffer's methods. */
  readonly view: DataView;

  /** When the host was asked for them, by `changeClock`: the answer may come much later. */
  asked = 0;

  constructor(bytes: Buffer = Buffer.alloc(attrBytes)) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.wire = bytes.subarray(0, attrWireBytes);
  }

  get qidType(): number {
    return this.bytes[8]!;
  }
  set qidType(type: number) {
    this.bytes[8] = type;
  }
  get qidVersion(): number {
    return this.view.getUint32(9, true);
  }
  set qidVersion(version: number) {
    this.view.setUint32(9, version, true);
  }
  /** qid.path as two 32-bit halves, which avoids BigInt: it is never computed with. */
  get qidPathLow(): number {
    return this.view.getUint32(13, true);
  }
  get qidPathHigh(): number {
    return this.view.getUint32(17, true);
  }
  setQidPath(low: number, high: number): void {
    this.view.setUint32(13, low, true);
    this.view.setUint32(17, high, true);
  }
  /** st_mode with type bits. Setting it also sets qid.type. */
  get mode(): number {
    return this.view.getUint32(21, true);
  }
  set mode(mode: number) {
    this.view.setUint32(21, mode, true);
    this.bytes[8] = qidTypeOf(mode);
  }
  get type(): number {
    return this.mode & S_IFMT;
  }
  get uid(): number {
    return this.view.getUint32(25, true);
  }
  set uid(uid: number) {
    this.view.setUint32(25, uid, true);
  }
  get gid(): number {
    return this.view.getUint32(29, true);
  }
  set gid(gid: number) {
    this.view.setUint32(29, gid, true);
  }
  get nlink(): number {
    return this.view.getUint32(33, true);
  }
  set nlink(nlink: number) {
    setU64(this.bytes, 33, nlink);
  }
  get rdev(): number {
    return this.view.getUint32(41, true);
  }
  set rdev(rdev: number) {
    this.view.setUint32(41, rdev, true);
    this.view.setUint32(45, 0, true);
  }
  get size(): number {
    return u64(this.bytes, 49);
  }
  set size(size: number) {
    setU64(this.bytes, 49, size);
  }
  get blksize(): number {
    return this.view.getUint32(57, true);
  }
  set blksize(size: number) {
    setU64(this.bytes, 57, size);
  }
  /** st_blocks, in bytes. */
  get blockBytes(): number {
    return u64(this.bytes, 65) * 512;
  }
  /** Negative before 1970. */
  get mtimeSec(): number {
    return i64(this.bytes, 89);
  }
  get ctimeSec(): number {
    return i64(this.bytes, 105);
  }
  get ctimeSecLow(): number {
    return this.view.getUint32(105, true);
  }
  get ctimeNsec(): number {
    return this.view.getUint32(113, true);
  }
  set gen(gen: number) {
    setU64(this.bytes, 137, gen);
  }
  get gen(): number {
    return this.view.getUint32(137, true);
  }
  /** The host's device number (new_encode_dev). */
  get dev(): number {
    return this.view.getUint32(156, true);
  }
  get inoLow(): number {
    return this.view.getUint32(160, true);
  }
  get inoHigh(): number {
    return this.view.getUint32(164, true);
  }
  get mountId(): number {
    return this.view.getUint32(168, true);
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

/** new_encode_dev of include/linux/kdev_t.h, the encoding of Rgetattr.rdev. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}
