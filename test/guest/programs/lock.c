/*
 * lock: takes a lock and says what happened. Used in a guest and, the very same program, on the host.
 *   lock KIND FILE OP START LENGTH [HOLD]
 * KIND ofd, posix or flock. OP:
 *   read, write    take it or print `busy`; print `locked`, hold until the file HOLD exists (no HOLD: until killed)
 *   wait           as write, but wait for it; prints `locked <milliseconds waited>`
 *   test           print `free`, or `held read|write START LENGTH` (not for flock)
 */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int fcntl_command(const char *kind, const char *op) {
  int ofd = strcmp(kind, "ofd") == 0;
  if (strcmp(op, "test") == 0) return ofd ? F_OFD_GETLK : F_GETLK;
  if (strcmp(op, "wait") == 0) return ofd ? F_OFD_SETLKW : F_SETLKW;
  return ofd ? F_OFD_SETLK : F_SETLK;
}

static int take(int fd, const char *kind, const char *op, struct flock *range) {
  if (strcmp(kind, "flock") == 0) {
    int how = strcmp(op, "read") == 0 ? LOCK_SH : LOCK_EX;
    return flock(fd, strcmp(op, "wait") == 0 ? how : how | LOCK_NB);
  }
  return fcntl(fd, fcntl_command(kind, op), range);
}

int main(int argc, char **argv) {
  if (argc < 6) fail("usage: lock KIND FILE OP START LENGTH [HOLD]");
  const char *kind = argv[1], *op = argv[3];
  int fd = open(argv[2], O_RDWR | O_CLOEXEC);
  if (fd < 0) fail("open %s", argv[2]);
  struct flock range = {
      .l_type = strcmp(op, "read") == 0 ? F_RDLCK : F_WRLCK,
      .l_whence = SEEK_SET,
      .l_start = atoll(argv[4]),
      .l_len = atoll(argv[5]),
  };
  setvbuf(stdout, NULL, _IOLBF, 0);
  long began = now_ms();
  int result = take(fd, kind, op, &range);
  if (result < 0 && (errno == EAGAIN || errno == EACCES)) {
    printf("busy\n");
    return 0;
  }
  if (result < 0) fail("%s %s", kind, op);
  if (strcmp(op, "test") == 0) {
    if (range.l_type == F_UNLCK) printf("free\n");
    else
      printf("held %s %lld %lld\n", range.l_type == F_RDLCK ? "read" : "write", (long long)range.l_start,
             (long long)range.l_len);
    return 0;
  }
  if (strcmp(op, "wait") == 0) printf("locked %ld\n", now_ms() - began);
  else printf("locked\n");
  while (argc < 7 || access(argv[6], F_OK) != 0) usleep(20000);
  return 0;
}
