/* Attributes in the layout in which they are sent (ATTR_* and STATFS_* of shared.h). */
#include "syscalls.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>

static void put_time(uint8_t *at, struct statx_timestamp time) {
  put64(at, (uint64_t)time.tv_sec);
  put64(at + 8, time.tv_nsec);
}

/* Distinguishes uses of an inode number, by a hash of the birth time; 0 if the file system has none. */
static uint32_t generation(const struct statx *st) {
  if (!(st->stx_mask & STATX_BTIME)) return 0;
  uint64_t time = (uint64_t)st->stx_btime.tv_sec * 1000000000 + st->stx_btime.tv_nsec;
  return (uint32_t)((time * 0x9e3779b97f4a7c15) >> 32);
}

static void put_attr(uint8_t *at, const struct statx *st) {
  mode_t type = st->stx_mode & S_IFMT;
  put64(at + ATTR_VALID, P9_STATS_BASIC | P9_STATS_GEN | (st->stx_mask & STATX_BTIME ? P9_STATS_BTIME : 0));
  at[ATTR_QID_TYPE] = type == S_IFDIR ? QTDIR : type == S_IFLNK ? QTSYMLINK : QTFILE;
  put32(at + ATTR_QID_VERSION, 0);
  put64(at + ATTR_QID_PATH, st->stx_ino);
  put32(at + ATTR_MODE, st->stx_mode);
  put32(at + ATTR_UID, st->stx_uid);
  put32(at + ATTR_GID, st->stx_gid);
  put64(at + ATTR_NLINK, st->stx_nlink);
  put64(at + ATTR_RDEV, encode_device(st->stx_rdev_major, st->stx_rdev_minor));
  put64(at + ATTR_SIZE, st->stx_size);
  put64(at + ATTR_BLKSIZE, st->stx_blksize);
  put64(at + ATTR_BLOCKS, st->stx_blocks);
  put_time(at + ATTR_ATIME_SEC, st->stx_atime);
  put_time(at + ATTR_MTIME_SEC, st->stx_mtime);
  put_time(at + ATTR_CTIME_SEC, st->stx_ctime);
  put_time(at + ATTR_BTIME_SEC, st->stx_btime);
  put64(at + ATTR_GEN, generation(st));
  put64(at + ATTR_DATA_VERSION, 0);
  memset(at + ATTR_WIRE_BYTES, 0, ATTR_DEV - ATTR_WIRE_BYTES);
  put32(at + ATTR_DEV, encode_device(st->stx_dev_major, st->stx_dev_minor));
  put64(at + ATTR_INO, st->stx_ino);
  put32(at + ATTR_MOUNT_ID, st->stx_mask & STATX_MNT_ID ? (uint32_t)st->stx_mnt_id : 0);
}

static int64_t stat_into(const struct call *c, const char *name, int flags) {
  struct statx st;
  if (c->segment->iov_len < ATTR_BYTES) return -EINVAL;
  int64_t done = RESULT(statx(c->number[0], name, flags, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, &st));
  if (done == 0) put_attr(c->segment->iov_base, &st);
  return done;
}

int64_t sys_stat(const struct call *c) {
  return stat_into(c, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | c->number[1]);
}

int64_t sys_stat_at(const struct call *c) {
  return stat_into(c, c->text[0], AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | c->number[1]);
}

/* Blocks are in units of f_frsize, or of f_bsize where a file system leaves it 0 (statfs(2)). */
int64_t sys_statfs(const struct call *c) {
  struct statfs fs;
  uint8_t *at = c->segment->iov_base;
  if (c->segment->iov_len < STATFS_BYTES) return -EINVAL;
  int64_t done = RESULT(fstatfs(c->number[0], &fs));
  if (done != 0) return done;
  put32(at + STATFS_TYPE, (uint32_t)fs.f_type);
  put32(at + STATFS_BSIZE, (uint32_t)(fs.f_frsize ? fs.f_frsize : fs.f_bsize));
  put64(at + STATFS_BLOCKS, fs.f_blocks);
  put64(at + STATFS_BFREE, fs.f_bfree);
  put64(at + STATFS_BAVAIL, fs.f_bavail);
  put64(at + STATFS_FILES, fs.f_files);
  put64(at + STATFS_FFREE, fs.f_ffree);
  put32(at + STATFS_FSID, (uint32_t)fs.f_fsid.__val[0]);
  put32(at + STATFS_FSID + 4, (uint32_t)fs.f_fsid.__val[1]);
  put32(at + STATFS_NAMELEN, (uint32_t)fs.f_namelen);
  return 0;
}
