/*
 * Extended attributes by descriptor. f*xattr(2) is three times as fast as a path through /proc/self/fd, but refuses
 * O_PATH descriptors (EBADF), as do the *xattrat(2) calls of Linux 6.13 with an empty path.
 */
#include "syscalls.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

/* struct xattr_args of include/uapi/linux/xattr.h, which older headers lack. */
struct xattr_arguments {
  uint64_t value;
  uint32_t size, flags;
};

/* Of both calls, which are of the same kernel version. */
static atomic_bool missing;

static int64_t call_at(int number, int dirfd, const char *name, int flags, const char *xattr,
                       struct xattr_arguments *args) {
  if (missing) return -ENOSYS;
  int64_t result = RESULT(syscall(number, dirfd, name, flags, xattr, args, sizeof *args));
  if (result == -ENOSYS) missing = true;
  return result;
}

/* getxattrat(2); -ENOSYS before Linux 6.13. */
int64_t getxattr_at(int dirfd, const char *name, int flags, const char *xattr, void *into, size_t bytes) {
  struct xattr_arguments args = {.value = (uintptr_t)into, .size = (uint32_t)bytes};
  return call_at(CALL_GETXATTRAT, dirfd, name, flags, xattr, &args);
}

int64_t sys_getxattr(const struct call *c) {
  void *into = c->segment->iov_base;
  size_t bytes = c->segment->iov_len;
  int64_t got = RESULT(fgetxattr(c->number[0], c->text[0], into, bytes));
  if (got != -EBADF) return got;
  struct proc_path path = proc_path(c->number[0]);
  int from = proc_fds();
  got = getxattr_at(from, name_from(from, &path), 0, c->text[0], into, bytes);
  return got == -ENOSYS ? RESULT(getxattr(path.text, c->text[0], into, bytes)) : got;
}

int64_t sys_listxattr(const struct call *c) {
  int64_t got = RESULT(flistxattr(c->number[0], c->segment->iov_base, c->segment->iov_len));
  if (got != -EBADF) return got;
  return RESULT(listxattr(proc_path(c->number[0]).text, c->segment->iov_base, c->segment->iov_len));
}

int64_t sys_setxattr(const struct call *c) {
  const struct iovec *value = c->segment;
  int64_t done = RESULT(fsetxattr(c->number[0], c->text[0], value->iov_base, value->iov_len, c->number[1]));
  if (done != -EBADF) return done;
  struct proc_path path = proc_path(c->number[0]);
  struct xattr_arguments args = {(uintptr_t)value->iov_base, (uint32_t)value->iov_len, (uint32_t)c->number[1]};
  int from = proc_fds();
  done = call_at(CALL_SETXATTRAT, from, name_from(from, &path), 0, c->text[0], &args);
  if (done != -ENOSYS) return done;
  return RESULT(setxattr(path.text, c->text[0], value->iov_base, value->iov_len, c->number[1]));
}

int64_t sys_removexattr(const struct call *c) {
  int64_t done = RESULT(fremovexattr(c->number[0], c->text[0]));
  if (done != -EBADF) return done;
  return RESULT(removexattr(proc_path(c->number[0]).text, c->text[0]));
}
