/*
 * Threads for calls that may wait. They are not libuv's: a slow file system under an export must not hold up the files,
 * names and sockets of Node itself, and these threads change their credentials.
 */
#include "pool.h"
#include "creds.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

struct job {
  struct job *next;
  struct loop *loop;
  int32_t result;
  int segment_count;
  struct iovec *segment;
  struct control control; /* only as long as its texts; the segments follow */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static pthread_cond_t idle_again = PTHREAD_COND_INITIALIZER;
static struct job *first, *last;
static unsigned queued, threads, idle, threads_max = 16;

static void finish(struct job *job) {
  struct loop *loop = job->loop;
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

static void *serve(void *unused) {
  prctl(PR_SET_NAME, "ninepd-pool", 0, 0, 0);
  pthread_mutex_lock(&mutex);
  while (threads <= threads_max) {
    struct job *job = first;
    if (!job) {
      idle++;
      pthread_cond_wait(&work, &mutex);
      idle--;
      continue;
    }
    first = job->next;
    queued--;
    job->loop->running++;
    pthread_mutex_unlock(&mutex);
    job->result = (int32_t)perform(&job->control, job->segment, job->segment_count);
    pthread_mutex_lock(&mutex);
    finish(job);
  }
  threads--;
  pthread_mutex_unlock(&mutex);
  return unused;
}

/* Signals are the business of Node's main thread. The new thread inherits the server's credentials from this one. */
static int start_thread(void) {
  pthread_t thread;
  pthread_attr_t attr;
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&thread, &attr, serve, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  if (failed) return -failed;
  threads++;
  return 0;
}

static struct job *copy(const struct control *control, const struct iovec *segment, int segment_count) {
  size_t head = offsetof(struct job, control) + (size_t)control_bytes(control);
  size_t at = (head + _Alignof(struct iovec) - 1) & ~(_Alignof(struct iovec) - 1);
  char *room = malloc(at + (size_t)segment_count * sizeof *segment);
  if (!room) return NULL;
  struct job *job = (struct job *)room;
  memcpy(&job->control, control, (size_t)control_bytes(control));
  job->segment = (struct iovec *)(room + at);
  job->segment_count = segment_count;
  if (segment_count > 0) memcpy(job->segment, segment, (size_t)segment_count * sizeof *segment);
  return job;
}

int64_t pool_submit(struct loop *loop, const struct control *control, const struct iovec *segment, int segment_count) {
  struct job *job = copy(control, segment, segment_count);
  if (!job) return -ENOMEM;
  job->loop = loop;
  job->next = NULL;
  pthread_mutex_lock(&mutex);
  int failed = queued >= idle && threads < threads_max ? start_thread() : 0;
  if (failed && threads == 0) {
    pthread_mutex_unlock(&mutex);
    free(job);
    return failed;
  }
  if (first) last->next = job;
  else first = job;
  last = job;
  queued++;
  pthread_cond_signal(&work);
  pthread_mutex_unlock(&mutex);
  return 0;
}

unsigned pool_take(struct loop *loop, struct done *done, unsigned max) {
  unsigned count = 0;
  pthread_mutex_lock(&mutex);
  struct job *job = loop->done_first, *taken = job;
  for (; job && count < max; job = job->next) done[count++] = (struct done){job->control.slot, job->result};
  loop->done_first = job;
  pthread_mutex_unlock(&mutex);
  while (taken != job) {
    struct job *next = taken->next;
    free(taken);
    taken = next;
  }
  return count;
}

static void free_all(struct job *job) {
  while (job) {
    struct job *next = job->next;
    free(job);
    job = next;
  }
}

void pool_leave(struct loop *loop) {
  struct job *dropped = NULL;
  pthread_mutex_lock(&mutex);
  last = NULL;
  for (struct job **at = &first; *at;) {
    struct job *job = *at;
    if (job->loop != loop) {
      last = job;
      at = &job->next;
      continue;
    }
    *at = job->next;
    job->next = dropped;
    dropped = job;
    queued--;
  }
  while (loop->running > 0) pthread_cond_wait(&idle_again, &mutex);
  free_all(dropped);
  free_all(loop->done_first);
  loop->done_first = NULL;
  pthread_mutex_unlock(&mutex);
}

void pool_set_threads_max(unsigned max) {
  pthread_mutex_lock(&mutex);
  threads_max = max < 1 ? 1 : max;
  pthread_cond_broadcast(&work);
  pthread_mutex_unlock(&mutex);
}
