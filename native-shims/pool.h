#ifndef POOL_H
#define POOL_H

#include "call.h"

#include <stdbool.h>

/*
 * Each file system has a pool of threads, so that one that hangs delays no other. In those from POOL_UNKILLABLE on,
 * calls may hang for ever, and not even SIGKILL ends them: their threads are child processes (child.h).
 */
enum { POOLS = 128, POOL_UNKILLABLE = 64 };

/* An event loop that submits jobs. `finished` is called on a pool thread when the list of finished jobs was empty. */
struct loop {
  struct job *done_first, *done_last;
  unsigned running;
  struct helper *helper; /* handoff.c */
  void (*finished)(struct loop *loop);
};

/* Queues a copy of the block. The memory of the segments must stay valid until the job is done. 0, or -errno. */
int64_t pool_submit(struct loop *loop, const struct control *control, struct group_list *groups,
                    const struct iovec *segment, int segment_count);

/*
 * For a call that a thread outside of the pool makes: `pool_report` delivers its result like those of jobs, `pool_expect_no_more`
 * cancels that. NULL without memory.
 */
struct job *pool_expect(struct loop *loop, uint32_t slot, uint32_t queue);
void pool_report(struct job *job, int64_t result, uint32_t blocked_ms);
void pool_expect_no_more(struct job *job);

/* Removes a job that has not begun: true, and it will not be reported. */
bool pool_withdraw(struct loop *loop, uint32_t slot);

/* Takes up to `max` finished jobs, all of one queue; `more` says whether others are left. */
unsigned pool_take(struct loop *loop, struct done *done, unsigned max, uint32_t *queue, bool *more);

/* Removes the loop: drops its queued jobs, and waits for those that run, since they use its memory. */
void pool_leave(struct loop *loop);

/* At most `threads` in each pool, and `running` jobs of one queue at a time; queue 0 has no such bound. */
void pool_set_bounds(unsigned threads, unsigned running);

/* Ends all threads, each after the job it has. */
void pool_stop(void);

/* The same, with new threads for what is queued: they inherit what the calling thread has given up. */
void pool_renew(void);

/* Changes with `pool_stop` and `pool_renew`. */
unsigned pool_generation(void);

/* Starts a detached thread that blocks all signals and has the credentials of this one. 0, or -errno. */
int pool_start_thread(void *(*run)(void *), void *argument);

#endif
