/*
 * A root directory of its own: a small file system in memory in which only the paths named are there, each bound to what it
 * is on the host. It is made in a new mount namespace, mount_namespaces(7), in which this thread and what it executes then are.
 * Landlock judges no chmod(2), chown(2), setxattr(2), utimensat(2) and stat(2); what has no name in here they cannot reach.
 */
#include "syscalls.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* include/uapi/linux/mount.h; the C library's headers do not have all of it. The last call is of Linux 5.12. */
enum { CALL_OPEN_TREE = 428, CALL_MOVE_MOUNT, CALL_FSOPEN, CALL_FSCONFIG, CALL_FSMOUNT, CALL_MOUNT_SETATTR = 442 };
enum { TREE_CLONE = 1, FROM_DESCRIPTOR = 4, CLOSE_ON_EXEC = 1, CONFIG_CREATE = 6, RECURSIVE = 0x8000 };
enum { READ_ONLY = 1, NO_SUID = 2, NO_DEVICES = 4, NO_EXEC = 8 };

struct attributes {
  uint64_t set, clear, propagation, user_namespace;
};

static int64_t restrict_mount(int mount, int flags, uint64_t set) {
  struct attributes all = {.set = set};
  return RESULT(syscall(CALL_MOUNT_SETATTR, mount, "", AT_EMPTY_PATH | flags, &all, sizeof all));
}

static int64_t attach(int mount, int directory, const char *path) {
  return RESULT(syscall(CALL_MOVE_MOUNT, mount, "", directory, path, FROM_DESCRIPTOR));
}

/*
 * Rows, as texts with a NUL behind each: a letter and an absolute path without symlinks in it. For `l`, a symlink, the next
 * text is its target; `d` is an empty directory; `r` and `w` are bound from the host, the former to be read only.
 */
struct row_of_root {
  char letter, *path, *target;
};

static char *next_row(char *at, struct row_of_root *row) {
  *row = (struct row_of_root){.letter = at[0], .path = at + 1};
  at += strlen(at) + 1;
  if (row->letter != 'l') return at;
  row->target = at;
  return at + strlen(at) + 1;
}

/* Makes the name, of the type that it has on the host, and the directories above it. */
static int64_t place(int root, const struct row_of_root *row) {
  struct stat found;
  char *name = row->path + 1;
  for (char *slash = name; (slash = strchr(slash, '/')); *slash++ = '/') {
    *slash = 0;
    if (mkdirat(root, name, 0755) != 0 && errno != EEXIST) return -(int64_t)errno;
  }
  int64_t done;
  if (row->letter == 'l') done = RESULT(symlinkat(row->target, root, name));
  else if (stat(row->path, &found) != 0) done = -(int64_t)errno;
  else if (S_ISDIR(found.st_mode)) done = RESULT(mkdirat(root, name, 0755));
  else done = RESULT(mknodat(root, name, S_IFREG | 0444, 0));
  return done == -EEXIST ? 0 : done;
}

/* Binds what is mounted below as well. No device can be opened here, not even one that a guest makes, but /dev/null. */
static int64_t bind_from_host(int root, const struct row_of_root *row) {
  struct stat found;
  if (row->letter != 'r' && row->letter != 'w') return 0;
  int tree = (int)syscall(CALL_OPEN_TREE, AT_FDCWD, row->path, TREE_CLONE | RECURSIVE | O_CLOEXEC);
  if (tree < 0) return -(int64_t)errno;
  uint64_t set = NO_SUID | (row->letter == 'r' ? READ_ONLY : 0);
  if (fstat(tree, &found) != 0 || !S_ISCHR(found.st_mode)) set |= NO_DEVICES;
  int64_t done = restrict_mount(tree, RECURSIVE, set);
  if (done == 0) done = attach(tree, root, row->path + 1);
  close(tree);
  return done;
}

static int64_t file_system_in_memory(void) {
  int context = (int)syscall(CALL_FSOPEN, "tmpfs", CLOSE_ON_EXEC);
  if (context < 0) return -(int64_t)errno;
  int64_t done = RESULT(syscall(CALL_FSCONFIG, context, CONFIG_CREATE, NULL, NULL, 0));
  if (done == 0) done = RESULT(syscall(CALL_FSMOUNT, context, CLOSE_ON_EXEC, NO_SUID | NO_DEVICES | NO_EXEC));
  close(context);
  return done;
}

struct making {
  char *rows, *end;
  int namespace;
  int64_t done;
};

/* All names are made before anything is bound: none may be made on the host. */
static int64_t fill(int root, const struct making *making) {
  struct row_of_root row;
  int64_t done = RESULT(fchmodat(root, ".", 0755, 0));
  for (char *at = making->rows; done == 0 && at < making->end;) {
    at = next_row(at, &row);
    done = place(root, &row);
  }
  for (char *at = making->rows; done == 0 && at < making->end;) {
    at = next_row(at, &row);
    done = bind_from_host(root, &row);
  }
  return done < 0 ? done : restrict_mount(root, 0, READ_ONLY);
}

/*
 * As slaves the copies of the host's mounts follow what the host mounts and unmounts, and it sees nothing of what is done
 * here. The new root stands on the old one, where it hides no path from this thread; pivot_root(2) tells how they change places.
 */
static int64_t make(struct making *making) {
  if (unshare(CLONE_NEWNS) != 0) return -(int64_t)errno;
  umask(0);
  if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) != 0) return -(int64_t)errno;
  making->namespace = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);
  if (making->namespace < 0) return -(int64_t)errno;
  int root = (int)file_system_in_memory();
  if (root < 0) return root;
  int64_t done = attach(root, AT_FDCWD, "/");
  if (done == 0) done = fill(root, making);
  if (done == 0) done = RESULT(fchdir(root));
  if (done == 0) done = RESULT(syscall(SYS_pivot_root, ".", "."));
  if (done == 0) done = RESULT(umount2(".", MNT_DETACH));
  close(root);
  return done;
}

static void *in_a_thread(void *argument) {
  struct making *making = argument;
  making->done = make(making);
  return NULL;
}

/*
 * A mount namespace is a thread's: it is made on one that ends, so that this one is what it was when anything fails. The
 * working directory then is the new root.
 */
int64_t sys_own_root(const struct call *c) {
  pthread_t thread;
  struct making making = {.rows = c->segment->iov_base, .namespace = -1};
  making.end = making.rows + c->segment->iov_len;
  if (making.rows == making.end || making.end[-1] != 0) return -EINVAL;
  int failed = pthread_create(&thread, NULL, in_a_thread, &making);
  if (failed) return -failed;
  pthread_join(thread, NULL);
  int64_t done = making.done;
  if (done == 0) done = RESULT(unshare(CLONE_FS)); /* setns(2) wants a thread that shares no directory with others */
  if (done == 0) done = RESULT(setns(making.namespace, CLONE_NEWNS));
  if (making.namespace >= 0) close(making.namespace);
  return done;
}
