/*
 * The one place that changes credentials. The raw system calls are made, which act on the calling thread alone: glibc's wrappers
 * change every thread (nptl(7)).
 *
 * A thread takes its caller's uid and gid as effective ones, with which the filesystem ids go, and the server's as real and
 * saved ones. So setresuid(2) itself says whether it worked, root's capabilities fall and come back with it, and a thread
 * can always become the server again. Nobody can signal or trace it that could not before: those ask the real and saved ids.
 */
#include "creds.h"
#include "child.h"

#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* 32-bit machines have other calls for 32-bit ids, which the raw numbers below would miss. */
_Static_assert(sizeof(long) == 8, "a 64-bit machine is needed");

struct identity {
  uint32_t uid, gid, group_count, effective[2];
  const uint32_t *groups;
  struct group_list *list; /* whose `groups` are, if they are a list's */
};

static struct identity server;
static struct __user_cap_data_struct server_caps[2];
static pthread_once_t server_once = PTHREAD_ONCE_INIT;

/* What the thread has. While `switched` is false it still has what the process was started with. */
static _Thread_local bool switched;
static _Thread_local struct identity current;
static _Thread_local uint32_t current_groups[GROUPS_MAX];

struct group_list *group_list_of(const void *gids, size_t count) {
  if (count > NGROUPS_MAX) return NULL;
  struct group_list *list = malloc(sizeof *list + count * sizeof *list->gids);
  if (!list) return NULL;
  list->holders = 1;
  list->count = (uint32_t)count;
  memcpy(list->gids, gids, count * sizeof *list->gids);
  return list;
}

struct group_list *group_list_hold(struct group_list *list) {
  if (list) list->holders++;
  return list;
}

void group_list_drop(struct group_list *list) {
  if (list && --list->holders == 0) free(list);
}

static bool get_caps(struct __user_cap_data_struct data[2]) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  return syscall(SYS_capget, &head, data) == 0;
}

/* Runs before the first switch of any thread, so that the thread it runs on still is what the process is. */
static void learn_server(void) {
  static uint32_t groups[NGROUPS_MAX];
  long count = syscall(SYS_getgroups, NGROUPS_MAX, groups);
  if (count < 0 || !get_caps(server_caps)) abort();
  server.uid = (uint32_t)geteuid();
  server.gid = (uint32_t)getegid();
  server.groups = groups;
  server.group_count = (uint32_t)count;
  server.effective[0] = server_caps[0].effective;
  server.effective[1] = server_caps[1].effective;
}

/* Asks the kernel first: a change of uid may have made them so (capabilities(7)), and asking is cheap. */
static bool become_effective(const uint32_t effective[2]) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  if (!get_caps(data)) return false;
  if (data[0].effective != effective[0] || data[1].effective != effective[1]) {
    data[0].effective = effective[0];
    data[1].effective = effective[1];
    if (syscall(SYS_capset, &head, data) != 0) return false;
  }
  memcpy(current.effective, effective, sizeof current.effective);
  return true;
}

/*
 * Whether two lists make no difference beside the group `gid`: a member of it by fsgid is one already (in_group_p of
 * kernel/groups.c), so that whether it is listed too does not count.
 */
static bool same_groups(const struct identity *a, const struct identity *b, uint32_t gid) {
  uint32_t i = 0, j = 0;
  if (a->groups == b->groups && a->group_count == b->group_count) return true;
  for (;;) {
    while (i < a->group_count && a->groups[i] == gid) i++;
    while (j < b->group_count && b->groups[j] == gid) j++;
    if (i == a->group_count || j == b->group_count) return i == a->group_count && j == b->group_count;
    if (a->groups[i++] != b->groups[j++]) return false;
  }
}

static bool become_groups(const struct identity *to) {
  if (same_groups(&current, to, to->gid)) return true;
  if (syscall(SYS_setgroups, to->group_count, to->groups) != 0) return false;
  group_list_drop(current.list);
  current.list = group_list_hold(to->list);
  current.groups = to->groups;
  current.group_count = to->group_count;
  if (!to->list && to->groups != server.groups) {
    memcpy(current_groups, to->groups, to->group_count * sizeof *to->groups);
    current.groups = current_groups;
  }
  return true;
}

static bool become_gid(uint32_t gid) {
  if (current.gid == gid) return true;
  if (syscall(SYS_setresgid, -1L, (long)gid, -1L) != 0) return false;
  current.gid = gid;
  return true;
}

static bool has_effective(const uint32_t effective[2]) {
  return memcmp(current.effective, effective, sizeof current.effective) == 0;
}

/* The capabilities follow: without them `current` would not be true to the thread. */
static bool become_uid(uint32_t uid, const uint32_t effective[2]) {
  if (current.uid == uid) return has_effective(effective) || become_effective(effective);
  if (syscall(SYS_setresuid, -1L, (long)uid, -1L) != 0) return false;
  current.uid = uid;
  return become_effective(effective);
}

/*
 * A thread of a server that is not root would lose its permitted capabilities on the way back from uid 0 (capabilities(7),
 * SECBIT_KEEP_CAPS). Once for each thread.
 */
static bool keep_caps(void) {
  static _Thread_local bool kept;
  if (!kept) kept = server.uid == 0 || prctl(PR_SET_KEEPCAPS, 1L, 0L, 0L, 0L) == 0;
  return kept;
}

static bool is_already(const struct identity *to) {
  return current.uid == to->uid && current.gid == to->gid && has_effective(to->effective) &&
         same_groups(&current, to, to->gid);
}

/*
 * Every change begins at the server's uid and capabilities, since any part of it may need them: a thread that is a user has no
 * capabilities, so that setgroups(2) and setresgid(2) fail, and setresuid(2) takes it to the server's uid and no other.
 */
static bool become(const struct identity *to) {
  if (is_already(to)) return true;
  bool done = become_uid(server.uid, server.effective) && become_groups(to) && become_gid(to->gid) &&
              become_uid(to->uid, to->effective);
  child_die_with_server();
  return done;
}

void creds_restore(void) {
  if (!switched) return;
  if (!become(&server)) {
    fprintf(stderr, "ninepd: a thread cannot return to the server's credentials\n");
    abort();
  }
  switched = false;
}

void creds_leave(void) {
  creds_restore();
  group_list_drop(current.list);
  current.list = NULL;
}

/*
 * What lets a caller other than root past permissions, sticky directories and protected_hardlinks, where a guest's kernel has
 * checked them. Not CAP_FSETID: set-id bits fall when he writes or changes an owner (setattr_should_drop_suidgid of
 * fs/attr.c), and S_ISGID of a group that he is not in. Not CAP_LINUX_IMMUTABLE, CAP_MKNOD, CAP_SETFCAP, CAP_SYS_ADMIN,
 * CAP_SYS_RESOURCE.
 */
enum { FILE_ACCESS = 1 << CAP_CHOWN | 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH | 1 << CAP_FOWNER };

/*
 * A caller other than root has no capability, as any process of that user, or those of FILE_ACCESS that the server has; root
 * has what the server has. With the server's as real and saved ids, and its permitted capabilities, the thread gets back from
 * there.
 */
static struct identity identity_of(const struct creds *wanted, struct group_list *groups) {
  struct identity to = {
      .uid = wanted->uid, .gid = wanted->gid, .group_count = wanted->group_count, .groups = wanted->groups};
  if (wanted->group_count > GROUPS_MAX) {
    to.list = groups;
    to.groups = groups->gids;
  }
  if (wanted->uid == 0) memcpy(to.effective, server.effective, sizeof to.effective);
  else if (wanted->file_caps == FILE_CAPS_ALL) to.effective[0] = server.effective[0] & FILE_ACCESS;
  return to;
}

static bool is_possible(const struct creds *wanted, const struct group_list *groups) {
  if (wanted->uid == (uint32_t)-1 || wanted->gid == (uint32_t)-1) return false;
  return wanted->group_count <= GROUPS_MAX || (groups && groups->count == wanted->group_count);
}

int creds_assume(const struct creds *wanted, struct group_list *groups) {
  if (wanted->server) {
    creds_restore();
    return 0;
  }
  if (!is_possible(wanted, groups)) return -EPERM;
  pthread_once(&server_once, learn_server);
  if (!keep_caps()) return -EPERM;
  if (!switched) {
    group_list_drop(current.list);
    current = server;
  }
  switched = true;
  struct identity to = identity_of(wanted, groups);
  if (become(&to)) return 0;
  int failed = errno == ENOMEM ? -ENOMEM : -EPERM;
  creds_restore();
  return failed;
}
