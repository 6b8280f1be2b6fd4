#ifndef HANDOFF_H
#define HANDOFF_H

#include "pool.h"

enum {
  HANDOFF_BYTES_MAX = 128 * 1024, /* of the data of a call: a write by a Linux guest whose msize is the default */
  HANDOFF_LATE = INT32_MIN,      /* no result, and no -errno */
};

/*
 * Makes a call that changes a file system. The loop waits for it for HANDOFF_WAIT_NS at most, whatever holds it up. Returns its
 * result, or HANDOFF_LATE: then the result comes with those of the pool. `took` as of `perform`.
 *
 * A call is made on the loop's own thread if another change in its place, which began less than the block's `trust_us` ago,
 * has returned and the caller has no `groups` (see `perform`). Otherwise its data is copied, HANDOFF_BYTES_MAX at most (-EINVAL), and nobody has to keep it.
 */
int64_t hand_off(struct loop *loop, const struct control *control, struct group_list *groups, const struct iovec *segment,
                 int segment_count, uint32_t *took);

/* Ends the loop's helper. */
void handoff_leave(struct loop *loop);

#endif
