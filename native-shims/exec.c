/*
 * Capabilities, and execve(2) of this process. Capabilities belong to a thread; since execve(2) ends all other threads, the new
 * program and all its threads have those of the calling thread.
 */
#include "closer.h"
#include "syscalls.h"

#include <dirent.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <unistd.h>

enum { CAPS_MAX = 64, STRINGS_MAX = 4096 };

static bool is_listed(const struct call *c, int cap) {
  return (uint32_t)c->number[cap / 32] >> cap % 32 & 1;
}

/* Drops from the bounding set what is not in the two words. Needs CAP_SETPCAP; without it, nothing is done. */
int64_t sys_bound_capabilities(const struct call *c) {
  for (int cap = 0; cap < CAPS_MAX; cap++) {
    if (is_listed(c, cap) || prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 1) continue;
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EPERM) return -(int64_t)errno;
  }
  return 0;
}

/*
 * Drops this thread's capabilities that are not in the two words. The others are kept over execve(2): for root by the
 * bounding set, for other users by the ambient set. No executed program can gain any (PR_SET_NO_NEW_PRIVS).
 */
int64_t sys_keep_capabilities(const struct call *c) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  if (syscall(SYS_capget, &head, data) != 0) return -(int64_t)errno;
  for (int word = 0; word < 2; word++) {
    data[word].permitted &= (uint32_t)c->number[word];
    data[word].effective = data[word].inheritable = data[word].permitted;
  }
  int64_t done = RESULT(syscall(SYS_capset, &head, data));
  for (int cap = 0; done == 0 && cap < CAPS_MAX; cap++) {
    if (data[cap / 32].permitted >> cap % 32 & 1) done = RESULT(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0));
  }
  return done < 0 ? done : RESULT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* Makes argv or envp of the NUL-terminated strings of a segment. False if it is malformed or has too many. */
static bool strings_of(const struct iovec *segment, char **strings) {
  char *at = segment->iov_base, *end = at + segment->iov_len;
  int count = 0;
  if (segment->iov_len > 0 && end[-1] != 0) return false;
  for (; at < end && count < STRINGS_MAX; at += strlen(at) + 1) strings[count++] = at;
  strings[count] = NULL;
  return at == end;
}

/* close_range(2) with CLOSE_RANGE_CLOEXEC is of Linux 5.11; on older kernels /proc/self/fd is read. */
static int64_t set_cloexec_on_all(void) {
  enum { CALL_CLOSE_RANGE = 436, ON_EXEC = 4 };
  if (syscall(CALL_CLOSE_RANGE, 3U, ~0U, ON_EXEC) == 0) return 0;
  if (errno != ENOSYS && errno != EINVAL) return -(int64_t)errno;
  DIR *list = opendir("/proc/self/fd");
  if (!list) return -(int64_t)errno;
  for (struct dirent *one; (one = readdir(list));) {
    int fd = atoi(one->d_name);
    if (fd > 2) fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  closedir(list);
  return 0;
}

/*
 * Opens /dev/null as standard input, and as output or error if that is a directory: openat(2) from one would lead out
 * of the private root.
 */
static int64_t null_input(void) {
  struct stat found;
  int null = open("/dev/null", O_RDONLY);
  if (null < 0) return -(int64_t)errno;
  for (int fd = 0; fd < 3; fd++) {
    bool kept = fd > 0 && (fstat(fd, &found) != 0 || !S_ISDIR(found.st_mode));
    if (!kept && null != fd && dup2(null, fd) < 0) return -(int64_t)errno;
  }
  if (null > 2) close(null);
  return 0;
}

/*
 * Executes the program named by the first text. The segments are its arguments, its environment, and the descriptors (int32) that
 * it inherits besides 0 to 2. Returns only on failure. All other descriptors are closed, those that this process inherited too:
 * one of a directory would lead out of the sandbox.
 */
int64_t sys_execute(const struct call *c) {
  static char *arguments[STRINGS_MAX + 1], *environment[STRINGS_MAX + 1];
  if (c->segment_count != 3) return -EINVAL;
  if (!strings_of(&c->segment[0], arguments) || !strings_of(&c->segment[1], environment)) return -E2BIG;
  const int32_t *kept = c->segment[2].iov_base;
  int64_t done = set_cloexec_on_all();
  if (done < 0) return done;
  done = null_input();
  if (done < 0) return done;
  for (int fd = 0; fd < 3; fd++) fcntl(fd, F_SETFD, 0);
  for (size_t i = 0; i < c->segment[2].iov_len / sizeof *kept; i++) {
    if (fcntl(kept[i], F_SETFD, 0) != 0) return -(int64_t)errno;
  }
  closer_stop();
  return RESULT(execve(c->text[0], arguments, environment));
}
