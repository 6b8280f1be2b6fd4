import { QidPaths } from './volume.ts';

/** Offsets within a packed 9P directory entry: qid type u8, version u32, path u64; offset u64; type u8; name[s]. */
const pathAt = 5;
const nameLengthAt = 22;
const nameAt = 24;

/**
 * Turns the raw inode numbers of packed directory entries into the qid.paths that getattr gives. `..` of the export's
 * root becomes the root itself. Where inode numbers are qid.paths already, the entries are only looked at.
 */
export function fixListing(
  packed: Buffer,
  bytes: number,
  paths: QidPaths,
  deviceIndex: number,
  root: { readonly pathLow: number; readonly pathHigh: number } | undefined,
): void {
  for (let at = 0; at < bytes; ) {
    const low = packed.readUInt32LE(at + pathAt);
    const high = packed.readUInt32LE(at + pathAt + 4);
    const length = packed.readUInt16LE(at + nameLengthAt);
    if (!QidPaths.isPlain(deviceIndex, high)) {
      const [pathLow, pathHigh] = paths.of(deviceIndex, low, high);
      packed.writeUInt32LE(pathLow, at + pathAt);
      packed.writeUInt32LE(pathHigh, at + pathAt + 4);
    }
    if (root && length === 2 && packed[at + nameAt] === 0x2e && packed[at + nameAt + 1] === 0x2e) {
      packed.writeUInt32LE(root.pathLow, at + pathAt);
      packed.writeUInt32LE(root.pathHigh, at + pathAt + 4);
    }
    at += nameAt + length;
  }
}
