#ifndef APART_H
#define APART_H

#include <stdbool.h>

/*
 * Runs `body` in a process of its own, which shares memory, descriptors and the working directory with this one but can be left
 * behind, and returns when it has ended. The process uses the thread-local memory of this thread. It is killed when the server
 * ends, if no call keeps it.
 */
void apart_run(int (*body)(void *), void *argument);

/* Whether the calling thread is such a process. */
bool apart_is_here(void);

/* To be called after a change of the calling thread's credentials. */
void apart_watch_server(void);

/*
 * Has a process ready that closes sockets, pipes and terminals when the server ends, whatever of it hangs then. To be called by a
 * thread that blocks all signals, before there is a thread that may hang.
 */
void apart_start_closer(void);

/* Ends that process. To be called before this one gives up rights or executes another program. */
void apart_retire(void);

#endif
