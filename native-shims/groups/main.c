/*
 * ninepd-groups: tells a server in its sandbox which groups a user of the host is in. Name services read files that are
 * replaced, load libraries and ask other processes, none of which the server can do there.
 *
 * Standard input is a socket. A question is a uid, four bytes in host order; the answer a line: the uid, the primary group and
 * then all groups in decimal; the uid alone for one that is not known; the uid, `!` and an errno when it cannot be told. It
 * ends with the other side.
 */
#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A slow name service holds up so many users at a time and no more. */
enum { THREADS = 8, GROUPS_MAX = 1024, LINE_MAX_BYTES = 16 * GROUPS_MAX };

static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER, answering = PTHREAD_MUTEX_INITIALIZER;

static int answer(uint32_t uid, char *line) {
  char strings[16384];
  struct passwd user, *found;
  gid_t groups[GROUPS_MAX];
  int count = GROUPS_MAX, failed = getpwuid_r(uid, &user, strings, sizeof strings, &found);
  int at = sprintf(line, "%u", uid);
  if (failed) return at + sprintf(line + at, " ! %d\n", failed);
  if (found) {
    at += sprintf(line + at, " %u", user.pw_gid);
    if (getgrouplist(user.pw_name, user.pw_gid, groups, &count) < 0) count = GROUPS_MAX;
    for (int i = 0; i < count; i++) at += sprintf(line + at, " %u", groups[i]);
  }
  line[at++] = '\n';
  return at;
}

static void *serve(void *unused) {
  char *line = malloc(LINE_MAX_BYTES);
  uint32_t uid;
  if (!line) _exit(1);
  for (;;) {
    pthread_mutex_lock(&asking);
    if (recv(0, &uid, sizeof uid, MSG_WAITALL) != sizeof uid) _exit(0);
    pthread_mutex_unlock(&asking);
    int bytes = answer(uid, line);
    pthread_mutex_lock(&answering);
    for (int sent = 0, now; sent < bytes; sent += now) {
      now = (int)send(0, line + sent, (size_t)(bytes - sent), MSG_NOSIGNAL);
      if (now <= 0) _exit(0);
    }
    pthread_mutex_unlock(&answering);
  }
  return unused;
}

/* Whoever asks for what anybody may know needs no privilege. */
static void give_up_privileges(void) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct none[2];
  memset(none, 0, sizeof none);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (syscall(SYS_capset, &head, none) != 0) _exit(1);
}

int main(void) {
  /* The server is told to stop by the same signals, and answers what runs before it does. */
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  give_up_privileges();
  for (int i = 1; i < THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, NULL) != 0) break;
  }
  serve(NULL);
}
