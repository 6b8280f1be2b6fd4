import { describe, expect, it } from 'vitest';
import { ENOENT } from '../../src/errno.ts';
import { type Op, operations, ops, type TMessage } from '../../src/protocol/operations.ts';
import { lerrorNotation, notation, showFrame, showReply, showRequest } from '../../src/protocol/trace.ts';

/** The messages of 9P2000.L as the manual writes them: number, body of the T-message, body of the R-message. */
const manual: Readonly<Record<Op, readonly [type: number, T: string, R: string]>> = {
  statfs: [8, 'fid[4]', 'type[4] bsize[4] blocks[8] bfree[8] bavail[8] files[8] ffree[8] fsid[8] namelen[4]'],
  lopen: [12, 'fid[4] flags[4]', 'qid[13] iounit[4]'],
  lcreate: [14, 'fid[4] name[s] flags[4] mode[4] gid[4]', 'qid[13] iounit[4]'],
  symlink: [16, 'dfid[4] name[s] symtgt[s] gid[4]', 'qid[13]'],
  mknod: [18, 'dfid[4] name[s] mode[4] major[4] minor[4] gid[4]', 'qid[13]'],
  rename: [20, 'fid[4] dfid[4] name[s]', ''],
  readlink: [22, 'fid[4]', 'target[s]'],
  getattr: [
    24,
    'fid[4] request_mask[8]',
    'valid[8] qid[13] mode[4] uid[4] gid[4] nlink[8] rdev[8] size[8] blksize[8] blocks[8] ' +
      'atime_sec[8] atime_nsec[8] mtime_sec[8] mtime_nsec[8] ctime_sec[8] ctime_nsec[8] ' +
      'btime_sec[8] btime_nsec[8] gen[8] data_version[8]',
  ],
  setattr: [
    26,
    'fid[4] valid[4] mode[4] uid[4] gid[4] size[8] atime_sec[8] atime_nsec[8] mtime_sec[8] mtime_nsec[8]',
    '',
  ],
  xattrwalk: [30, 'fid[4] newfid[4] name[s]', 'size[8]'],
  xattrcreate: [32, 'fid[4] name[s] attr_size[8] flags[4]', ''],
  readdir: [40, 'fid[4] offset[8] count[4]', 'count[4] data[count]'],
  fsync: [50, 'fid[4] datasync[4]', ''],
  lock: [52, 'fid[4] type[1] flags[4] start[8] length[8] proc_id[4] client_id[s]', 'status[1]'],
  getlock: [
    54,
    'fid[4] type[1] start[8] length[8] proc_id[4] client_id[s]',
    'type[1] start[8] length[8] proc_id[4] client_id[s]',
  ],
  link: [70, 'dfid[4] fid[4] name[s]', ''],
  mkdir: [72, 'dfid[4] name[s] mode[4] gid[4]', 'qid[13]'],
  renameat: [74, 'olddirfid[4] oldname[s] newdirfid[4] newname[s]', ''],
  unlinkat: [76, 'dirfid[4] name[s] flags[4]', ''],
  version: [100, 'msize[4] version[s]', 'msize[4] version[s]'],
  auth: [102, 'afid[4] uname[s] aname[s] n_uname[4]', 'aqid[13]'],
  attach: [104, 'fid[4] afid[4] uname[s] aname[s] n_uname[4]', 'qid[13]'],
  flush: [108, 'oldtag[2]', ''],
  walk: [110, 'fid[4] newfid[4] nwname[2] nwname*(wname[s])', 'nwqid[2] nwqid*(wqid[13])'],
  read: [116, 'fid[4] offset[8] count[4]', 'count[4] data[count]'],
  write: [118, 'fid[4] offset[8] count[4] data[count]', 'count[4]'],
  clunk: [120, 'fid[4]', ''],
  remove: [122, 'fid[4]', ''],
};

describe('the table', () => {
  it.each(ops)('has T%s and its reply as the manual has them', op => {
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

  it('says which messages change something', () => {
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

  it('cannot be forged or coloured by what a client sends', () => {
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

  it('shows the bytes of what is no message, and not too many', () => {
    expect(showFrame(Buffer.from('09000000c80500abcd', 'hex'))).toBe('type 200 tag 5 abcd');
    expect(showFrame(Buffer.alloc(8192)).length).toBeLessThan(200);
  });
});
