import type { Dirent } from '#protocol/dirent.ts';

function packDirent({ qid, offset, type, name }: Dirent): Buffer {
  const bytes = Buffer.alloc(24 + name.length);
  bytes.writeUInt8(qid.type, 0);
  bytes.writeUInt32LE(qid.version, 1);
  bytes.writeUInt32LE(qid.pathLow, 5);
  bytes.writeUInt32LE(qid.pathHigh, 9);
  bytes.writeUInt32LE(offset.low, 13);
  bytes.writeUInt32LE(offset.high, 17);
  bytes.writeUInt8(type, 21);
  bytes.writeUInt16LE(name.length, 22);
  bytes.write(name, 24, 'latin1');
  return bytes;
}

/** The data of Rreaddir with these entries: qid[13] offset[8] type[1] name[s] each. */
export function packDirents(entries: readonly Dirent[]): Buffer {
  return Buffer.concat(entries.map(packDirent));
}
