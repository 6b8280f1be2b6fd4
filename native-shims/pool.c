/*
 * Threads for calls that may block. libuv's will not do: a slow file system under an export would delay the files, names and
 * sockets of Node itself, and these threads change their credentials.
 *
 * Each file system has a pool. Its threads are started as they are needed. The queues of a pool, one for each session, are served
 * round-robin, and each has a bound of running jobs.
 */
#include "pool.h"
#include "child.h"
#include "closer.h"
#include "creds.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

enum { IDLE_SECONDS = 5 };

struct job {
  struct job *next;
  struct loop *loop;
  struct queue *queue;
  struct group_list *groups;
  int32_t result;
  uint32_t blocked_ms;
  int segment_count;
  struct iovec *segment;
  struct control control; /* allocated up to the end of its texts; the segments follow */
};

/* The jobs of one session in one pool. Rows with SLOW_QUEUE have a second one. */
struct queue {
  struct queue *before, *after; /* a ring, least recently served first */
  struct loop *loop;
  uint32_t number;
  int slow; /* SLOW_QUEUE of the rows */
  unsigned running;
  struct job *first, *last;
};

struct pool {
  pthread_cond_t work;
  bool ready;
  struct queue ring; /* the head */
  unsigned threads, idle;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle_again = PTHREAD_COND_INITIALIZER;
static struct pool pools[POOLS];
static unsigned threads_max = 64, running_max = 8;
static _Atomic unsigned generation;

static void make_ready(struct pool *pool) {
  pthread_condattr_t attr;
  if (pool->ready) return;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&pool->work, &attr);
  pthread_condattr_destroy(&attr);
  pool->ring.before = pool->ring.after = &pool->ring;
  pool->ready = true;
}

static void put_last(struct pool *pool, struct queue *queue) {
  queue->before = pool->ring.before;
  queue->after = &pool->ring;
  queue->before->after = queue->after->before = queue;
}

static void take_out(struct queue *queue) {
  queue->before->after = queue->after;
  queue->after->before = queue->before;
}

static struct queue *queue_for(struct pool *pool, const struct job *job) {
  int slow = shims[job->control.shim].flags & SLOW_QUEUE;
  for (struct queue *queue = pool->ring.after; queue != &pool->ring; queue = queue->after)
    if (queue->number == job->control.queue && queue->slow == slow && queue->loop == job->loop) return queue;
  struct queue *queue = calloc(1, sizeof *queue);
  if (!queue) return NULL;
  queue->loop = job->loop;
  queue->number = job->control.queue;
  queue->slow = slow;
  put_last(pool, queue);
  return queue;
}

static void free_if_empty(struct queue *queue) {
  if (queue->running > 0 || queue->first) return;
  take_out(queue);
  free(queue);
}

static bool may_run(const struct queue *queue) {
  return queue->first && (queue->number == 0 || queue->running < running_max);
}

static bool wants_thread(const struct pool *pool) {
  unsigned runnable = 0;
  for (const struct queue *queue = pool->ring.after; queue != &pool->ring; queue = queue->after) {
    unsigned room = queue->number == 0 ? threads_max : running_max - queue->running;
    for (const struct job *job = may_run(queue) ? queue->first : NULL; job && room > 0; job = job->next, room--)
      if (++runnable > pool->idle) return pool->threads < threads_max;
  }
  return false;
}

static struct job *next_job(struct pool *pool) {
  for (struct queue *queue = pool->ring.after; queue != &pool->ring; queue = queue->after) {
    if (!may_run(queue)) continue;
    struct job *job = queue->first;
    queue->first = job->next;
    queue->running++;
    job->loop->running++;
    take_out(queue);
    put_last(pool, queue);
    return job;
  }
  return NULL;
}

static void finish(struct job *job) {
  struct loop *loop = job->loop;
  if (job->queue) {
    job->queue->running--;
    free_if_empty(job->queue);
  }
  job->next = NULL;
  loop->running--;
  if (loop->done_first) {
    loop->done_last = loop->done_last->next = job;
  } else {
    loop->done_first = loop->done_last = job;
    loop->finished(loop);
  }
  if (loop->running == 0) pthread_cond_broadcast(&idle_again);
}

/* False after IDLE_SECONDS without work. */
static bool wait_for_work(struct pool *pool) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += IDLE_SECONDS;
  pool->idle++;
  int waited = pthread_cond_timedwait(&pool->work, &mutex, &until);
  pool->idle--;
  return waited != ETIMEDOUT;
}

static int run_jobs(void *argument) {
  struct pool *pool = argument;
  prctl(PR_SET_NAME, "ninepd-pool", 0, 0, 0);
  pthread_mutex_lock(&mutex);
  unsigned born = generation;
  while (pool->threads <= threads_max && born == generation) {
    struct job *job = next_job(pool);
    if (!job && !wait_for_work(pool) && !(job = next_job(pool))) break;
    if (!job) continue;
    pthread_mutex_unlock(&mutex);
    job->result = (int32_t)perform(&job->control, job->groups, job->segment, job->segment_count, &job->blocked_ms);
    pthread_mutex_lock(&mutex);
    finish(job);
  }
  pool->threads--;
  pthread_mutex_unlock(&mutex);
  creds_leave();
  return 0;
}

static void *run_in_thread(void *pool) {
  run_jobs(pool);
  return NULL;
}

static int run_jobs_in_child(void *pool) {
  child_die_with_server();
  return run_jobs(pool);
}

static void *run_in_child(void *pool) {
  int status = 0;
  if (!child_run(run_jobs_in_child, pool, &status)) run_jobs(pool);
  if (status != 0) abort(); /* as if a thread had crashed */
  return NULL;
}

/* Signals are for Node's main thread. The new thread inherits the server's credentials from this one. */
int pool_start_thread(void *(*run)(void *), void *argument) {
  pthread_t thread;
  pthread_attr_t attr;
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  closer_start();
  int failed = pthread_create(&thread, &attr, run, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  return -failed;
}

static int start_thread(struct pool *pool) {
  int failed = pool_start_thread(pool < pools + POOL_UNKILLABLE ? run_in_thread : run_in_child, pool);
  if (!failed) pool->threads++;
  return failed;
}

static struct job *copy(const struct control *control, struct group_list *groups, const struct iovec *segment,
                        int segment_count) {
  size_t head = offsetof(struct job, control) + (size_t)control_bytes(control);
  size_t at = (head + _Alignof(struct iovec) - 1) & ~(_Alignof(struct iovec) - 1);
  char *room = malloc(at + (size_t)segment_count * sizeof *segment);
  if (!room) return NULL;
  struct job *job = (struct job *)room;
  memcpy(&job->control, control, (size_t)control_bytes(control));
  job->segment = (struct iovec *)(room + at);
  job->segment_count = segment_count;
  job->groups = group_list_hold(groups);
  if (segment_count > 0) memcpy(job->segment, segment, (size_t)segment_count * sizeof *segment);
  return job;
}

static void append(struct queue *queue, struct job *job) {
  job->queue = queue;
  job->next = NULL;
  if (queue->first) queue->last->next = job;
  else queue->first = job;
  queue->last = job;
}

/* Removes the queued jobs of a loop, or the one in `slot`; returns them as a list. */
static struct job *remove_waiting(struct loop *loop, const uint32_t *slot) {
  struct job *removed = NULL;
  for (struct pool *pool = pools; pool < pools + POOLS; pool++) {
    struct queue *next;
    if (!pool->ready) continue;
    for (struct queue *queue = pool->ring.after; queue != &pool->ring; queue = next) {
      next = queue->after;
      if (queue->loop != loop) continue;
      for (struct job **at = &queue->first, *job; (job = *at);) {
        if (slot && job->control.slot != *slot) {
          queue->last = job;
          at = &job->next;
          continue;
        }
        *at = job->next;
        job->next = removed;
        removed = job;
      }
      free_if_empty(queue);
    }
  }
  return removed;
}

static void free_all(struct job *job) {
  while (job) {
    struct job *next = job->next;
    group_list_drop(job->groups);
    free(job);
    job = next;
  }
}

int64_t pool_submit(struct loop *loop, const struct control *control, struct group_list *groups,
                    const struct iovec *segment, int segment_count) {
  if (control->pool >= POOLS) return -EINVAL;
  struct pool *pool = &pools[control->pool];
  struct job *job = copy(control, groups, segment, segment_count);
  if (!job) return -ENOMEM;
  job->loop = loop;
  job->next = NULL;
  pthread_mutex_lock(&mutex);
  make_ready(pool);
  struct queue *queue = queue_for(pool, job);
  int failed = queue ? 0 : -ENOMEM;
  if (queue) append(queue, job);
  if (queue && wants_thread(pool)) failed = start_thread(pool);
  /* If no thread can be started, those that run will take the job. */
  if (failed && queue && pool->threads > 0) failed = 0;
  if (failed && queue) free_all(remove_waiting(loop, &control->slot));
  else if (failed) free_all(job);
  else pthread_cond_signal(&pool->work);
  pthread_mutex_unlock(&mutex);
  return failed;
}

struct job *pool_expect(struct loop *loop, uint32_t slot, uint32_t queue) {
  struct job *job = calloc(1, sizeof *job);
  if (!job) return NULL;
  job->loop = loop;
  job->control.slot = slot;
  job->control.queue = queue;
  pthread_mutex_lock(&mutex);
  loop->running++;
  pthread_mutex_unlock(&mutex);
  return job;
}

void pool_report(struct job *job, int64_t result, uint32_t blocked_ms) {
  job->result = (int32_t)result;
  job->blocked_ms = blocked_ms;
  pthread_mutex_lock(&mutex);
  finish(job);
  pthread_mutex_unlock(&mutex);
}

void pool_expect_no_more(struct job *job) {
  pthread_mutex_lock(&mutex);
  job->loop->running--;
  pthread_mutex_unlock(&mutex);
  free(job);
}

unsigned pool_generation(void) {
  return generation;
}

bool pool_withdraw(struct loop *loop, uint32_t slot) {
  pthread_mutex_lock(&mutex);
  struct job *job = remove_waiting(loop, &slot);
  pthread_mutex_unlock(&mutex);
  free_all(job);
  return job != NULL;
}

unsigned pool_take(struct loop *loop, struct done *done, unsigned max, uint32_t *queue, bool *more) {
  unsigned count = 0;
  struct job *taken = NULL;
  pthread_mutex_lock(&mutex);
  if (loop->done_first) *queue = loop->done_first->control.queue;
  for (struct job **at = &loop->done_first, *job; (job = *at);) {
    if (count == max || job->control.queue != *queue) {
      loop->done_last = job;
      at = &job->next;
      continue;
    }
    done[count++] = (struct done){job->control.slot, job->result, job->blocked_ms};
    *at = job->next;
    job->next = taken;
    taken = job;
  }
  *more = loop->done_first != NULL;
  pthread_mutex_unlock(&mutex);
  free_all(taken);
  return count;
}

void pool_leave(struct loop *loop) {
  pthread_mutex_lock(&mutex);
  struct job *dropped = remove_waiting(loop, NULL);
  while (loop->running > 0) pthread_cond_wait(&idle_again, &mutex);
  free_all(dropped);
  free_all(loop->done_first);
  loop->done_first = NULL;
  pthread_mutex_unlock(&mutex);
}

static void wake_all(void) {
  for (struct pool *pool = pools; pool < pools + POOLS; pool++)
    if (pool->ready) pthread_cond_broadcast(&pool->work);
}

void pool_set_bounds(unsigned threads, unsigned running) {
  pthread_mutex_lock(&mutex);
  threads_max = threads < 1 ? 1 : threads;
  running_max = running < 1 ? 1 : running;
  wake_all();
  pthread_mutex_unlock(&mutex);
}

void pool_stop(void) {
  pthread_mutex_lock(&mutex);
  generation++;
  wake_all();
  pthread_mutex_unlock(&mutex);
}

void pool_renew(void) {
  pthread_mutex_lock(&mutex);
  generation++;
  for (struct pool *pool = pools; pool < pools + POOLS; pool++)
    if (pool->ready && pool->ring.after != &pool->ring) start_thread(pool);
  wake_all();
  pthread_mutex_unlock(&mutex);
}
