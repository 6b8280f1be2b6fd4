/*
 * A call that changes a file system may be held up for long: by FIFREEZE, by a lease (F_SETLEASE) or a delegation that has to be
 * broken, by the journal, by blocks that have to be freed. Nothing tells beforehand (no flag like RWF_NOWAIT covers it), and the
 * thread that makes the call sleeps uninterruptibly. So an event loop has a helper, a thread that makes the call while the loop
 * waits. When that takes too long, the loop goes on and gets another helper for its next call.
 *
 * A hand-off costs two switches between threads, some 2.5 µs, and twice that when the processor's caches have cooled down. A trip to the
 * pool costs five times as much, most of it for the promise and for waking the event loop.
 */
#include "handoff.h"
#include "creds.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { HANDOFF_WAIT_NS = 4000000, SECOND_NS = 1000000000 };

/* IDLE: waits for a call. BUSY: the loop waits for its result. LEFT: the loop has gone on. END: no call comes any more. */
enum { IDLE, BUSY, LEFT, END };

struct helper {
  _Atomic uint32_t state; /* a futex: the helper waits while it is IDLE, the loop while it is BUSY */
  atomic_bool begun;      /* it has begun the call */
  unsigned generation;    /* pool_generation() at its start */
  struct job *late;       /* where its result goes, set before LEFT */
  int64_t result;
  uint32_t took;
  struct iovec segment;
  struct group_list *groups; /* of the call; held */
  struct control control;
  char bytes[HANDOFF_BYTES_MAX];
};

/* For each place, when the last change began there that has returned (CLOCK_MONOTONIC). */
static _Atomic int64_t proven_ns[PLACES];

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

static int wait_while(_Atomic uint32_t *state, uint32_t value, const struct timespec *until) {
  return (int)syscall(SYS_futex, state, FUTEX_WAIT_BITSET_PRIVATE, value, until, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void wake(_Atomic uint32_t *state) { syscall(SYS_futex, state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

static void *help(void *argument) {
  struct helper *helper = argument;
  prctl(PR_SET_NAME, "ninepd-helper", 0, 0, 0);
  for (;;) {
    uint32_t state, busy = BUSY;
    while ((state = atomic_load(&helper->state)) == IDLE) wait_while(&helper->state, IDLE, NULL);
    if (state == END) break;
    atomic_store(&helper->begun, true);
    helper->result = perform(&helper->control, helper->groups, &helper->segment, 1, &helper->took);
    group_list_drop(helper->groups);
    if (!atomic_compare_exchange_strong(&helper->state, &busy, IDLE)) {
      pool_report(helper->late, helper->result, helper->took);
      break;
    }
    wake(&helper->state);
  }
  creds_leave();
  free(helper);
  return NULL;
}

/* NULL when no thread can be had. */
static struct helper *helper_of(struct loop *loop) {
  unsigned generation = pool_generation();
  if (loop->helper && loop->helper->generation == generation) return loop->helper;
  handoff_leave(loop);
  struct helper *helper = malloc(sizeof *helper);
  if (!helper) return NULL;
  atomic_init(&helper->state, IDLE);
  helper->generation = generation;
  if (pool_start_thread(help, helper) != 0) {
    free(helper);
    return NULL;
  }
  return loop->helper = helper;
}

/* Copies the segments one behind the other. False when they are too large. */
static bool take_data(struct helper *helper, const struct iovec *segment, int segment_count) {
  size_t bytes = 0;
  for (int i = 0; i < segment_count; i++) {
    if (segment[i].iov_len > sizeof helper->bytes - bytes) return false;
    if (segment[i].iov_len > 0) memcpy(helper->bytes + bytes, segment[i].iov_base, segment[i].iov_len);
    bytes += segment[i].iov_len;
  }
  helper->segment = (struct iovec){helper->bytes, bytes};
  return true;
}

/* False when it takes too long: then the helper reports to the pool, and is the loop's no more. */
static bool wait_for(struct loop *loop, struct helper *helper, int64_t began) {
  int64_t end = began + HANDOFF_WAIT_NS;
  while (atomic_load(&helper->state) == BUSY) {
    struct timespec until = {.tv_sec = end / SECOND_NS, .tv_nsec = end % SECOND_NS};
    if (wait_while(&helper->state, BUSY, &until) == 0 || errno != ETIMEDOUT) continue;
    end += HANDOFF_WAIT_NS;
    if (!atomic_load(&helper->begun)) continue; /* It had no processor: nothing holds up the call. */
    uint32_t busy = BUSY;
    helper->late = pool_expect(loop, helper->control.slot, helper->control.queue);
    if (!helper->late) continue;
    if (atomic_compare_exchange_strong(&helper->state, &busy, LEFT)) return false;
    pool_expect_no_more(helper->late);
  }
  return true;
}

static int64_t beside(struct loop *loop, const struct control *control, struct group_list *groups, const struct iovec *segment,
                      int segment_count, int64_t began, uint32_t *took) {
  struct helper *helper = helper_of(loop);
  if (!helper) return -EAGAIN;
  if (!take_data(helper, segment, segment_count)) return -EINVAL;
  memcpy(&helper->control, control, (size_t)control_bytes(control));
  helper->groups = group_list_hold(groups);
  atomic_store(&helper->begun, false);
  atomic_store(&helper->state, BUSY);
  wake(&helper->state);
  if (wait_for(loop, helper, began)) {
    *took = helper->took;
    return helper->result;
  }
  loop->helper = NULL;
  return HANDOFF_LATE;
}

static int64_t here(const struct control *control, const struct iovec *segment, int segment_count, uint32_t *took) {
  int64_t result = perform(control, NULL, segment, segment_count, took);
  creds_restore();
  return result;
}

int64_t hand_off(struct loop *loop, const struct control *control, struct group_list *groups, const struct iovec *segment,
                 int segment_count, uint32_t *took) {
  *took = 0;
  if (control->place >= PLACES) return -EINVAL;
  int64_t began = now_ns();
  bool trusted = !groups && began - proven_ns[control->place] < (int64_t)control->trust_us * 1000;
  int64_t result = trusted ? here(control, segment, segment_count, took)
                           : beside(loop, control, groups, segment, segment_count, began, took);
  if (result != HANDOFF_LATE) proven_ns[control->place] = began;
  return result;
}

void handoff_leave(struct loop *loop) {
  if (!loop->helper) return;
  atomic_store(&loop->helper->state, END);
  wake(&loop->helper->state);
  loop->helper = NULL;
}
