/* System calls on descriptors and single names. README.md has the reason for each. */
#include "syscalls.h"
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int fds_of_server = -1;

static void do_open_proc_fds(void) {
  fds_of_server = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

void open_proc_fds(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, do_open_proc_fds);
}

int proc_fds(void) {
  return in_child() ? -1 : fds_of_server;
}

static int64_t open_beneath(int dirfd, const char *name, int flags, mode_t mode, int32_t resolve) {
  struct open_how how = {
      .flags = (uint32_t)flags,
      .mode = mode,
      .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | (uint32_t)resolve,
  };
  return RESULT(syscall(SYS_openat2, dirfd, name, &how, sizeof how));
}

int64_t sys_lookup(const struct call *c) {
  return open_beneath(c->number[0], c->text[0], O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, c->number[1]);
}

static bool is_regular(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

/*
 * O_NONBLOCK, so that opening a FIFO or device does not block. For a regular file, -EAGAIN means a lease (F_SETLEASE
 * of fcntl(2)) that has to be broken first; with number[2], that is waited for.
 */
int64_t sys_reopen(const struct call *c) {
  struct proc_path path = proc_path(c->number[0]);
  int from = proc_fds(), flags = c->number[1] | O_CLOEXEC | O_NOCTTY;
  int64_t fd = RESULT(openat(from, name_from(from, &path), flags | O_NONBLOCK));
  if (fd != -EAGAIN || !c->number[2] || !is_regular(c->number[0])) return fd;
  return RESULT(openat(from, name_from(from, &path), flags));
}

int64_t sys_create(const struct call *c) {
  int flags = c->number[1] | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  return open_beneath(c->number[0], c->text[0], flags, (mode_t)c->number[2] & 07777, 0);
}

int64_t sys_create_unnamed(const struct call *c) {
  return RESULT(openat(c->number[0], ".", O_TMPFILE | O_RDWR | O_CLOEXEC, (mode_t)c->number[1] & 07777));
}

/*
 * What close(2) may have to do: CLOSE_REMOVED if the object has no name, and freeing it is quick; CLOSE_LARGE if it has more than
 * `bytes`, by size or blocks, to free or write; else 0. Closing an O_PATH descriptor of an object that has a name does nothing.
 */
static int64_t cost_of_close(int fd, uint64_t bytes) {
  enum { SECTOR_BYTES = 512 };
  struct statx st;
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_NLINK | STATX_SIZE | STATX_BLOCKS, &st) != 0)
    return CLOSE_LARGE;
  bool large = st.stx_size > bytes || st.stx_blocks > bytes / SECTOR_BYTES;
  if (st.stx_nlink == 0) return large ? CLOSE_LARGE : CLOSE_REMOVED;
  return large && !(fcntl(fd, F_GETFL) & O_PATH) ? CLOSE_LARGE : 0;
}

/*
 * With number[1], returns CLOSE_* without closing if `cost_of_close` of so many bytes is not 0. Otherwise returns 0
 * whatever close(2) says: the descriptor is closed in any case, and EINTR must not be retried.
 */
int64_t sys_close(const struct call *c) {
  int64_t left = c->number[1] > 0 ? cost_of_close(c->number[0], (uint64_t)c->number[1]) : 0;
  if (left == 0) close(c->number[0]);
  return left;
}

int64_t sys_mkdir(const struct call *c) {
  return RESULT(mkdirat(c->number[0], c->text[0], (mode_t)c->number[1]));
}

int64_t sys_mknod(const struct call *c) {
  return RESULT(mknodat(c->number[0], c->text[0], (mode_t)c->number[1], device_of((uint32_t)c->number[2])));
}

int64_t sys_symlink(const struct call *c) {
  return RESULT(symlinkat(c->text[1], c->number[0], c->text[0]));
}

/* Not AT_EMPTY_PATH, which needs CAP_DAC_READ_SEARCH (linkat(2)). */
int64_t sys_link(const struct call *c) {
  struct proc_path path = proc_path(c->number[0]);
  int from = proc_fds();
  return RESULT(linkat(from, name_from(from, &path), c->number[1], c->text[0], AT_SYMLINK_FOLLOW));
}

int64_t sys_rename(const struct call *c) {
  return RESULT(renameat2(c->number[0], c->text[0], c->number[1], c->text[1], (unsigned)c->number[2]));
}

int64_t sys_unlink(const struct call *c) {
  return RESULT(unlinkat(c->number[0], c->text[0], c->number[1] ? AT_REMOVEDIR : 0));
}

int64_t sys_readlink(const struct call *c) {
  return RESULT(readlinkat(c->number[0], "", c->segment[0].iov_base, c->segment[0].iov_len));
}

/* fchmodat2(2) is of Linux 6.6. Both fail with EOPNOTSUPP for a symlink. */
int64_t sys_chmod(const struct call *c) {
  int64_t done = RESULT(syscall(CALL_FCHMODAT2, c->number[0], "", (mode_t)c->number[1], AT_EMPTY_PATH));
  if (done != -ENOSYS) return done;
  return RESULT(chmod(proc_path(c->number[0]).text, (mode_t)c->number[1]));
}

int64_t sys_chown(const struct call *c) {
  return RESULT(fchownat(c->number[0], "", (uid_t)c->number[1], (gid_t)c->number[2], AT_EMPTY_PATH));
}

/* Seconds passed as a double, clamped to time_t. */
static time_t seconds_of(double value) {
  if (value >= 0x1p63) return INT64_MAX;
  return value >= -0x1p63 ? (time_t)value : INT64_MIN;
}

int64_t sys_utimens(const struct call *c) {
  struct timespec times[2] = {
      {.tv_sec = seconds_of(c->wide[0]), .tv_nsec = c->number[1]},
      {.tv_sec = seconds_of(c->wide[1]), .tv_nsec = c->number[2]},
  };
  return RESULT(utimensat(c->number[0], "", times, AT_EMPTY_PATH));
}

int64_t sys_ftruncate(const struct call *c) {
  off_t size = offset_of(c->wide[0]);
  return size < 0 ? size : RESULT(ftruncate(c->number[0], size));
}

int64_t sys_truncate(const struct call *c) {
  off_t size = offset_of(c->wide[0]);
  return size < 0 ? size : RESULT(truncate(proc_path(c->number[0]).text, size));
}

int64_t sys_read(const struct call *c) {
  off_t at = offset_of(c->wide[0]);
  if (at < 0) return at;
  if (c->segment_count == 1) return RESULT(pread(c->number[0], c->segment->iov_base, c->segment->iov_len, at));
  return RESULT(preadv(c->number[0], c->segment, c->segment_count, at));
}

/*
 * A read that ends short at a page boundary has reached a page that is not in memory, or the end of the file: a
 * second read tells. One that ends short elsewhere has reached the end of the file.
 */
int64_t sys_read_cached(const struct call *c) {
  enum { PAGE_BYTES = 4096 };
  off_t at = offset_of(c->wide[0]);
  uint8_t byte;
  struct iovec probe = {&byte, 1};
  size_t wanted = 0;
  if (at < 0) return at;
  for (int i = 0; i < c->segment_count; i++) wanted += c->segment[i].iov_len;
  int64_t got = RESULT(preadv2(c->number[0], c->segment, c->segment_count, at, RWF_NOWAIT));
  if (got <= 0 || (size_t)got == wanted || (at + got) % PAGE_BYTES != 0) return got;
  int64_t more = RESULT(preadv2(c->number[0], &probe, 1, at + got, RWF_NOWAIT));
  return more == 0 ? got : more < 0 ? more : -EAGAIN;
}

int64_t sys_write(const struct call *c) {
  off_t at = offset_of(c->wide[0]);
  if (at < 0) return at;
  if (c->segment_count == 1) return RESULT(pwrite(c->number[0], c->segment->iov_base, c->segment->iov_len, at));
  return RESULT(pwritev(c->number[0], c->segment, c->segment_count, at));
}

int64_t sys_duplicate(const struct call *c) {
  return RESULT(fcntl(c->number[0], F_DUPFD_CLOEXEC, 3));
}

int64_t sys_fsync(const struct call *c) {
  return RESULT(c->number[1] ? fdatasync(c->number[0]) : fsync(c->number[0]));
}
