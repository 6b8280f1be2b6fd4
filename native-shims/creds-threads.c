/*
 * Threads for inline calls of callers in many groups. setgroups(2) copies and sorts the groups (groups_sort of
 * kernel/groups.c): 65,536 take 10 to 30 ms, which the event loop would spend on each call, since it returns to the
 * server's credentials after each. These threads keep their credentials, so a call costs two switches of threads.
 */
#include "creds-threads.h"
#include "creds.h"
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <time.h>

enum { THREADS_MAX = 8, IDLE_SECONDS = 60 };

struct request {
  const struct control *control;
  struct group_list *groups;
  const struct iovec *segment;
  int segment_count;
  uint32_t *blocked_ms;
  int64_t result;
};

struct creds_thread {
  bool started;
  struct request *request; /* not yet done */
  pthread_cond_t asked, done;
  const struct group_list *groups; /* of its credentials */
  uint64_t used;                   /* number of its last call */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct creds_thread threads[THREADS_MAX];
static uint64_t calls;

/* False after IDLE_SECONDS without a request. */
static bool wait_for_request(struct creds_thread *own) {
  struct timespec until;
  int waited = 0;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += IDLE_SECONDS;
  while (!own->request && waited != ETIMEDOUT) waited = pthread_cond_timedwait(&own->asked, &mutex, &until);
  return own->request != NULL;
}

static void *serve(void *argument) {
  struct creds_thread *own = argument;
  prctl(PR_SET_NAME, "ninepd-creds", 0, 0, 0);
  pthread_mutex_lock(&mutex);
  while (wait_for_request(own)) {
    struct request *request = own->request;
    pthread_mutex_unlock(&mutex);
    request->result =
        perform(request->control, request->groups, request->segment, request->segment_count, request->blocked_ms);
    pthread_mutex_lock(&mutex);
    own->request = NULL;
    pthread_cond_broadcast(&own->done);
  }
  creds_leave();
  own->started = false;
  pthread_cond_destroy(&own->asked);
  pthread_cond_destroy(&own->done);
  pthread_mutex_unlock(&mutex);
  return NULL;
}

static bool start(struct creds_thread *thread) {
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&thread->asked, &attr);
  pthread_cond_init(&thread->done, &attr);
  pthread_condattr_destroy(&attr);
  thread->request = NULL;
  thread->groups = NULL;
  thread->started = pool_start_thread(serve, thread) == 0;
  return thread->started;
}

/* The thread that has these groups, else a new one, else the least recently used; NULL if all are busy. */
static struct creds_thread *thread_for(const struct group_list *groups) {
  struct creds_thread *other = NULL, *fresh = NULL;
  for (struct creds_thread *one = threads; one < threads + THREADS_MAX; one++) {
    if (!one->started) fresh = one;
    else if (one->request) continue;
    else if (one->groups == groups) return one;
    else if (!other || one->used < other->used) other = one;
  }
  return fresh && start(fresh) ? fresh : other;
}

/* False if no thread is free and none can be started. */
static bool performed_by_thread(struct request *request) {
  pthread_mutex_lock(&mutex);
  struct creds_thread *thread = thread_for(request->groups);
  if (thread) {
    thread->groups = request->groups;
    thread->used = ++calls;
    thread->request = request;
    pthread_cond_signal(&thread->asked);
    while (thread->request == request) pthread_cond_wait(&thread->done, &mutex);
  }
  pthread_mutex_unlock(&mutex);
  return thread != NULL;
}

int64_t perform_inline(const struct control *control, struct group_list *groups, const struct iovec *segment,
                       int segment_count, uint32_t *blocked_ms) {
  struct request request = {control, groups, segment, segment_count, blocked_ms, 0};
  if (groups && performed_by_thread(&request)) return request.result;
  int64_t result = perform(control, groups, segment, segment_count, blocked_ms);
  creds_restore();
  return result;
}
