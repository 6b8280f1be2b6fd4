#ifndef HANDOFF_H
#define HANDOFF_H

#include "pool.h"

enum {
  HANDOFF_BYTES_MAX = 128 * 1024, /* data of a call: a write of a Linux guest with the default msize */
  HANDOFF_LATE = INT32_MIN,       /* neither a result nor -errno */
};

/*
 * Makes a call that changes a file system, for which the loop waits HANDOFF_WAIT_NS (4 ms) at most. Returns its
 * result, or HANDOFF_LATE: the result then comes with those of the pool. `blocked_ms` as of `perform`.
 *
 * The call is made on the loop's own thread if a change in the same pool that began less than the block's `trust_us`
 * ago has returned, and the caller has no `groups` (see `perform`). Otherwise its data is copied: HANDOFF_BYTES_MAX
 * at most, else -EINVAL.
 */
int64_t hand_off(struct loop *loop, const struct control *control, struct group_list *groups,
                 const struct iovec *segment, int segment_count, uint32_t *blocked_ms);

/* Ends the loop's helper. */
void handoff_leave(struct loop *loop);

#endif
