/*
 * ninepd-groups: tells a sandboxed server which groups a user of the host is in. Name services read files that are
 * replaced, load libraries and ask other processes, which the server cannot; nor can it start a program.
 *
 * Standard input is a SOCK_SEQPACKET socket. Messages are 32-bit words in host order:
 *
 *   question  id, uid
 *   answer    id, uid, errno, primary gid, count of groups, index of the first group in this message, groups;
 *             one or more messages
 *   notice    0, 0 or 1, process id, status of waitpid(2): a worker has ended and another is started; 1 if it was the supervisor
 *
 * The program consists of two processes. The worker answers. The supervisor restarts it, with a delay if it ends
 * soon; questions not answered then have to be asked again. A worker whose supervisor has ended becomes the
 * supervisor. Both end when the other side closes the socket.
 */
#include "../shared.h"
#include "../user-groups.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* THREADS: a slow name service delays so many users at a time. */
enum { SERVER = 0, THREADS = 8 };
enum { STEADY_MS = 10000, RESTART_MS_MIN = 100, RESTART_MS_MAX = 10000 };
enum { SUPERVISOR_ENDED = SIGUSR1 };

struct question {
  uint32_t id, uid;
};

/* False if the server has ended. */
static bool send_answer(const struct question *asked, int failed, uint32_t primary, const gid_t *groups,
                        uint32_t count) {
  uint32_t message[GROUPS_HEAD_WORDS + GROUPS_PER_MESSAGE];
  uint32_t first = 0;
  do {
    uint32_t here = count - first < GROUPS_PER_MESSAGE ? count - first : GROUPS_PER_MESSAGE;
    const uint32_t head[GROUPS_HEAD_WORDS] = {asked->id, asked->uid, (uint32_t)failed, primary, count, first};
    memcpy(message, head, sizeof head);
    if (here > 0) memcpy(message + GROUPS_HEAD_WORDS, groups + first, here * sizeof *groups);
    if (send(SERVER, message, (GROUPS_HEAD_WORDS + here) * sizeof *message, MSG_NOSIGNAL) < 0) return false;
    first += here;
  } while (first < count);
  return true;
}

static bool answer(const struct question *asked) {
  char strings[16384];
  struct passwd user, *found;
  gid_t *groups = NULL;
  int failed = getpwuid_r(asked->uid, &user, strings, sizeof strings, &found);
  int64_t count = failed ? -failed : !found ? -ENOENT : groups_of_user(&user, &groups);
  bool sent = count < 0 ? send_answer(asked, (int)-count, 0, NULL, 0)
                        : send_answer(asked, 0, user.pw_gid, groups, (uint32_t)count);
  free(groups);
  return sent;
}

static void *serve(void *unused) {
  struct question asked;
  while (recv(SERVER, &asked, sizeof asked, 0) == sizeof asked && answer(&asked)) continue;
  _exit(0);
  return unused;
}

/* Executes this program again, as a supervisor that reports the end of the one before. */
static void become_supervisor(pid_t supervisor) {
  char text[16], *arguments[] = {"ninepd-groups", text, NULL}, *none[] = {NULL};
  snprintf(text, sizeof text, "%d", supervisor);
  execve("/proc/self/exe", arguments, none);
  _exit(1);
}

/* Starts the threads and waits for the end of the supervisor: PR_SET_PDEATHSIG with a signal that all threads block. */
static void work(pid_t supervisor) {
  sigset_t ended;
  int signal;
  sigemptyset(&ended);
  sigaddset(&ended, SUPERVISOR_ENDED);
  sigprocmask(SIG_BLOCK, &ended, NULL);
  prctl(PR_SET_PDEATHSIG, SUPERVISOR_ENDED);
  for (int i = 0; i < THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, NULL) != 0 && i == 0) _exit(1);
  }
  while (getppid() == supervisor) sigwait(&ended, &signal);
  become_supervisor(supervisor);
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for a child's end, `ms` at most (negative: no timeout). When the server ends, ends the worker and this process. */
static void wait_ms(int64_t ms, pid_t worker) {
  struct pollfd server = {.fd = SERVER};
  struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  sigset_t none;
  sigemptyset(&none);
  if (ppoll(&server, 1, ms < 0 ? NULL : &time, &none) <= 0) return;
  if (worker > 0) kill(worker, SIGKILL);
  _exit(0);
}

static void send_notice(bool was_supervisor, pid_t pid, int status) {
  const uint32_t notice[] = {0, was_supervisor, (uint32_t)pid, (uint32_t)status};
  send(SERVER, notice, sizeof notice, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int status_of(pid_t worker) {
  int status;
  while (waitpid(worker, &status, WNOHANG) != worker) wait_ms(-1, worker);
  return status;
}

static int64_t longer_delay(int64_t ms) {
  if (ms == 0) return RESTART_MS_MIN;
  return ms * 2 < RESTART_MS_MAX ? ms * 2 : RESTART_MS_MAX;
}

static void supervise(void) {
  int64_t restart_ms = 0;
  pid_t supervisor = getpid();
  for (;;) {
    int64_t began = now_ms(), until;
    pid_t worker = fork();
    if (worker == 0) work(supervisor);
    if (worker > 0) send_notice(false, worker, status_of(worker));
    bool steady = worker > 0 && now_ms() - began >= STEADY_MS;
    restart_ms = steady ? 0 : longer_delay(restart_ms);
    for (until = now_ms() + restart_ms; now_ms() < until;) wait_ms(until - now_ms(), 0);
  }
}

static void child_ended(int signal) {
  (void)signal;
}

/* SIGINT and SIGTERM are ignored: the server, which gets them too, still answers running requests. */
static void set_signals(void) {
  sigset_t child;
  struct sigaction action = {.sa_handler = child_ended};
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  signal(SUPERVISOR_ENDED, SIG_IGN);
  sigaction(SIGCHLD, &action, NULL);
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_SETMASK, &child, NULL);
}

/* The user database is readable by everybody. */
static void drop_privileges(void) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct none[2];
  memset(none, 0, sizeof none);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (syscall(SYS_capset, &head, none) != 0) _exit(1);
}

int main(int count, char **arguments) {
  prctl(PR_SET_NAME, "ninepd-groups");
  prctl(PR_SET_PDEATHSIG, 0);
  if (chdir("/") != 0) return 1; /* the server's working directory may be unmounted when it has ended */
  set_signals();
  drop_privileges();
  fcntl(SERVER, F_SETFL, fcntl(SERVER, F_GETFL) & ~O_NONBLOCK);
  if (count > 1) send_notice(true, (pid_t)strtol(arguments[1], NULL, 10), 0);
  supervise();
}
