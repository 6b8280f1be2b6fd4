/*
 * FILE_CAPS_RANGES: capabilities over objects whose owner and group both lie in the caller's ranges, as the root of a user
 * namespace has them (capable_wrt_inode_uidgid of kernel/capability.c). The host judges first, and over all other objects
 * alone. What it refuses is tried once more with the capabilities if all objects lie in the ranges that the kernel would ask
 * about.
 *
 * An object that a descriptor leads to stays the same until the second try; only a program of the host can give it to an
 * owner outside. A name may lead to another object by then, but asked about by name is only what the owner of the directory
 * may rename and remove anyway, and the directory lies in the ranges: the guest can act as its owner.
 */
#include "ranges.h"
#include "creds.h"
#include "syscalls.h"

#include <fcntl.h>
#include <sys/stat.h>

static bool is_in(const struct id_range *ranges, uint32_t count, uint32_t id) {
  for (uint32_t i = 0; i < count && i < RANGES_MAX; i++)
    if (id >= ranges[i].first && id - ranges[i].first < ranges[i].count) return true;
  return false;
}

static bool has(const struct creds *caller, const struct stat *object) {
  return is_in(caller->ranges, caller->uid_ranges, object->st_uid) &&
         is_in(caller->ranges + RANGES_MAX, caller->gid_ranges, object->st_gid);
}

static bool has_open(const struct creds *caller, int fd, struct stat *object) {
  return fstat(fd, object) == 0 && has(caller, object);
}

static bool look_at(int dirfd, const char *name, struct stat *object) {
  return fstatat(dirfd, name, object, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0;
}

/* may_delete of fs/namei.c: the entry's owner counts in a sticky directory. */
static bool may_delete(const struct creds *caller, const struct call *c) {
  struct stat dir, entry;
  if (!has_open(caller, c->number[0], &dir)) return false;
  return !(dir.st_mode & S_ISVTX) || (look_at(c->number[0], c->text[0], &entry) && has(caller, &entry));
}

/* vfs_rename of fs/namei.c: besides, a directory that gets another parent is written to. */
static bool may_rename(const struct creds *caller, const struct call *c) {
  struct stat from, to, moved, victim;
  if (!has_open(caller, c->number[0], &from) || !has_open(caller, c->number[1], &to)) return false;
  if (!look_at(c->number[0], c->text[0], &moved)) return false;
  bool same = from.st_dev == to.st_dev && from.st_ino == to.st_ino;
  bool asked = (from.st_mode & S_ISVTX) || (S_ISDIR(moved.st_mode) && !same);
  if (asked && !has(caller, &moved)) return false;
  return !(to.st_mode & S_ISVTX) || !look_at(c->number[1], c->text[1], &victim) || has(caller, &victim);
}

/* vfs_link of fs/namei.c: the directory, and the object for protected_hardlinks (proc_sys_fs(5)). */
static bool may_link(const struct creds *caller, const struct call *c) {
  struct stat object, dir;
  return has_open(caller, c->number[0], &object) && has_open(caller, c->number[1], &dir);
}

bool in_ranges(const struct creds *caller, const struct row *row, const struct call *call) {
  struct stat object;
  if (caller->server || caller->uid == 0 || caller->file_caps != FILE_CAPS_RANGES) return false;
  creds_restore();
  if (row->run == sys_unlink) return may_delete(caller, call);
  if (row->run == sys_rename) return may_rename(caller, call);
  if (row->run == sys_link) return may_link(caller, call);
  return has_open(caller, call->number[0], &object);
}
