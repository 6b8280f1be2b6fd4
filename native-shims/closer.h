#ifndef CLOSER_H
#define CLOSER_H

#include <stdbool.h>

/*
 * Starts the process that closes sockets, pipes and terminals when the server ends, unless it runs. To be called by a thread that
 * blocks all signals, before any thread can hang.
 */
void closer_start(void);

bool closer_runs(void);

/* Has that process end without closing anything: before this one ends in order, gives up rights or executes another program. */
void closer_stop(void);

#endif
