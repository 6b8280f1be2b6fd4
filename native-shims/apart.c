/*
 * Processes for calls that may never return. A call that a FUSE daemon or a server does not answer cannot be ended by anything,
 * SIGKILL included, once it was sent (request_wait_answer of fs/fuse/dev.c). A thread in it keeps its process from ending: what
 * started ninepd would wait for ever. So a thread lends its thread-local memory to a process that shares all else, and waits
 * for it.
 *
 * The end of the server, SIGKILL included, has to end two things besides:
 *
 *   the processes, which would go on to hold mounts and memory. Each is killed by the kernel when the thread that lends to it
 *     ends (PR_SET_PDEATHSIG). A change of effective ids clears that signal (commit_creds of kernel/cred.c), so it is set again
 *     after each.
 *   sockets, pipes and terminals. They stay open as long as a process or a thread hangs that has them, since all have the same
 *     table of descriptors; and threads hang in local file systems as well, when a disk fails or is frozen. Another process,
 *     which makes no other call, closes them.
 */
#include "apart.h"
#include "syscalls.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_BYTES = 256 * 1024 };

struct start {
  int (*body)(void *);
  void *argument;
  pid_t server;
};

/* In such a process the server's id, otherwise 0. */
static _Thread_local pid_t apart_from;

/* The thread that has the process which closes; its id, 0 until it is known and −1 when there is none. */
struct closer {
  _Atomic pid_t pid;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct closer *closer;

bool apart_is_here(void) { return apart_from != 0; }

/* The check comes after: the server may have ended before. */
void apart_watch_server(void) {
  if (apart_from == 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != apart_from) _exit(0);
}

static int begin(void *argument) {
  const struct start *start = argument;
  apart_from = start->server;
  int status = start->body(start->argument);
  apart_from = 0;
  return status;
}

/*
 * False when no process can be had. Its id is known before `body` begins. The wait is not CLONE_VFORK's, in which a debugger and
 * the leak sanitizer cannot stop the thread, and not waitpid(3)'s, which is a cancellation point and uses the memory that is lent.
 */
static bool run(int (*body)(void *), void *argument, _Atomic pid_t *pid, int *status) {
  enum { FLAGS = CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_SIGHAND | CLONE_PARENT_SETTID };
  struct start start = {body, argument, getpid()};
  char *stack = malloc(STACK_BYTES);
  pid_t child = stack ? clone(begin, stack + STACK_BYTES, FLAGS, &start, pid) : -1;
  while (child > 0 && syscall(SYS_wait4, child, status, __WCLONE, NULL) < 0 && errno == EINTR) continue;
  free(stack);
  return child > 0;
}

/*
 * SIGRTMAX is blocked, as all signals are here. It comes with the end of the thread that waits for this process: the server
 * has begun to end, though some of its threads may hang and keep it from being gone.
 */
static int close_after_server(void *unused) {
  sigset_t ended;
  sigemptyset(&ended);
  sigaddset(&ended, SIGRTMAX);
  prctl(PR_SET_NAME, "ninepd-closer", 0, 0, 0);
  prctl(PR_SET_PDEATHSIG, SIGRTMAX);
  while (getppid() == apart_from && sigwaitinfo(&ended, NULL) < 0) continue;
  close_streams();
  return unused != NULL;
}

/* Starts it again if somebody has killed it. */
static void *run_closer(void *argument) {
  struct closer *own = argument;
  bool wanted = true, ran = true;
  while (wanted && ran) {
    int status;
    own->pid = 0;
    ran = run(close_after_server, NULL, &own->pid, &status);
    own->pid = -1;
    pthread_mutex_lock(&mutex);
    wanted = closer == own;
    if (wanted && !ran) closer = NULL;
    pthread_mutex_unlock(&mutex);
  }
  free(own);
  return NULL;
}

void apart_start_closer(void) {
  pthread_t thread;
  pthread_mutex_lock(&mutex);
  if (!closer && (closer = calloc(1, sizeof *closer))) {
    if (pthread_create(&thread, NULL, run_closer, closer) == 0) {
      pthread_detach(thread);
    } else {
      free(closer);
      closer = NULL;
    }
  }
  pthread_mutex_unlock(&mutex);
}

void apart_retire(void) {
  pthread_mutex_lock(&mutex);
  struct closer *own = closer;
  closer = NULL;
  while (own && own->pid == 0) sched_yield();
  if (own && own->pid > 0) kill(own->pid, SIGKILL);
  pthread_mutex_unlock(&mutex);
}

static int body_of_process(void *argument) {
  const struct start *start = argument;
  apart_watch_server();
  return start->body(start->argument);
}

void apart_run(int (*body)(void *), void *argument) {
  struct start start = {.body = body, .argument = argument};
  _Atomic pid_t pid;
  int status = 0;
  if (!run(body_of_process, &start, &pid, &status)) body(argument);
  if (status != 0) abort(); /* As if a thread had died. */
}
