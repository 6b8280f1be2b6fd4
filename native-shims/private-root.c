/*
 * The private root: a tmpfs in a new mount namespace (mount_namespaces(7)) that has only the listed paths, each
 * bind-mounted from the host. Landlock does not restrict chmod(2), chown(2), setxattr(2), utimensat(2) and stat(2);
 * here they have no path to act on.
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

/* From include/uapi/linux/mount.h, of which libc's headers lack parts. mount_setattr(2) is of Linux 5.12. */
enum { CALL_OPEN_TREE = 428, CALL_MOVE_MOUNT, CALL_FSOPEN, CALL_FSCONFIG, CALL_FSMOUNT, CALL_MOUNT_SETATTR = 442 };
enum {
  TREE_CLONE = 1,
  FROM_DESCRIPTOR = 4,
  CLOSE_ON_EXEC = 1,
  CONFIG_SET_STRING = 1,
  CONFIG_CREATE = 6,
  RECURSIVE = 0x8000
};
enum { READ_ONLY = 1, NO_SUID = 2, NO_DEVICES = 4, NO_EXEC = 8 };

struct attributes {
  uint64_t set, clear, propagation, user_namespace;
};

static int64_t restrict_mount(int mount, int flags, uint64_t set) {
  struct attributes all = {.set = set};
  return RESULT(syscall(CALL_MOUNT_SETATTR, mount, "", AT_EMPTY_PATH | flags, &all, sizeof all));
}

static int64_t attach_mount(int mount, int directory, const char *path) {
  return RESULT(syscall(CALL_MOVE_MOUNT, mount, "", directory, path, FROM_DESCRIPTOR));
}

/*
 * An entry: a NUL-terminated letter and absolute path without symlinks. `l` is a symlink, and the next string its
 * target; `d` is an empty directory; `r` and `w` are bind mounts from the host, read-only and writable; `p` is a new proc file
 * system of this process id namespace (`MountEntry` in src/host/sandbox.ts).
 */
struct entry {
  char letter, *path, *target;
};

static char *next_entry(char *at, struct entry *entry) {
  *entry = (struct entry){.letter = at[0], .path = at + 1};
  at += strlen(at) + 1;
  if (entry->letter != 'l') return at;
  entry->target = at;
  return at + strlen(at) + 1;
}

/* Creates the mount point, of the type that the path has on the host, and its parent directories. */
static int64_t create_mount_point(int root, const struct entry *entry) {
  struct stat found;
  char *name = entry->path + 1;
  for (char *slash = name; (slash = strchr(slash, '/')); *slash++ = '/') {
    *slash = 0;
    if (mkdirat(root, name, 0755) != 0 && errno != EEXIST) return -(int64_t)errno;
  }
  int64_t done;
  if (entry->letter == 'l') done = RESULT(symlinkat(entry->target, root, name));
  else if (entry->letter == 'p') done = RESULT(mkdirat(root, name, 0555));
  else if (stat(entry->path, &found) != 0) done = -(int64_t)errno;
  else if (S_ISDIR(found.st_mode)) done = RESULT(mkdirat(root, name, 0755));
  else done = RESULT(mknodat(root, name, S_IFREG | 0444, 0));
  return done == -EEXIST ? 0 : done;
}

/* Only the files of processes where the kernel has that option (Linux 5.8), not /proc/sys and the like. */
static int64_t mount_proc(int root, const char *path) {
  int context = (int)syscall(CALL_FSOPEN, "proc", CLOSE_ON_EXEC);
  if (context < 0) return -(int64_t)errno;
  syscall(CALL_FSCONFIG, context, CONFIG_SET_STRING, "subset", "pid", 0);
  int64_t mount = RESULT(syscall(CALL_FSCONFIG, context, CONFIG_CREATE, NULL, NULL, 0));
  if (mount == 0) mount = RESULT(syscall(CALL_FSMOUNT, context, CLOSE_ON_EXEC, NO_SUID | NO_DEVICES | NO_EXEC));
  close(context);
  if (mount < 0) return mount;
  int64_t done = attach_mount((int)mount, root, path + 1);
  close((int)mount);
  return done;
}

/* A recursive bind mount. nodev except for a character device itself (/dev/null): guests can create device nodes. */
static int64_t bind_from_host(int root, const struct entry *entry) {
  struct stat found;
  if (entry->letter == 'p') return mount_proc(root, entry->path);
  if (entry->letter != 'r' && entry->letter != 'w') return 0;
  int tree = (int)syscall(CALL_OPEN_TREE, AT_FDCWD, entry->path, TREE_CLONE | RECURSIVE | O_CLOEXEC);
  if (tree < 0) return -(int64_t)errno;
  uint64_t set = NO_SUID | (entry->letter == 'r' ? READ_ONLY : 0);
  if (fstat(tree, &found) != 0 || !S_ISCHR(found.st_mode)) set |= NO_DEVICES;
  int64_t done = restrict_mount(tree, RECURSIVE, set);
  if (done == 0) done = attach_mount(tree, root, entry->path + 1);
  close(tree);
  return done;
}

static int64_t new_tmpfs(void) {
  int context = (int)syscall(CALL_FSOPEN, "tmpfs", CLOSE_ON_EXEC);
  if (context < 0) return -(int64_t)errno;
  int64_t done = RESULT(syscall(CALL_FSCONFIG, context, CONFIG_CREATE, NULL, NULL, 0));
  if (done == 0) done = RESULT(syscall(CALL_FSMOUNT, context, CLOSE_ON_EXEC, NO_SUID | NO_DEVICES | NO_EXEC));
  close(context);
  return done;
}

struct private_root {
  char *entries, *end;
  int namespace;
  int64_t done;
};

/* All mount points are created before anything is mounted, so that none is created on the host. */
static int64_t fill(int root, const struct private_root *own) {
  struct entry entry;
  int64_t done = RESULT(fchmodat(root, ".", 0755, 0));
  for (char *at = own->entries; done == 0 && at < own->end;) {
    at = next_entry(at, &entry);
    done = create_mount_point(root, &entry);
  }
  for (char *at = own->entries; done == 0 && at < own->end;) {
    at = next_entry(at, &entry);
    done = bind_from_host(root, &entry);
  }
  return done < 0 ? done : restrict_mount(root, 0, READ_ONLY);
}

/*
 * MS_SLAVE: mounts and unmounts of the host propagate to here, and none from here to the host. The new root is mounted on the old
 * one; pivot_root(2) describes the use of "." for both.
 */
static int64_t make(struct private_root *own) {
  if (unshare(CLONE_NEWNS) != 0) return -(int64_t)errno;
  umask(0);
  if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) != 0) return -(int64_t)errno;
  own->namespace = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);
  if (own->namespace < 0) return -(int64_t)errno;
  int root = (int)new_tmpfs();
  if (root < 0) return root;
  int64_t done = attach_mount(root, AT_FDCWD, "/");
  if (done == 0) done = fill(root, own);
  if (done == 0) done = RESULT(fchdir(root));
  if (done == 0) done = RESULT(syscall(SYS_pivot_root, ".", "."));
  if (done == 0) done = RESULT(umount2(".", MNT_DETACH));
  close(root);
  return done;
}

static void *run_make(void *argument) {
  struct private_root *own = argument;
  own->done = make(own);
  return NULL;
}

/*
 * Enters a private root; the working directory then is its root. A mount namespace belongs to a thread: it is made on a temporary
 * one, so that a failure changes nothing for the caller.
 */
int64_t sys_private_root(const struct call *c) {
  pthread_t thread;
  struct private_root own = {.entries = c->segment->iov_base, .namespace = -1};
  own.end = own.entries + c->segment->iov_len;
  if (own.entries == own.end || own.end[-1] != 0) return -EINVAL;
  int failed = pthread_create(&thread, NULL, run_make, &own);
  if (failed) return -failed;
  pthread_join(thread, NULL);
  int64_t done = own.done;
  if (done == 0) done = RESULT(unshare(CLONE_FS)); /* setns(2) refuses a thread with a shared working directory */
  if (done == 0) done = RESULT(setns(own.namespace, CLONE_NEWNS));
  if (own.namespace >= 0) close(own.namespace);
  return done;
}
