/* Open file description locks (F_OFD_SETLK of fcntl(2)): one process serves all guests, so locks of the process will not do. */
#include "syscalls.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

static int64_t region_of(const struct call *c, struct flock *lock) {
  int64_t start = offset_of(c->wide[0]), length = offset_of(c->wide[1]);
  if (start < 0 || length < 0) return -EINVAL;
  *lock = (struct flock){.l_type = (short)c->number[1], .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  return 0;
}

/* 1 if the lock was set, 0 if another one conflicts. */
int64_t sys_lock(const struct call *c) {
  struct flock lock;
  if (region_of(c, &lock) < 0) return -EINVAL;
  int64_t done = RESULT(fcntl(c->number[0], F_OFD_SETLK, &lock));
  return done == 0 ? 1 : done == -EAGAIN || done == -EACCES ? 0 : done;
}

/* 1 if a lock conflicts; it is written as four doubles: type, start, length, pid. */
int64_t sys_test_lock(const struct call *c) {
  struct flock lock;
  if (c->segment->iov_len < 4 * sizeof(double) || region_of(c, &lock) < 0) return -EINVAL;
  int64_t done = RESULT(fcntl(c->number[0], F_OFD_GETLK, &lock));
  if (done < 0 || lock.l_type == F_UNLCK) return done;
  double found[4] = {lock.l_type, (double)lock.l_start, (double)lock.l_len, lock.l_pid};
  memcpy(c->segment->iov_base, found, sizeof found);
  return 1;
}

/* flock(2), which unlike fcntl(2) locks directories. 1 when the lock is had, 0 when another open file has one. */
int64_t sys_flock(const struct call *c) {
  int64_t done = RESULT(flock(c->number[0], LOCK_EX | LOCK_NB));
  return done == 0 ? 1 : done == -EWOULDBLOCK ? 0 : done;
}
