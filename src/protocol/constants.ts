/** Constants of 9P2000.L on the wire (include/net/9p/9p.h). They may differ from the host's. */

export const NOTAG = 0xffff;
export const NOFID = 0xffff_ffff;
export const dialect = '9P2000.L';

/** Tlopen and Tlcreate flags (P9_DOTL_*). */
export const P9_WRONLY = 0o1;
export const P9_RDWR = 0o2;
export const P9_NOACCESS = 0o3;
export const P9_ACCESS_MASK = 0o3;
export const P9_EXCL = 0o200;
export const P9_TRUNC = 0o1000;
export const P9_APPEND = 0o2000;
export const P9_DSYNC = 0o10000;
export const P9_DIRECTORY = 0o200000;
export const P9_SYNC = 0o4000000;

/** Tgetattr.request_mask. */
export const P9_STATS_ALL = 0x3fff;

/** Tsetattr.valid (P9_ATTR_*). */
export const P9_ATTR_MODE = 0x001;
export const P9_ATTR_UID = 0x002;
export const P9_ATTR_GID = 0x004;
export const P9_ATTR_SIZE = 0x008;
export const P9_ATTR_ATIME = 0x010;
export const P9_ATTR_MTIME = 0x020;
export const P9_ATTR_CTIME = 0x040;
export const P9_ATTR_ATIME_SET = 0x080;
export const P9_ATTR_MTIME_SET = 0x100;

/** Lock types, Tlock.flags and Rlock.status (P9_LOCK_*). */
export const P9_LOCK_RDLCK = 0;
export const P9_LOCK_WRLCK = 1;
export const P9_LOCK_UNLCK = 2;
export const P9_LOCK_BLOCK = 1;
export const P9_LOCK_RECLAIM = 2;
export const P9_LOCK_SUCCESS = 0;
export const P9_LOCK_BLOCKED = 1;

/** Tunlinkat.flags: the value of Linux's AT_REMOVEDIR. */
export const P9_AT_REMOVEDIR = 0x200;

/** Txattrcreate.flags (setxattr(2)). */
export const P9_XATTR_CREATE = 1;
export const P9_XATTR_REPLACE = 2;

/** Types of directory entries (d_type of readdir(3)). */
export const DT_UNKNOWN = 0;
export const DT_DIR = 4;
export const DT_REG = 8;
export const DT_LNK = 10;

/** Rstatfs.type (include/uapi/linux/magic.h): tells the guest's programs that this is a network file system without inotify. */
export const V9FS_MAGIC = 0x01021997;

/** size[4] type[1] tag[2]. */
export const headerBytes = 7;
/** Bytes before the data of Rread and Rreaddir: header and count[4]. */
export const dataReplyHeadBytes = 11;
/** Bytes before the data of Twrite: header, fid[4], offset[8], count[4]. */
export const writeHeadBytes = 23;
