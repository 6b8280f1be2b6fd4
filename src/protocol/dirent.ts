import { Reader } from './bytes.ts';
import { type Qid, qid as qidKind, str, type Wide, wide } from './kinds.ts';

/** A directory entry in the data of Rreaddir: qid[13] offset[8] type[1] name[s]. */
export interface Dirent {
  readonly qid: Qid;
  /** Treaddir.offset that continues after this entry. */
  readonly offset: Wide;
  /** DT_*. */
  readonly type: number;
  /** Bytes as latin1. */
  readonly name: string;
}

/** Decodes all entries of a reply's data. Throws Malformed if the last one is truncated. */
export function parseDirents(data: Uint8Array): Dirent[] {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const from = new Reader().open(bytes, 0, bytes.length, bytes.length);
  const entries: Dirent[] = [];
  while (from.at < from.end) {
    const qid = qidKind.read(from);
    const offset = wide.read(from);
    const type = from.u8();
    entries.push({ qid, offset, type, name: str.read(from) });
  }
  return entries;
}
