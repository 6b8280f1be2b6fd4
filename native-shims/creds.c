/*
 * The one place that changes credentials. The calls act on the calling thread alone: setfsuid and setfsgid always do, for
 * groups and capabilities the raw system call is made, since glibc's setgroups(3) changes every thread (nptl(7)).
 */
#include "creds.h"

#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SERVER_GROUPS_MAX = 65536, WAY_BACK = 1 << CAP_SETUID | 1 << CAP_SETGID };

/* 32-bit machines have other calls for 32-bit ids, which the raw numbers below would miss. */
_Static_assert(sizeof(long) == 8, "a 64-bit machine is needed");

struct identity {
  uint32_t uid, gid, group_count, effective[2];
  const uint32_t *groups;
};

static struct identity server;
static struct __user_cap_data_struct server_caps[2];
static pthread_once_t server_once = PTHREAD_ONCE_INIT;

/* What the thread has. While `switched` is false it still has what the process was started with. */
static _Thread_local bool switched;
static _Thread_local struct identity current;
static _Thread_local uint32_t current_groups[GROUPS_MAX];

/* Runs before the first switch of any thread, so that the thread it runs on still is what the process is. */
static void learn_server(void) {
  static uint32_t groups[SERVER_GROUPS_MAX];
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  long count = syscall(SYS_getgroups, SERVER_GROUPS_MAX, groups);
  if (count < 0 || syscall(SYS_capget, &head, server_caps) != 0) abort();
  server.uid = (uint32_t)setfsuid((uid_t)-1);
  server.gid = (uint32_t)setfsgid((gid_t)-1);
  server.groups = groups;
  server.group_count = (uint32_t)count;
  server.effective[0] = server_caps[0].effective;
  server.effective[1] = server_caps[1].effective;
}

static bool set_effective(const uint32_t effective[2]) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2] = {server_caps[0], server_caps[1]};
  data[0].effective = effective[0];
  data[1].effective = effective[1];
  return syscall(SYS_capset, &head, data) == 0;
}

/*
 * Whether two lists make no difference beside the group `gid`: a member of it by fsgid is one already (in_group_p of
 * kernel/groups.c), so that whether it is listed too does not count.
 */
static bool same_groups(const struct identity *a, const struct identity *b, uint32_t gid) {
  uint32_t i = 0, j = 0;
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
  current.groups = to->groups;
  current.group_count = to->group_count;
  if (to->groups != server.groups) {
    memcpy(current_groups, to->groups, to->group_count * sizeof *to->groups);
    current.groups = current_groups;
  }
  return true;
}

/*
 * setgroups, setfsgid, setfsuid in this order, leaving out what is so already; then the capabilities, since setfsuid(2)
 * raises and lowers some of them on its way from or to 0. setfsuid and setfsgid never report failure: they are asked
 * afterwards with an invalid id, which changes nothing. `current` is true to the thread at every step.
 */
static bool become(const struct identity *to) {
  if (!become_groups(to)) return false;
  if (current.gid != to->gid) {
    setfsgid(to->gid);
    current.gid = (uint32_t)setfsgid((gid_t)-1);
    if (current.gid != to->gid) return false;
  }
  bool caps_as_wanted = memcmp(current.effective, to->effective, sizeof to->effective) == 0;
  if (current.uid != to->uid) {
    setfsuid(to->uid);
    current.uid = (uint32_t)setfsuid((uid_t)-1);
    caps_as_wanted = false;
    if (current.uid != to->uid) return false;
  }
  if (!caps_as_wanted && !set_effective(to->effective)) return false;
  memcpy(current.effective, to->effective, sizeof to->effective);
  return true;
}

void creds_restore(void) {
  if (!switched) return;
  if (!become(&server)) {
    fprintf(stderr, "ninepd: a thread cannot return to the server's credentials\n");
    abort();
  }
  switched = false;
}

/*
 * A caller other than root has no capability that a file system or a security module asks for, as any process of that
 * user: setfsuid(2) alone would leave it CAP_SYS_ADMIN (trusted.* attributes), CAP_SYS_RESOURCE (reserved blocks) and
 * CAP_SETFCAP (security.capability). What stays is what the way back needs.
 */
static struct identity identity_of(const struct creds *wanted) {
  struct identity to = {wanted->uid, wanted->gid, wanted->group_count, {server.effective[0] & WAY_BACK, 0}, wanted->groups};
  if (wanted->uid == 0) memcpy(to.effective, server.effective, sizeof to.effective);
  return to;
}

int creds_assume(const struct creds *wanted) {
  if (wanted->server) {
    creds_restore();
    return 0;
  }
  if (wanted->uid == (uint32_t)-1 || wanted->gid == (uint32_t)-1 || wanted->group_count > GROUPS_MAX) return -EPERM;
  pthread_once(&server_once, learn_server);
  if (!switched) current = server;
  switched = true;
  struct identity to = identity_of(wanted);
  if (become(&to)) return 0;
  creds_restore();
  return -EPERM;
}
