import {
  DIRENT_NAME,
  DIRENT_NAME_BYTES,
  DIRENT_QID_PATH,
  DIRENT_QID_TYPE,
  DIRENT_TYPE,
  QTFILE,
  QTSYMLINK,
} from '#base/layout.ts';
import { DT_LNK, DT_REG, DT_UNKNOWN } from '#protocol/constants.ts';
import type { DTypes } from './dtype-cache.ts';
import { QidPaths } from './qid-paths.ts';
import type { Volume } from './volume.ts';

/** Makes the type of regular files unknown. A client then asks for the attributes: readdir(3). */
export function hideRegularTypes(packed: Buffer, bytes: number): void {
  for (let at = 0; at < bytes; at += DIRENT_NAME + packed.readUInt16LE(at + DIRENT_NAME_BYTES))
    if (packed[at + DIRENT_TYPE] === DT_REG) packed[at + DIRENT_TYPE] = DT_UNKNOWN;
}

/**
 * Replaces the inode numbers of packed directory entries by qid.paths, as in getattr, and the types of those in `exceptions`.
 * `..` of the export's root becomes the root. Returns at once where nothing can differ.
 */
export function translateDirents(
  packed: Buffer,
  bytes: number,
  paths: QidPaths,
  { index, smallInos }: Volume,
  root: { readonly pathLow: number; readonly pathHigh: number } | undefined,
  exceptions: DTypes | undefined,
): void {
  const types = exceptions && exceptions.size > 0 ? exceptions : undefined;
  if (smallInos && index === 0 && !root && !types) return;
  for (let at = 0; at < bytes; ) {
    const low = packed.readUInt32LE(at + DIRENT_QID_PATH);
    const high = packed.readUInt32LE(at + DIRENT_QID_PATH + 4);
    const length = packed.readUInt16LE(at + DIRENT_NAME_BYTES);
    if (types && packed[at + DIRENT_TYPE] === DT_REG) {
      const type = types.get(high * 0x1_0000_0000 + low);
      if (type !== undefined) {
        packed[at + DIRENT_TYPE] = type;
        packed[at + DIRENT_QID_TYPE] = type === DT_LNK ? QTSYMLINK : QTFILE;
      }
    }
    if (!QidPaths.isPlain(index, high)) {
      const [pathLow, pathHigh] = paths.of(index, low, high);
      packed.writeUInt32LE(pathLow, at + DIRENT_QID_PATH);
      packed.writeUInt32LE(pathHigh, at + DIRENT_QID_PATH + 4);
    }
    if (root && length === 2 && packed[at + DIRENT_NAME] === 0x2e && packed[at + DIRENT_NAME + 1] === 0x2e) {
      packed.writeUInt32LE(root.pathLow, at + DIRENT_QID_PATH);
      packed.writeUInt32LE(root.pathHigh, at + DIRENT_QID_PATH + 4);
    }
    at += DIRENT_NAME + length;
  }
}
