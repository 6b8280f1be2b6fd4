/*
 * The process `ninepd-closer`. Sockets, pipes and terminals stay open as long as a thread or a child of the server
 * hangs, since all share one table of descriptors; threads hang in local file systems as well, when a disk fails or
 * is frozen. So a child that makes no other call closes them when the server has begun to end, SIGKILL included.
 *
 * The child waits for a robust futex (set_robust_list(2)) that the thread which lends to it owns: the kernel marks it
 * when that thread ends, and `closer_stop` changes it. No signal is needed for either: the seccomp filter forbids to
 * send any.
 */
#include "closer.h"
#include "child.h"
#include "syscalls.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Values of `owner` besides a thread id with FUTEX_WAITERS, and FUTEX_OWNER_DIED. No thread id is as large as STOPPED. */
enum { STARTING = 0, STOPPED = FUTEX_TID_MASK };

struct closer {
  struct robust_list_head robust;
  struct robust_list entry;
  _Atomic uint32_t owner;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct closer *closer;

/* Not FUTEX_PRIVATE_FLAG: exit_robust_list of kernel/futex wakes a shared futex. */
static int close_after_server(void *argument) {
  struct closer *own = argument;
  uint32_t owner;
  prctl(PR_SET_NAME, "ninepd-closer", 0, 0, 0);
  while ((owner = own->owner) != STOPPED && !(owner & FUTEX_OWNER_DIED)) {
    syscall(SYS_futex, &own->owner, FUTEX_WAIT, owner, NULL, NULL, 0);
  }
  if (owner != STOPPED) close_streams();
  return 0;
}

/* Makes this thread the owner. The list takes the place of the C library's, which this thread does not need. */
static void own_futex(struct closer *own) {
  uint32_t starting = STARTING, thread = (uint32_t)syscall(SYS_gettid);
  own->entry.next = &own->robust.list;
  own->robust.list.next = &own->entry;
  own->robust.futex_offset = offsetof(struct closer, owner) - offsetof(struct closer, entry);
  syscall(SYS_set_robust_list, &own->robust, sizeof own->robust);
  atomic_compare_exchange_strong(&own->owner, &starting, thread | FUTEX_WAITERS);
}

/* Starts the child again if somebody has killed it. */
static void *run_closer(void *argument) {
  struct closer *own = argument;
  struct robust_list_head *before;
  size_t bytes;
  int status;
  syscall(SYS_get_robust_list, 0, &before, &bytes);
  own_futex(own);
  while (own->owner != STOPPED && child_run(close_after_server, own, &status)) continue;
  pthread_mutex_lock(&mutex);
  if (closer == own) closer = NULL;
  pthread_mutex_unlock(&mutex);
  syscall(SYS_set_robust_list, before, bytes);
  free(own);
  return NULL;
}

void closer_start(void) {
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

bool closer_runs(void) {
  pthread_mutex_lock(&mutex);
  bool runs = closer != NULL;
  pthread_mutex_unlock(&mutex);
  return runs;
}

void closer_stop(void) {
  pthread_mutex_lock(&mutex);
  if (closer) {
    closer->owner = STOPPED;
    syscall(SYS_futex, &closer->owner, FUTEX_WAKE, 1, NULL, NULL, 0);
    closer = NULL;
  }
  pthread_mutex_unlock(&mutex);
}
