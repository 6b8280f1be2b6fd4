#ifndef POOL_H
#define POOL_H

#include "call.h"

#include <stdbool.h>

/*
 * A place is where jobs wait: each file system has one with threads of its own, so that one that hangs holds up no other.
 * From PLACE_APART on, whatever runs may never end, not even by SIGKILL: its threads are processes (apart.h).
 */
enum { PLACES = 128, PLACE_APART = 64 };

/* An event loop that jobs come from. `finished` is called on a pool thread, once until `pool_take` has emptied the list. */
struct loop {
  struct job *done_first, *done_last;
  unsigned running;
  struct helper *helper; /* handoff.c */
  void (*finished)(struct loop *loop);
};

/* Queues a copy of the block; the memory of the segments stays the caller's until the job is done. 0, or -errno. */
int64_t pool_submit(struct loop *loop, const struct control *control, struct group_list *groups, const struct iovec *segment,
                    int segment_count);

/*
 * For a call that no thread of the pool makes: its result will come with those of the pool, by `pool_report`, unless
 * `pool_expect_no_more` says otherwise. NULL without memory.
 */
struct job *pool_expect(struct loop *loop, uint32_t slot, uint32_t queue);
void pool_report(struct job *job, int64_t result, uint32_t took);
void pool_expect_no_more(struct job *job);

/* Takes back a job that nothing was done of yet: true, and it will not be reported. */
bool pool_withdraw(struct loop *loop, uint32_t slot);

/* Takes up to `max` finished jobs, all of one queue; `more` says whether others are left. */
unsigned pool_take(struct loop *loop, struct done *done, unsigned max, uint32_t *queue, bool *more);

/* Forgets the loop: what waits is dropped, and what runs is waited for, since it uses the loop's memory. */
void pool_leave(struct loop *loop);

/* `threads` for each place, and how many jobs of one queue may run there at a time; queue 0 has no such bound. */
void pool_set_bounds(unsigned threads, unsigned running);

/* Has new threads do what comes, and the old ones end after the job they have: what is given up now, all have given up. */
void pool_renew(void);

/* Moves with `pool_renew`. */
unsigned pool_generation(void);

/* Starts a detached thread that blocks all signals and has the credentials of this one. 0, or -errno. */
int pool_start_thread(void *(*run)(void *), void *argument);

#endif
