/* Attributes, written where they can be sent: src/base/attr.ts has the layout. */
#include "syscalls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>

enum { ATTR_BYTES = 176, STATFS_BYTES = 60, VALID_BASIC = 0x7ff, VALID_BTIME = 0x800, VALID_GEN = 0x1000 };
enum { QT_DIR = 0x80, QT_SYMLINK = 0x02 };

static void put_time(uint8_t *at, struct statx_timestamp time) {
  put64(at, (uint64_t)time.tv_sec);
  put64(at + 8, time.tv_nsec);
}

/* Tells a reused inode number from the one before it. 0 where the file system keeps no birth time. */
static uint32_t generation(const struct statx *st) {
  if (!(st->stx_mask & STATX_BTIME)) return 0;
  uint64_t time = (uint64_t)st->stx_btime.tv_sec * 1000000000 + st->stx_btime.tv_nsec;
  return (uint32_t)((time * 0x9e3779b97f4a7c15) >> 32);
}

static void put_attr(uint8_t *at, const struct statx *st) {
  mode_t type = st->stx_mode & S_IFMT;
  put64(at, VALID_BASIC | VALID_GEN | (st->stx_mask & STATX_BTIME ? VALID_BTIME : 0));
  at[8] = type == S_IFDIR ? QT_DIR : type == S_IFLNK ? QT_SYMLINK : 0;
  put32(at + 9, 0);
  put64(at + 13, st->stx_ino);
  put32(at + 21, st->stx_mode);
  put32(at + 25, st->stx_uid);
  put32(at + 29, st->stx_gid);
  put64(at + 33, st->stx_nlink);
  put64(at + 41, encode_device(st->stx_rdev_major, st->stx_rdev_minor));
  put64(at + 49, st->stx_size);
  put64(at + 57, st->stx_blksize);
  put64(at + 65, st->stx_blocks);
  put_time(at + 73, st->stx_atime);
  put_time(at + 89, st->stx_mtime);
  put_time(at + 105, st->stx_ctime);
  put_time(at + 121, st->stx_btime);
  put64(at + 137, generation(st));
  put64(at + 145, 0);
  put32(at + 153, 0);
  put32(at + 156, encode_device(st->stx_dev_major, st->stx_dev_minor));
  put64(at + 160, st->stx_ino);
  put32(at + 168, st->stx_mask & STATX_MNT_ID ? (uint32_t)st->stx_mnt_id : 0);
  put32(at + 172, st->stx_attributes & STATX_ATTR_MOUNT_ROOT ? 1 : 0);
}

static int64_t stat_into(const struct call *c, const char *name, int flags) {
  struct statx st;
  if (c->segment->iov_len < ATTR_BYTES) return -EINVAL;
  int64_t done = RESULT(statx(c->number[0], name, flags, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, &st));
  if (done == 0) put_attr(c->segment->iov_base, &st);
  return done;
}

int64_t sys_stat(const struct call *c) { return stat_into(c, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | c->number[1]); }

int64_t sys_stat_at(const struct call *c) {
  return stat_into(c, c->text[0], AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | c->number[1]);
}

/* Blocks are counted in units of f_frsize; the few file systems that leave it 0 mean f_bsize (statfs(2)). */
int64_t sys_statfs(const struct call *c) {
  struct statfs fs;
  uint8_t *at = c->segment->iov_base;
  if (c->segment->iov_len < STATFS_BYTES) return -EINVAL;
  int64_t done = RESULT(fstatfs(c->number[0], &fs));
  if (done != 0) return done;
  put32(at, (uint32_t)fs.f_type);
  put32(at + 4, (uint32_t)(fs.f_frsize ? fs.f_frsize : fs.f_bsize));
  put64(at + 8, fs.f_blocks);
  put64(at + 16, fs.f_bfree);
  put64(at + 24, fs.f_bavail);
  put64(at + 32, fs.f_files);
  put64(at + 40, fs.f_ffree);
  put32(at + 48, (uint32_t)fs.f_fsid.__val[0]);
  put32(at + 52, (uint32_t)fs.f_fsid.__val[1]);
  put32(at + 56, (uint32_t)fs.f_namelen);
  return 0;
}
