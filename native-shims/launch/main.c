/*
 * ninepd-launch: confines itself as standard input says, and executes a program. The server's main process runs it once for each
 * worker.
 *
 * Standard input is read to its end. It is a sequence of steps, each a line `NAME BYTES` and that many bytes of operand:
 *
 *   namespaces    words of 32 bits: CLONE_NEW* flags that must succeed, and those that may fail
 *   root          entries of private-root.c: a root directory with these paths only
 *   limit         words of 32 bits: an RLIMIT_* and its value
 *   bound         two words: the capabilities that stay in the bounding set
 *   user          words: uid, gid, supplementary groups
 *   capabilities  two words: the capabilities to keep; sets no_new_privs
 *   landlock      rules of landlock.c
 *   directory     a path
 *   execute       texts with a NUL after each: path, count of arguments, arguments, environment
 *   succeed       nothing: ends with exit status 0, for a trial
 *
 * Steps are taken in order. Descriptors from 3 on are inherited by the program; its standard input is /dev/null. With a process
 * id namespace the program is the second process of it, and this one waits for it and ends as it did. On an error one line goes to standard error, and the exit status is 125.
 */
#include "../closer.h"
#include "../syscalls.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of Linux 5.9; before, descriptors stay open in the two processes that wait. */
enum { CALL_CLOSE_RANGE = 436 };
enum { PLAN_BYTES_MAX = 8 << 20, WORDS_MAX = 4096, NAME_BYTES_MAX = 32, FAILED = 125 };

/* exec.c calls it before execve(2); this program has no closer. */
void closer_stop(void) {}

static _Noreturn void fail(const char *step, int64_t error) {
  fprintf(stderr, "ninepd-launch: %s: %s\n", step, strerror((int)-error));
  _exit(FAILED);
}

static void check(const char *step, int64_t result) {
  if (result < 0) fail(step, result);
}

struct step {
  char name[NAME_BYTES_MAX];
  char *operand;
  size_t bytes;
};

static char *read_plan(size_t *bytes) {
  char *plan = malloc(PLAN_BYTES_MAX);
  if (!plan) fail("read", -ENOMEM);
  for (*bytes = 0; *bytes < PLAN_BYTES_MAX;) {
    ssize_t got = read(0, plan + *bytes, PLAN_BYTES_MAX - *bytes);
    if (got == 0) return plan;
    if (got < 0 && errno != EINTR) fail("read", -errno);
    if (got > 0) *bytes += (size_t)got;
  }
  fail("read", -E2BIG);
}

static char *next_step(char *at, const char *end, struct step *step) {
  char *line = memchr(at, '\n', (size_t)(end - at));
  char *space = line ? memchr(at, ' ', (size_t)(line - at)) : NULL;
  if (!space || space - at >= NAME_BYTES_MAX) fail("plan", -EINVAL);
  *step = (struct step){.operand = line + 1};
  memcpy(step->name, at, (size_t)(space - at));
  for (char *digit = space + 1; digit < line; digit++) step->bytes = step->bytes * 10 + (size_t)(*digit - '0');
  if (step->bytes > (size_t)(end - step->operand)) fail("plan", -EINVAL);
  return step->operand + step->bytes;
}

static int32_t word(const struct step *step, size_t index) {
  int32_t value;
  if ((index + 1) * sizeof value > step->bytes) fail(step->name, -EINVAL);
  memcpy(&value, step->operand + index * sizeof value, sizeof value);
  return value;
}

/* Runs a shim with the operand as its segment and its first two words as its numbers. */
static void run(const struct step *step, shim *shim) {
  int32_t number[NUMBERS] = {0};
  memcpy(number, step->operand, step->bytes < sizeof number ? step->bytes : sizeof number);
  const struct iovec segment = {.iov_base = step->operand, .iov_len = step->bytes};
  const struct call call = {.number = number, .segment = &segment, .segment_count = 1};
  check(step->name, shim(&call));
}

/* The kernel sends SIGKILL when the parent ends; the parent may have ended before. */
static void die_with_parent(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (parent >= 0 && getppid() != parent) _exit(FAILED);
}

static void write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) fail(path, -errno);
  close(fd);
}

/* Without privileges a user namespace comes first, in which this process has all capabilities: user_namespaces(7). */
static void enter_user_namespace(const char *step) {
  char text[64];
  uid_t uid = geteuid();
  gid_t gid = getegid();
  check(step, RESULT(unshare(CLONE_NEWUSER)));
  write_text("/proc/self/setgroups", "deny");
  snprintf(text, sizeof text, "%u %u 1", uid, uid);
  write_text("/proc/self/uid_map", text);
  snprintf(text, sizeof text, "%u %u 1", gid, gid);
  write_text("/proc/self/gid_map", text);
}

static _Noreturn void end_as(int status) {
  if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
  const struct rlimit none = {0};
  setrlimit(RLIMIT_CORE, &none);
  signal(WTERMSIG(status), SIG_DFL);
  kill(getpid(), WTERMSIG(status));
  _exit(128 + WTERMSIG(status));
}

/* Ends when the program has ended, as it did, though others of its processes may hang. */
static _Noreturn void wait_for_status(int from) {
  int status;
  dup2(from, 0);
  syscall(CALL_CLOSE_RANGE, 3U, ~0U, 0);
  prctl(PR_SET_NAME, "ninepd-wait", 0, 0, 0);
  ssize_t got;
  while ((got = read(0, &status, sizeof status)) < 0 && errno == EINTR) continue;
  if (got != sizeof status) _exit(FAILED);
  end_as(status);
}

static volatile pid_t program;

static void kill_program(int signal) {
  (void)signal;
  if (program > 0) kill(program, SIGKILL);
}

/*
 * The first process of the process id namespace. When it ends the kernel kills all others, so it waits for each: the closer of a
 * killed program (closer.c) still has sockets to close. When `ninepd-wait` ends, it kills the program alone.
 */
static _Noreturn void reap(pid_t child, int to) {
  int status;
  /* Somebody may wait for the end of standard error. */
  dup2(0, 1);
  dup2(0, 2);
  dup2(to, 0);
  syscall(CALL_CLOSE_RANGE, 3U, ~0U, 0);
  prctl(PR_SET_NAME, "ninepd-init", 0, 0, 0);
  program = child;
  signal(SIGTERM, kill_program);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != 0) kill_program(SIGTERM); /* the parent is outside of the namespace: 0 while it lives */
  for (pid_t ended; (ended = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;) {
    if (ended != child) continue;
    program = 0;
    if (write(0, &status, sizeof status) < 0) continue; /* nobody waits for it any more */
  }
  _exit(0);
}

/* True in a new process id namespace, in its second process. */
static bool enter_namespaces(const struct step *step) {
  int must = word(step, 0), may = word(step, 1), status[2];
  if (must & CLONE_NEWUSER) enter_user_namespace(step->name);
  check(step->name, RESULT(unshare(must & ~CLONE_NEWUSER)));
  for (int bit = 1; bit > 0 && bit <= CLONE_NEWNET; bit <<= 1) {
    if (may & bit && unshare(bit) != 0) may &= ~bit;
  }
  if (!((must | may) & CLONE_NEWPID)) return false;
  /* Signals of a terminal go to all of its processes; the main process ends these in order. */
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  check(step->name, RESULT(pipe2(status, O_CLOEXEC)));
  pid_t child = fork();
  if (child < 0) fail("fork", -errno);
  if (child > 0) wait_for_status((close(status[1]), status[0]));
  child = fork();
  if (child < 0) fail("fork", -errno);
  if (child > 0) reap(child, status[1]);
  close(status[0]);
  close(status[1]);
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  return true;
}

static void become(const struct step *step) {
  size_t count = step->bytes / sizeof(int32_t);
  gid_t groups[NGROUPS_MAX];
  if (count < 2 || count - 2 > NGROUPS_MAX) fail(step->name, -EINVAL);
  for (size_t i = 2; i < count; i++) groups[i - 2] = (gid_t)word(step, i);
  uid_t uid = (uid_t)word(step, 0);
  gid_t gid = (gid_t)word(step, 1);
  check(step->name, RESULT(setgroups(count - 2, groups)));
  check(step->name, RESULT(setresgid(gid, gid, gid)));
  check(step->name, RESULT(setresuid(uid, uid, uid)));
}

static _Noreturn void execute(const struct step *step, bool inside) {
  static char *words[WORDS_MAX + 2];
  size_t count = 0;
  if (step->bytes == 0 || step->operand[step->bytes - 1] != 0) fail(step->name, -EINVAL);
  for (char *at = step->operand; at < step->operand + step->bytes; at += strlen(at) + 1) {
    if (count == WORDS_MAX) fail(step->name, -E2BIG);
    words[count++] = at;
  }
  size_t arguments = count > 1 ? (size_t)atoi(words[1]) : 0;
  if (arguments < 1 || arguments > count - 2) fail(step->name, -EINVAL);
  /* One more word is needed for the NULL behind the arguments: the environment moves up. */
  memmove(words + 3 + arguments, words + 2 + arguments, (count - 2 - arguments) * sizeof *words);
  words[2 + arguments] = NULL;
  die_with_parent(inside ? 1 : -1);
  execve(words[0], words + 2, words + 3 + arguments);
  fail(words[0], -errno);
}

int main(void) {
  size_t bytes;
  struct step step;
  bool inside = false;
  die_with_parent(-1);
  char *plan = read_plan(&bytes);
  int null = open("/dev/null", O_RDWR);
  if (null < 0 || dup2(null, 0) < 0) fail("/dev/null", -errno);
  if (null > 0) close(null);
  for (char *at = plan; at < plan + bytes;) {
    at = next_step(at, plan + bytes, &step);
    if (strcmp(step.name, "namespaces") == 0) inside = enter_namespaces(&step);
    else if (strcmp(step.name, "root") == 0) run(&step, sys_private_root);
    else if (strcmp(step.name, "bound") == 0) run(&step, sys_bound_capabilities);
    else if (strcmp(step.name, "user") == 0) become(&step);
    else if (strcmp(step.name, "capabilities") == 0) run(&step, sys_keep_capabilities);
    else if (strcmp(step.name, "landlock") == 0) run(&step, sys_landlock);
    else if (strcmp(step.name, "execute") == 0) execute(&step, inside);
    else if (strcmp(step.name, "succeed") == 0) _exit(0);
    else if (strcmp(step.name, "limit") == 0) {
      struct rlimit limit = {(uint32_t)word(&step, 1), (uint32_t)word(&step, 1)};
      check(step.name, RESULT(setrlimit((__rlimit_resource_t)word(&step, 0), &limit)));
    } else if (strcmp(step.name, "directory") == 0) {
      char path[4096] = {0};
      memcpy(path, step.operand, step.bytes < sizeof path - 1 ? step.bytes : sizeof path - 1);
      check(step.name, RESULT(chdir(path)));
    } else fail(step.name, -EINVAL);
  }
  fail("plan", -EINVAL);
}
