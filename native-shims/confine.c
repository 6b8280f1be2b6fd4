/*
 * What a program gives up before it executes itself again. All of it is the calling thread's, and execve(2) leaves no other
 * thread: what begins then has it from its first instruction, whatever threads it starts.
 */
#include "apart.h"
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

enum { CAPS_MAX = 64, WORDS_MAX = 4096 };

static bool wanted(const struct call *c, int cap) {
  return (uint32_t)c->number[cap / 32] >> cap % 32 & 1;
}

/* Takes what is not in the two words out of the bounding set, where this process may do that (CAP_SETPCAP). */
int64_t sys_bound_capabilities(const struct call *c) {
  for (int cap = 0; cap < CAPS_MAX; cap++) {
    if (wanted(c, cap) || prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 1) continue;
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EPERM) return -(int64_t)errno;
  }
  return 0;
}

/*
 * Keeps of this thread's capabilities those in the two words, over execve(2) as well: as root by the bounding set, as
 * another user by the ambient set. From now on nothing that is executed can gain any (PR_SET_NO_NEW_PRIVS).
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

/* Makes a list of the texts of a segment, each with a NUL behind it. */
static bool words_of(const struct iovec *segment, char **words) {
  char *at = segment->iov_base, *end = at + segment->iov_len;
  int count = 0;
  if (segment->iov_len > 0 && end[-1] != 0) return false;
  for (; at < end && count < WORDS_MAX; at += strlen(at) + 1) words[count++] = at;
  words[count] = NULL;
  return at == end;
}

/* Of Linux 5.11; before, what has been open since before Node was is found in /proc/self/fd. */
static int64_t close_all_on_exec(void) {
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
 * Standard input is /dev/null, and so is what output or error would be if it were a directory: from one of those openat(2) leads out
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
 * Executes the program that the first text names, with the arguments of the first segment, the environment of the second
 * and, besides standard input, output and error, the descriptors of the third (words). Returns only if that fails. Whoever
 * started this program may have left it others: one of a directory would lead out of every sandbox. Standard input is /dev/null.
 */
int64_t sys_execute(const struct call *c) {
  static char *arguments[WORDS_MAX + 1], *environment[WORDS_MAX + 1];
  if (c->segment_count != 3) return -EINVAL;
  if (!words_of(&c->segment[0], arguments) || !words_of(&c->segment[1], environment)) return -E2BIG;
  const int32_t *kept = c->segment[2].iov_base;
  int64_t done = close_all_on_exec();
  if (done < 0) return done;
  done = null_input();
  if (done < 0) return done;
  for (int fd = 0; fd < 3; fd++) fcntl(fd, F_SETFD, 0);
  for (size_t i = 0; i < c->segment[2].iov_len / sizeof *kept; i++) {
    if (fcntl(kept[i], F_SETFD, 0) != 0) return -(int64_t)errno;
  }
  apart_retire();
  return RESULT(execve(c->text[0], arguments, environment));
}
