import type { StoredAttrs } from './model.ts';

/**
 * The text of a record file, in the format of QEMU's `mapped-file`: lines of a field and a decimal C `int`, which for ids and
 * numbers above 2^31 − 1 is negative. Fields that are absent or −1 are the host's own.
 *
 *     virtfs.uid=1000
 *     virtfs.gid=1000
 *     virtfs.mode=33188     the whole st_mode, type included
 *     virtfs.rdev=259       devices only; new_encode_dev
 *
 * As in QEMU, the last of equal fields counts, and lines of other fields are ignored, and lost when the record is written.
 */
const fields = ['uid', 'gid', 'mode', 'rdev'] as const;
const line = /^virtfs\.(uid|gid|mode|rdev)=\s*([+-]?[0-9]{1,10})/;

/** QEMU writes 80 bytes at most. */
export const recordBytesMax = 4096;

/** Undefined when the text has no line of a record. */
export function parseRecord(text: string): StoredAttrs | undefined {
  const attrs: { -readonly [field in keyof StoredAttrs]: StoredAttrs[field] } = {};
  let any = text === '';
  for (const one of text.split('\n')) {
    const [, field, digits] = line.exec(one) ?? [];
    if (field === undefined) continue;
    const value = Number(digits);
    if (value < -0x8000_0000 || value > 0xffff_ffff) continue;
    any = true;
    attrs[field as keyof StoredAttrs] = value === -1 || value === 0xffff_ffff ? undefined : value >>> 0;
  }
  return any ? attrs : undefined;
}

export function formatRecord(attrs: StoredAttrs): string {
  return fields
    .filter(field => attrs[field] !== undefined)
    .map(field => `virtfs.${field}=${attrs[field]! | 0}\n`)
    .join('');
}
