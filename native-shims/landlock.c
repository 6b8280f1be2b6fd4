/*
 * Landlock: restricts the files, TCP ports and processes that this thread and its children can reach (landlock(7)).
 * The numbers are defined here since older kernel headers lack them.
 */
#include "syscalls.h"

#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALL_CREATE_RULESET = 444, CALL_ADD_RULE = 445, CALL_RESTRICT_SELF = 446 };
enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };

/* LANDLOCK_ACCESS_FS_*: bit 0 to 12 of ABI 1, REFER of 2, TRUNCATE of 3, IOCTL_DEV of 5. */
enum {
  EXECUTE = 1 << 0,
  WRITE_FILE = 1 << 1,
  READ_FILE = 1 << 2,
  READ_DIR = 1 << 3,
  REMOVE_FILE = 1 << 5,
  REFER = 1 << 13,
  TRUNCATE = 1 << 14,
  IOCTL_DEV = 1 << 15,
  ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV,
};

/* Before ABI 2, rename(2) and link(2) between directories fail with EXDEV. */
enum { ABI_MIN = 2 };

struct ruleset {
  uint64_t fs, net, scoped;
};

struct path_beneath {
  uint64_t allowed;
  int32_t parent;
} __attribute__((packed));

static uint64_t known_rights(int64_t abi) {
  return abi >= 5 ? (IOCTL_DEV << 1) - 1 : abi >= 3 ? (TRUNCATE << 1) - 1 : (REFER << 1) - 1;
}

/* The rights of a rule (`Rule` in src/host/sandbox.ts). None includes IOCTL_DEV. */
static uint64_t rights_of(char letter) {
  switch (letter) {
    case 'r': return READ_FILE | READ_DIR;
    case 'x': return READ_FILE | READ_DIR | EXECUTE;
    case 'w': return ((TRUNCATE << 1) - 1) & ~(uint64_t)EXECUTE;
    case 'u': return REMOVE_FILE;
    default: return 0;
  }
}

/* Adds a rule; none for a path that does not exist. */
static int64_t add_rule(int ruleset, char letter, const char *path, int64_t abi) {
  struct stat found;
  int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : -(int64_t)errno;
  struct path_beneath rule = {.allowed = rights_of(letter) & known_rights(abi), .parent = fd};
  if (fstat(fd, &found) == 0 && !S_ISDIR(found.st_mode)) rule.allowed &= ON_FILES;
  int64_t done = RESULT(syscall(CALL_ADD_RULE, ruleset, RULE_PATH_BENEATH, &rule, 0));
  close(fd);
  return done;
}

/* The kernel's Landlock ABI; -ENOSYS if it has none, or one below ABI_MIN. */
int64_t sys_landlock_abi(const struct call *c) {
  (void)c;
  int64_t abi = RESULT(syscall(CALL_CREATE_RULESET, NULL, 0, CREATE_RULESET_VERSION));
  return abi >= ABI_MIN ? abi : -ENOSYS;
}

/*
 * Restricts this thread. The segment has the rules, each a letter and a NUL-terminated path. Denied is everything
 * else: files, TCP connect and bind (ABI 4), abstract Unix sockets and signals to processes outside (ABI 6).
 */
int64_t sys_landlock(const struct call *c) {
  int64_t abi = sys_landlock_abi(c);
  if (abi < 0) return abi;
  struct ruleset all = {.fs = known_rights(abi), .net = 3, .scoped = 3};
  size_t bytes = abi >= 6 ? sizeof all : abi >= 4 ? offsetof(struct ruleset, scoped) : offsetof(struct ruleset, net);
  int ruleset = (int)syscall(CALL_CREATE_RULESET, &all, bytes, 0);
  if (ruleset < 0) return -(int64_t)errno;
  int64_t done = 0;
  const char *at = c->segment->iov_base, *end = at + c->segment->iov_len;
  for (size_t length; done == 0 && at < end; at += length + 1) {
    length = strnlen(at, (size_t)(end - at));
    done = at + length < end ? add_rule(ruleset, at[0], at + 1, abi) : -EINVAL;
  }
  if (done == 0) done = RESULT(syscall(CALL_RESTRICT_SELF, ruleset, 0));
  close(ruleset);
  return done;
}
