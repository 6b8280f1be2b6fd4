/*
 * Child processes that share everything with the server but can be left behind. A call that a FUSE daemon or a file
 * server does not answer cannot be ended, not even by SIGKILL, once it was sent (request_wait_answer of
 * fs/fuse/dev.c), and a thread in such a call keeps its process from ending: whoever started ninepd would wait for
 * ever. So a thread lends its thread-local memory to a child, which makes the calls, and waits for it. The child is
 * killed when that thread ends (PR_SET_PDEATHSIG); if it hangs it stays, in state D, until its call returns.
 */
#include "child.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STACK_BYTES = 256 * 1024 };

struct start {
  int (*body)(void *);
  void *argument;
  pid_t server;
};

/* In a child the server's process id, otherwise 0. */
static _Thread_local pid_t server_pid;

static _Atomic int children;

bool in_child(void) {
  return server_pid != 0;
}

/* The check comes after prctl(2): the server may have ended before. */
void child_die_with_server(void) {
  if (!in_child()) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != server_pid) _exit(0);
}

static int begin(void *argument) {
  const struct start *start = argument;
  server_pid = start->server;
  int status = start->body(start->argument);
  server_pid = 0;
  return status;
}

/*
 * The wait is not CLONE_VFORK's, in which a debugger and the leak sanitizer cannot stop the thread, and not
 * waitpid(3)'s, which is a cancellation point and uses the memory that is lent.
 */
bool child_run(int (*body)(void *), void *argument, int *status) {
  struct start start = {body, argument, getpid()};
  char *stack = malloc(STACK_BYTES);
  children++;
  pid_t child =
      stack ? clone(begin, stack + STACK_BYTES, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_SIGHAND, &start) : -1;
  while (child > 0 && syscall(SYS_wait4, child, status, __WCLONE, NULL) < 0 && errno == EINTR) continue;
  children--;
  free(stack);
  return child > 0;
}

bool children_wait(int left, int ms) {
  const struct timespec one_ms = {.tv_nsec = 1000000};
  while (children > left && ms-- > 0) nanosleep(&one_ms, NULL);
  return children <= left;
}
