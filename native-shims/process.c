/* The user database, the peer of a connection, and this process: its capabilities, limits and end. */
#include "child.h"
#include "closer.h"
#include "pool.h"
#include "syscalls.h"
#include "user-groups.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Writes the 64 bits as two words. */
int64_t sys_effective_capabilities(const struct call *c) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  if (c->segment->iov_len < 8) return -EINVAL;
  int64_t done = RESULT(syscall(SYS_capget, &head, data));
  if (done < 0) return done;
  put32(c->segment->iov_base, data[0].effective);
  put32((uint8_t *)c->segment->iov_base + 4, data[1].effective);
  return 0;
}

/*
 * Writes the primary group, then all groups, as words, as far as there is room. Returns the count of groups, which
 * may be more, or -ENOENT for an unknown uid, or -E2BIG for one in more than NGROUPS_MAX. For the pool, since name
 * services may use the network.
 */
int64_t sys_groups_of(const struct call *c) {
  char strings[16384];
  struct passwd user, *found;
  size_t room = c->segment->iov_len / 4;
  if (room < 1) return -EINVAL;
  int failed = getpwuid_r((uid_t)c->number[0], &user, strings, sizeof strings, &found);
  if (failed) return -failed;
  if (!found) return -ENOENT;
  gid_t *groups;
  int64_t count = groups_of_user(&user, &groups);
  put32(c->segment->iov_base, user.pw_gid);
  for (int64_t i = 0; i < count && (size_t)i < room - 1; i++)
    put32((uint8_t *)c->segment->iov_base + 4 * (i + 1), groups[i]);
  free(groups);
  return count;
}

/* Writes uid and gid of the named user as two words; -ENOENT if there is none. */
int64_t sys_user_named(const struct call *c) {
  char strings[16384];
  struct passwd user, *found;
  if (c->segment->iov_len < 8) return -EINVAL;
  int failed = getpwnam_r(c->text[0], &user, strings, sizeof strings, &found);
  if (failed) return -failed;
  if (!found) return -ENOENT;
  put32(c->segment->iov_base, user.pw_uid);
  put32((uint8_t *)c->segment->iov_base + 4, user.pw_gid);
  return 0;
}

/* The gid of the named group; -ENOENT if there is none. The buffer grows, since it has to hold the names of all members. */
int64_t sys_group_named(const struct call *c) {
  struct group group, *found;
  char *strings = NULL;
  int failed = ERANGE;
  for (size_t bytes = 4096; failed == ERANGE && bytes <= 1 << 26; bytes *= 2) {
    char *larger = realloc(strings, bytes);
    if (!larger) break;
    strings = larger;
    failed = getgrnam_r(c->text[0], &group, strings, bytes, &found);
  }
  int64_t result = failed ? -failed : found ? (int64_t)group.gr_gid : -ENOENT;
  free(strings);
  return result;
}

/* SO_PEERCRED of unix(7): writes pid, uid and gid as three words. */
int64_t sys_peer_credentials(const struct call *c) {
  struct ucred peer;
  socklen_t bytes = sizeof peer;
  if (c->segment->iov_len < 12) return -EINVAL;
  int64_t done = RESULT(getsockopt(c->number[0], SOL_SOCKET, SO_PEERCRED, &peer, &bytes));
  if (done < 0) return done;
  put32(c->segment->iov_base, (uint32_t)peer.pid);
  put32((uint8_t *)c->segment->iov_base + 4, peer.uid);
  put32((uint8_t *)c->segment->iov_base + 8, peer.gid);
  return 0;
}

/* The soft RLIMIT_NOFILE. */
int64_t sys_descriptor_limit(const struct call *c) {
  (void)c;
  struct rlimit limit;
  int64_t done = RESULT(getrlimit(RLIMIT_NOFILE, &limit));
  if (done < 0) return done;
  return limit.rlim_cur > INT32_MAX ? INT32_MAX : (int64_t)limit.rlim_cur;
}

/* The file type (S_IFMT), without asking a file system that may hang. */
static mode_t type_of(int fd) {
  struct statx found;
  return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &found) == 0 ? found.stx_mode & S_IFMT : 0;
}

void close_streams(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = 1024;
  for (int fd = 0; (rlim_t)fd < limit.rlim_cur && fd < 1 << 20; fd++) {
    mode_t type = type_of(fd);
    if (S_ISSOCK(type) || S_ISFIFO(type) || S_ISCHR(type)) close(fd);
  }
}

/*
 * Ends the pool's threads, each after its job, and all child processes, so that none outlives the server. -ETIMEDOUT
 * if one still runs after number[0] milliseconds; the closer then runs too.
 */
int64_t sys_stop_threads(const struct call *c) {
  int ms = c->number[0];
  pool_stop();
  if (!children_wait(closer_runs() ? 1 : 0, ms)) return -ETIMEDOUT;
  closer_stop();
  return children_wait(0, ms) ? 0 : -ETIMEDOUT;
}

/* Ends the process with a status, though calls may hang: threads and children then keep the table of descriptors. */
int64_t sys_exit_now(const struct call *c) {
  close_streams();
  _exit(c->number[0]);
}
