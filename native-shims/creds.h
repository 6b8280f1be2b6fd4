#ifndef CREDS_H
#define CREDS_H

#include "call.h"

/*
 * The groups of a caller who is in more than the control block has room for, up to NGROUPS_MAX. A list is never changed; all
 * calls of the caller hold the same one.
 */
struct group_list {
  _Atomic uint32_t holders;
  uint32_t count;
  uint32_t gids[];
};

/* A copy with one holder. NULL when there are more than NGROUPS_MAX, or no memory. */
struct group_list *group_list_of(const void *gids, size_t count);

/* Both take NULL. */
struct group_list *group_list_hold(struct group_list *list);
void group_list_drop(struct group_list *list);

/*
 * Gives this thread the credentials, unless it has them. `groups` has those of a caller who is in more than GROUPS_MAX. 0, or
 * -EPERM or -ENOMEM with the thread back at the server's.
 */
int creds_assume(const struct creds *wanted, struct group_list *groups);

/* Brings this thread back to the server's credentials. It does not return when that fails. */
void creds_restore(void);

/* To be called by a thread of the pool before it ends. */
void creds_leave(void);

#endif
