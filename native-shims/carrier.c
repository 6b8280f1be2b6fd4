/*
 * Threads that make the calls of callers in many groups while an event loop waits for them. setgroups(2) copies and sorts the
 * groups (groups_sort of kernel/groups.c): 65,536 take 10 to 30 ms, which the event loop would spend for each call, since it has
 * to be the server again after it. A carrier keeps the credentials, so that a call costs two switches of threads.
 */
#include "carrier.h"
#include "creds.h"
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <time.h>

enum { CARRIERS = 8, IDLE_SECONDS = 60 };

struct request {
  const struct control *control;
  struct group_list *groups;
  const struct iovec *segment;
  int segment_count;
  uint32_t *took;
  int64_t result;
};

struct carrier {
  bool started;
  /* What it was asked to do and has not done. */
  struct request *request;
  pthread_cond_t asked, done;
  const struct group_list *groups; /* which it has */
  uint64_t used;                   /* the number of its last call */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct carrier carriers[CARRIERS];
static uint64_t calls;

/* False when it was asked for nothing for so long that it is not worth its memory. */
static bool wait_for_request(struct carrier *own) {
  struct timespec until;
  int waited = 0;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += IDLE_SECONDS;
  while (!own->request && waited != ETIMEDOUT) waited = pthread_cond_timedwait(&own->asked, &mutex, &until);
  return own->request != NULL;
}

static void *serve(void *argument) {
  struct carrier *own = argument;
  prctl(PR_SET_NAME, "ninepd-carrier", 0, 0, 0);
  pthread_mutex_lock(&mutex);
  while (wait_for_request(own)) {
    struct request *request = own->request;
    pthread_mutex_unlock(&mutex);
    request->result = perform(request->control, request->groups, request->segment, request->segment_count, request->took);
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

static bool start(struct carrier *carrier) {
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&carrier->asked, &attr);
  pthread_cond_init(&carrier->done, &attr);
  pthread_condattr_destroy(&attr);
  carrier->request = NULL;
  carrier->groups = NULL;
  carrier->started = pool_start_thread(serve, carrier) == 0;
  return carrier->started;
}

/* The one that has these groups, or a new one, or the one that was not asked for longest; NULL when all are busy. */
static struct carrier *carrier_for(const struct group_list *groups) {
  struct carrier *other = NULL, *fresh = NULL;
  for (struct carrier *one = carriers; one < carriers + CARRIERS; one++) {
    if (!one->started) fresh = one;
    else if (one->request) continue;
    else if (one->groups == groups) return one;
    else if (!other || one->used < other->used) other = one;
  }
  return fresh && start(fresh) ? fresh : other;
}

/* False when no thread can be had. */
static bool carried(struct request *request) {
  pthread_mutex_lock(&mutex);
  struct carrier *carrier = carrier_for(request->groups);
  if (carrier) {
    carrier->groups = request->groups;
    carrier->used = ++calls;
    carrier->request = request;
    pthread_cond_signal(&carrier->asked);
    while (carrier->request == request) pthread_cond_wait(&carrier->done, &mutex);
  }
  pthread_mutex_unlock(&mutex);
  return carrier != NULL;
}

int64_t carry(const struct control *control, struct group_list *groups, const struct iovec *segment, int segment_count,
              uint32_t *took) {
  struct request request = {control, groups, segment, segment_count, took, 0};
  if (groups && carried(&request)) return request.result;
  int64_t result = perform(control, groups, segment, segment_count, took);
  creds_restore();
  return result;
}
