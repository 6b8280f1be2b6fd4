#ifndef POOL_H
#define POOL_H

#include "call.h"

/* An event loop that jobs come from. `finished` is called on a pool thread, once until `pool_take` has emptied the list. */
struct loop {
  struct job *done_first, *done_last;
  unsigned running;
  void (*finished)(struct loop *loop);
};

/* Queues a copy of the block; the memory of the segments stays the caller's until the job is done. 0, or -errno. */
int64_t pool_submit(struct loop *loop, const struct control *control, const struct iovec *segment, int segment_count);

/* Takes up to `max` finished jobs. */
unsigned pool_take(struct loop *loop, struct done *done, unsigned max);

/* Forgets the loop: what is queued is dropped, and what runs is waited for, since it uses the loop's memory. */
void pool_leave(struct loop *loop);

void pool_set_threads_max(unsigned max);

#endif
