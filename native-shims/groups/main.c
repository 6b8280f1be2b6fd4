/*
 * ninepd-groups: tells a server in its sandbox which groups a user of the host is in. Name services read files that are
 * replaced, load libraries and ask other processes, none of which the server can do there; nor can it start a program.
 *
 * Standard input is a socket that keeps messages apart (SOCK_SEQPACKET). Messages are words of 32 bits in host order:
 *
 *   question  id, uid
 *   answer    id, uid, errno, primary group, count of groups, index of the first one here, groups; as many messages as it takes
 *   notice    0, 0 or 1, process id, status of waitpid(2): that helper has ended and another one is started; 1 if it was the keeper
 *
 * Two processes of this program do it. The helper answers. The keeper starts another helper when one has ended, some time later
 * if they end soon; a question that was not answered then is to be asked again. A helper whose keeper has ended becomes the keeper.
 * Both end with the other side of the socket.
 */
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

/* A slow name service holds up so many users at a time and no more. */
enum { SERVER = 0, THREADS = 8, HEAD_WORDS = 6, GROUPS_PER_MESSAGE = 15000 };
enum { STEADY_MS = 10000, RESTART_MS_MIN = 100, RESTART_MS_MAX = 10000 };
enum { KEEPER_ENDED = SIGUSR1 };

struct question {
  uint32_t id, uid;
};

/* The count of the groups, to be freed, or −errno. */
static int64_t groups_of(const struct passwd *user, gid_t **groups) {
  int count = 64;
  for (*groups = NULL;;) {
    int room = count;
    gid_t *larger = realloc(*groups, (size_t)room * sizeof **groups);
    if (!larger) return -ENOMEM;
    *groups = larger;
    if (getgrouplist(user->pw_name, user->pw_gid, *groups, &count) >= 0) return count > NGROUPS_MAX ? -E2BIG : count;
    if (count <= room) count = 2 * room;
  }
}

/* False when the server has ended. */
static bool send_answer(const struct question *asked, int failed, uint32_t primary, const gid_t *groups, uint32_t count) {
  uint32_t message[HEAD_WORDS + GROUPS_PER_MESSAGE];
  uint32_t first = 0;
  do {
    uint32_t here = count - first < GROUPS_PER_MESSAGE ? count - first : GROUPS_PER_MESSAGE;
    const uint32_t head[HEAD_WORDS] = {asked->id, asked->uid, (uint32_t)failed, primary, count, first};
    memcpy(message, head, sizeof head);
    if (here > 0) memcpy(message + HEAD_WORDS, groups + first, here * sizeof *groups);
    if (send(SERVER, message, (HEAD_WORDS + here) * sizeof *message, MSG_NOSIGNAL) < 0) return false;
    first += here;
  } while (first < count);
  return true;
}

static bool answer(const struct question *asked) {
  char strings[16384];
  struct passwd user, *found;
  gid_t *groups = NULL;
  int failed = getpwuid_r(asked->uid, &user, strings, sizeof strings, &found);
  int64_t count = failed ? -failed : !found ? -ENOENT : groups_of(&user, &groups);
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

/* Becomes another program of the same file, which is a keeper and knows that it is not the first. */
static void succeed(pid_t keeper) {
  char text[16], *arguments[] = {"ninepd-groups", text, NULL}, *none[] = {NULL};
  snprintf(text, sizeof text, "%d", keeper);
  execve("/proc/self/exe", arguments, none);
  _exit(1);
}

/* Waits for the end of the keeper, of which the kernel tells by a signal that all threads block. */
static void help(pid_t keeper) {
  sigset_t ended;
  int signal;
  sigemptyset(&ended);
  sigaddset(&ended, KEEPER_ENDED);
  sigprocmask(SIG_BLOCK, &ended, NULL);
  prctl(PR_SET_PDEATHSIG, KEEPER_ENDED);
  for (int i = 0; i < THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, NULL) != 0 && i == 0) _exit(1);
  }
  while (getppid() == keeper) sigwait(&ended, &signal);
  succeed(keeper);
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for so long, or for ever if that is negative, or for a child's end. Ends this process, and the helper, with the server. */
static void wait_ms(int64_t ms, pid_t helper) {
  struct pollfd server = {.fd = SERVER};
  struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  sigset_t none;
  sigemptyset(&none);
  if (ppoll(&server, 1, ms < 0 ? NULL : &time, &none) <= 0) return;
  if (helper > 0) kill(helper, SIGKILL);
  _exit(0);
}

static void tell(bool was_keeper, pid_t pid, int status) {
  const uint32_t notice[] = {0, was_keeper, (uint32_t)pid, (uint32_t)status};
  send(SERVER, notice, sizeof notice, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int status_of(pid_t helper) {
  int status;
  while (waitpid(helper, &status, WNOHANG) != helper) wait_ms(-1, helper);
  return status;
}

static void keep(void) {
  int64_t restart_ms = 0;
  pid_t keeper = getpid();
  for (;;) {
    int64_t began = now_ms(), until;
    pid_t helper = fork();
    if (helper == 0) help(keeper);
    if (helper > 0) tell(false, helper, status_of(helper));
    bool steady = helper > 0 && now_ms() - began >= STEADY_MS;
    restart_ms = steady ? 0 : restart_ms == 0 ? RESTART_MS_MIN : restart_ms * 2 < RESTART_MS_MAX ? restart_ms * 2 : RESTART_MS_MAX;
    for (until = now_ms() + restart_ms; now_ms() < until;) wait_ms(until - now_ms(), 0);
  }
}

static void child_ended(int signal) { (void)signal; }

/* The server is told to stop by the same signals, and answers what runs before it does. */
static void set_signals(void) {
  sigset_t child;
  struct sigaction action = {.sa_handler = child_ended};
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  signal(KEEPER_ENDED, SIG_IGN);
  sigaction(SIGCHLD, &action, NULL);
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_SETMASK, &child, NULL);
}

/* Whoever asks for what anybody may know needs no privilege. */
static void give_up_privileges(void) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct none[2];
  memset(none, 0, sizeof none);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (syscall(SYS_capset, &head, none) != 0) _exit(1);
}

int main(int count, char **arguments) {
  prctl(PR_SET_NAME, "ninepd-groups");
  prctl(PR_SET_PDEATHSIG, 0);
  set_signals();
  give_up_privileges();
  fcntl(SERVER, F_SETFL, fcntl(SERVER, F_GETFL) & ~O_NONBLOCK);
  if (count > 1) tell(true, (pid_t)strtol(arguments[1], NULL, 10), 0);
  keep();
}
