import { type Fields, notationOf } from '#protocol/kinds.ts';
import { lerror, type Op, operations } from '#protocol/operations.ts';

/** The messages of 9P2000.L in the manual's notation: type, body of the T-message, body of the R-message. */
export const manual: Readonly<Record<Op, readonly [type: number, T: string, R: string]>> = {
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

function row(letter: 'T' | 'R', op: string, fields: Fields): string {
  return `size[4] ${letter}${op} tag[2] ${notationOf(fields)}`.trimEnd();
}

/** A row of `operations` in the manual's notation: `size[4] Tclunk tag[2] fid[4]`. */
export function notation(op: Op): { readonly T: string; readonly R: string } {
  return { T: row('T', op, operations[op].T), R: row('R', op, operations[op].R) };
}

export const lerrorNotation = row('R', 'lerror', lerror.R);
