#ifndef USER_GROUPS_H
#define USER_GROUPS_H

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>

/* getgrouplist(3). The count of groups, which the caller frees also on failure; -ENOMEM, or -E2BIG for more than NGROUPS_MAX. */
static inline int64_t groups_of_user(const struct passwd *user, gid_t **groups) {
  int count = 64;
  for (*groups = NULL;;) {
    int room = count;
    gid_t *larger = realloc(*groups, (size_t)room * sizeof **groups);
    if (!larger) return -ENOMEM;
    *groups = larger;
    if (getgrouplist(user->pw_name, user->pw_gid, *groups, &count) >= 0) return count > NGROUPS_MAX ? -E2BIG : count;
    if (count <= room) count = 2 * room;
  }
}

#endif
