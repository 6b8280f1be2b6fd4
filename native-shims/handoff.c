/*
 * A call that changes a file system may block for long: on FIFREEZE, on a lease (F_SETLEASE) or delegation to be
 * broken, on the journal, on freeing blocks. No flag like RWF_NOWAIT prevents that, and the thread sleeps
 * uninterruptibly. So each event loop has a helper, a thread that makes the call while the loop waits. After
 * HANDOFF_WAIT_NS the loop continues, and takes another helper for its next call.
 *
 * A hand-off costs two thread switches: 2.5 µs, twice that with cold caches. A pool call costs five times as much,
 * mostly for the promise and for waking the event loop.
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

/* IDLE: no call. BUSY: the loop waits for the result. LEFT: the loop has continued. END: the helper is to end. */
enum { IDLE, BUSY, LEFT, END };

struct helper {
  _Atomic uint32_t state; /* a futex: the helper waits while IDLE, the loop while BUSY */
  atomic_bool begun;      /* the helper has begun the call */
  unsigned generation;    /* pool_generation() when it was started */
  struct job *late;       /* receives the result, set before LEFT */
  int64_t result;
  uint32_t blocked_ms;
  struct iovec segment;
  struct group_list *groups; /* of the call; one holder */
  struct control control;
  char bytes[HANDOFF_BYTES_MAX];
};

/* For each pool, when the last change that has returned began (CLOCK_MONOTONIC). */
static _Atomic int64_t proven_ns[POOLS];

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

static int wait_while(_Atomic uint32_t *state, uint32_t value, const struct timespec *until) {
  return (int)syscall(SYS_futex, state, FUTEX_WAIT_BITSET_PRIVATE, value, until, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void wake(_Atomic uint32_t *state) {
  syscall(SYS_futex, state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *help(void *argument) {
  struct helper *helper = argument;
  prctl(PR_SET_NAME, "ninepd-helper", 0, 0, 0);
  for (;;) {
    uint32_t state, busy = BUSY;
    while ((state = atomic_load(&helper->state)) == IDLE) wait_while(&helper->state, IDLE, NULL);
    if (state == END) break;
    atomic_store(&helper->begun, true);
    helper->result = perform(&helper->control, helper->groups, &helper->segment, 1, &helper->blocked_ms);
    group_list_drop(helper->groups);
    if (!atomic_compare_exchange_strong(&helper->state, &busy, IDLE)) {
      pool_report(helper->late, helper->result, helper->blocked_ms);
      break;
    }
    wake(&helper->state);
  }
  creds_leave();
  free(helper);
  return NULL;
}

/* NULL if no thread can be started. */
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

/* Copies the segments, concatenated. False if they are too large. */
static bool copy_data(struct helper *helper, const struct iovec *segment, int segment_count) {
  size_t bytes = 0;
  for (int i = 0; i < segment_count; i++) {
    if (segment[i].iov_len > sizeof helper->bytes - bytes) return false;
    if (segment[i].iov_len > 0) memcpy(helper->bytes + bytes, segment[i].iov_base, segment[i].iov_len);
    bytes += segment[i].iov_len;
  }
  helper->segment = (struct iovec){helper->bytes, bytes};
  return true;
}

/* False on timeout: the helper then reports through the pool, and no longer belongs to the loop. */
static bool wait_for(struct loop *loop, struct helper *helper, int64_t began) {
  int64_t end = began + HANDOFF_WAIT_NS;
  while (atomic_load(&helper->state) == BUSY) {
    struct timespec until = {.tv_sec = end / SECOND_NS, .tv_nsec = end % SECOND_NS};
    if (wait_while(&helper->state, BUSY, &until) == 0 || errno != ETIMEDOUT) continue;
    end += HANDOFF_WAIT_NS;
    if (!atomic_load(&helper->begun)) continue; /* it has had no CPU yet: the call does not block */
    uint32_t busy = BUSY;
    helper->late = pool_expect(loop, helper->control.slot, helper->control.queue);
    if (!helper->late) continue;
    if (atomic_compare_exchange_strong(&helper->state, &busy, LEFT)) return false;
    pool_expect_no_more(helper->late);
  }
  return true;
}

static int64_t on_helper(struct loop *loop, const struct control *control, struct group_list *groups,
                         const struct iovec *segment, int segment_count, int64_t began, uint32_t *blocked_ms) {
  struct helper *helper = helper_of(loop);
  if (!helper) return -EAGAIN;
  if (!copy_data(helper, segment, segment_count)) return -EINVAL;
  memcpy(&helper->control, control, (size_t)control_bytes(control));
  helper->groups = group_list_hold(groups);
  atomic_store(&helper->begun, false);
  atomic_store(&helper->state, BUSY);
  wake(&helper->state);
  if (wait_for(loop, helper, began)) {
    *blocked_ms = helper->blocked_ms;
    return helper->result;
  }
  loop->helper = NULL;
  return HANDOFF_LATE;
}

static int64_t on_this_thread(const struct control *control, const struct iovec *segment, int segment_count,
                              uint32_t *blocked_ms) {
  int64_t result = perform(control, NULL, segment, segment_count, blocked_ms);
  creds_restore();
  return result;
}

int64_t hand_off(struct loop *loop, const struct control *control, struct group_list *groups,
                 const struct iovec *segment, int segment_count, uint32_t *blocked_ms) {
  *blocked_ms = 0;
  if (control->pool >= POOLS) return -EINVAL;
  int64_t began = now_ns();
  bool trusted = !groups && began - proven_ns[control->pool] < (int64_t)control->trust_us * 1000;
  int64_t result = trusted ? on_this_thread(control, segment, segment_count, blocked_ms)
                           : on_helper(loop, control, groups, segment, segment_count, began, blocked_ms);
  if (result != HANDOFF_LATE) proven_ns[control->pool] = began;
  return result;
}

void handoff_leave(struct loop *loop) {
  if (!loop->helper) return;
  atomic_store(&loop->helper->state, END);
  wake(&loop->helper->state);
  loop->helper = NULL;
}
