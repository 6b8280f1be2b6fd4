#ifndef CHILD_H
#define CHILD_H

#include <stdbool.h>

/*
 * Runs `body` in a child process that shares memory, descriptors and the working directory with this one, and returns when it has
 * ended. The child uses the thread-local memory of the calling thread. False when there can be no process (clone(2)).
 */
bool child_run(int (*body)(void *), void *argument, int *status);

/* Whether the caller is such a child. */
bool in_child(void);

/*
 * Has the kernel kill the calling child when the server ends. A change of effective ids clears that (commit_creds of
 * kernel/cred.c), so it is called again after each. In a thread of the server it does nothing.
 */
void child_die_with_server(void);

/* Waits until at most `left` children run, for `ms` milliseconds at most. False on timeout. */
bool children_wait(int left, int ms);

#endif
