import { describe, expect, it } from 'vitest';
import { ENOENT } from '#base/errno.ts';
import { operations, ops, type TMessage } from '#protocol/operations.ts';
import { showFrame, showReply, showRequest } from '#protocol/trace.ts';
import { lerrorNotation, manual, notation } from './manual.ts';

describe('the table', () => {
  it.each(ops)('has T%s and its reply as in the manual', op => {
    const [type, T, R] = manual[op];
    expect(operations[op].type).toBe(type);
    expect(notation(op)).toEqual({
      T: `size[4] T${op} tag[2] ${T}`.trimEnd(),
      R: `size[4] R${op} tag[2] ${R}`.trimEnd(),
    });
  });

  it('has every message of the manual, and Rlerror', () => {
    expect([...ops].sort()).toEqual(Object.keys(manual).sort());
    expect(lerrorNotation).toBe('size[4] Rlerror tag[2] ecode[4]');
  });

  it('marks the mutating messages', () => {
    const changing = ops.filter(op => 'mutates' in operations[op]);
    expect([...changing].sort()).toEqual([
      'lcreate',
      'link',
      'mkdir',
      'mknod',
      'remove',
      'rename',
      'renameat',
      'setattr',
      'symlink',
      'unlinkat',
      'write',
      'xattrcreate',
    ]);
  });
});

describe('a trace', () => {
  const walk = (...wname: string[]) => ({ fid: 1, newfid: 2, wname }) as unknown as TMessage<'walk'>;

  it('shows a message with its fields', () => {
    expect(showRequest('walk', 4, walk('bc'))).toBe('Twalk tag 4 fid 1 newfid 2 wname 1 "bc"');
    expect(showRequest('walk', 4, walk())).toBe('Twalk tag 4 fid 1 newfid 2 wname 0');
    expect(showRequest('getattr', 1, { fid: 1, request_mask: { low: 0x3fff, high: 0 } })).toBe(
      'Tgetattr tag 1 fid 1 request_mask 0x3fff',
    );
    expect(showReply('walk', 4, { wqid: [{ type: 0x80, version: 7, pathLow: 16, pathHigh: 1 }] })).toBe(
      'Rwalk tag 4 wqid 1 (80 7 0x100000010)',
    );
    expect(showReply('clunk', 9, {})).toBe('Rclunk tag 9');
    expect(showReply('clunk', 9, ENOENT)).toBe('Rlerror tag 9 ENOENT (2)');
  });

  it('escapes the client’s bytes', () => {
    const shown = showRequest('walk', 4, walk('a"b\\\n\x1b[31m\xff'));
    expect(shown).toBe('Twalk tag 4 fid 1 newfid 2 wname 1 "a\\x22b\\x5c\\x0a\\x1b[31m\\xff"');
  });

  it('abbreviates data and long strings', () => {
    const bytes = Buffer.alloc(100_000, 'x');
    const write = { fid: 1, offset: 0, data: { count: bytes.length, bytes } };
    expect(showRequest('write', 1, write)).toBe(
      `Twrite tag 1 fid 1 offset 0 data 100000 "${'x'.repeat(32)}"…`,
    );
    expect(showRequest('write', 1, { ...write, data: { count: 3 } })).toBe(
      'Twrite tag 1 fid 1 offset 0 data 3',
    );
    expect(showReply('readlink', 1, { target: '\n'.repeat(4000) }).length).toBeLessThan(1300);
  });

  it('shows the attributes of a reply by name', () => {
    const attr = Buffer.alloc(176);
    attr.writeUInt32LE(0o100644, 21);
    attr.writeBigInt64LE(-1n, 73);
    const shown = showReply('getattr', 1, { attr });
    expect(shown).toContain('mode 0100644 uid 0 gid 0 nlink 0');
    expect(shown).toContain('atime_sec -1 ');
  });

  it('shows a truncated hex dump of a frame that is not a message', () => {
    expect(showFrame(Buffer.from('09000000c80500abcd', 'hex'))).toBe('type 200 tag 5 abcd');
    expect(showFrame(Buffer.alloc(8192)).length).toBeLessThan(200);
  });
});
