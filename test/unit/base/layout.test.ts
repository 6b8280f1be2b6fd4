import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import * as layout from '#base/layout.ts';
import { layoutOf } from '#host/addon.ts';
import { Reader } from '#protocol/bytes.ts';
import { parseDirents } from '#protocol/dirent.ts';
import { attr, type Fields, qid, statfs } from '#protocol/kinds.ts';

const generator = new URL('../../../native-shims/shared.mjs', import.meta.url).href;

/** Offsets of a record's fields as the codec reads them, named as in layout.ts. */
function offsetsOf(prefix: string, fields: Fields): [string, number][] {
  const from = new Reader().open(Buffer.alloc(256), 0, 256, 256);
  return Object.entries(fields).flatMap(([field, kind]): [string, number][] => {
    const { at } = from;
    kind.read(from);
    const name = `${prefix}_${field.toUpperCase()}`;
    if (kind !== qid) return [[name, at]];
    return [
      [`${name}_TYPE`, at],
      [`${name}_VERSION`, at + 1],
      [`${name}_PATH`, at + 5],
    ];
  });
}

describe('the layouts that C and TypeScript share', () => {
  it('are generated from the table as it is now', async () => {
    const { generatedFiles } = (await import(generator)) as { generatedFiles(): Record<string, string> };
    const files = Object.entries(generatedFiles());
    expect(files).toHaveLength(3);
    for (const [path, text] of files)
      expect(readFileSync(path, 'utf8'), `${path}: run node native-shims/build.mjs`).toBe(text);
  });

  it('have no field that the addon does not export', () => {
    expect(layoutOf('bytes')).toBeGreaterThan(0);
    expect(() => layoutOf('none')).toThrow(/layout of none: rebuild it/);
  });

  it.each([
    ['ATTR', attr.fields, layout.ATTR_WIRE_BYTES],
    ['STATFS', statfs.fields, layout.STATFS_BYTES],
  ] as const)('have the offsets of the codec: %s', (prefix, fields, end) => {
    expect(layout).toMatchObject(Object.fromEntries(offsetsOf(prefix, fields)));
    const from = new Reader().open(Buffer.alloc(256), 0, 256, 256);
    for (const kind of Object.values(fields)) kind.read(from);
    expect(from.at).toBe(end);
  });

  it('have the offsets of the codec: DIRENT', () => {
    const bytes = Buffer.alloc(layout.DIRENT_NAME + 3);
    bytes[layout.DIRENT_QID_TYPE] = 1;
    bytes.writeUInt32LE(2, layout.DIRENT_QID_VERSION);
    bytes.writeUInt32LE(3, layout.DIRENT_QID_PATH);
    bytes.writeUInt32LE(4, layout.DIRENT_QID_PATH + 4);
    bytes.writeUInt32LE(5, layout.DIRENT_COOKIE);
    bytes.writeUInt32LE(6, layout.DIRENT_COOKIE + 4);
    bytes[layout.DIRENT_TYPE] = 7;
    bytes.writeUInt16LE(3, layout.DIRENT_NAME_BYTES);
    bytes.write('abc', layout.DIRENT_NAME);
    expect(parseDirents(bytes)).toEqual([
      {
        qid: { type: 1, version: 2, pathLow: 3, pathHigh: 4 },
        offset: { low: 5, high: 6 },
        type: 7,
        name: 'abc',
      },
    ]);
  });
});
