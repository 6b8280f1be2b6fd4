/*
 * A file system in user space that shows a directory of another one and passes every call on to it, each after a while. It
 * speaks /dev/fuse itself (linux/fuse.h).
 *
 *   passing SOURCE DIRECTORY DELAY-US [births]   mounts on DIRECTORY what is in SOURCE; one call in four takes up to that long.
 *                                                With `births` it tells birth times.
 *
 * It says `mounted` on standard output, serves until standard input ends, and is gone then with its mount. Several threads
 * serve, so that calls overtake one another. It has no unnamed files, and file handles lead nowhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { DATA_BYTES_MAX = 128 * 1024, REQUEST_BYTES_MAX = DATA_BYTES_MAX + 8192, THREADS = 4, BUCKETS = 4096 };

/* An object that the kernel knows; its node number is the address. Freed when the kernel has forgotten it. */
struct object {
  struct object *next;
  dev_t dev;
  ino_t ino;
  uint64_t lookups;
  int fd; /* O_PATH */
};

static struct object root;
static struct object *table[BUCKETS];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static int device;
static unsigned delay_us;
static bool births;

/* A path to the object of a descriptor, for calls that take no O_PATH descriptor: proc_pid_fd(5). */
struct path {
  char text[32];
};

static struct path path_of(int fd) {
  struct path path;
  snprintf(path.text, sizeof path.text, "/proc/self/fd/%d", fd);
  return path;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void answer(const struct fuse_in_header *in, int error, const void *data, size_t bytes) {
  struct fuse_out_header out = {.len = (uint32_t)(sizeof out + bytes), .error = -error, .unique = in->unique};
  struct iovec parts[] = {{&out, sizeof out}, {(void *)(uintptr_t)data, bytes}};
  /* ENOENT: the caller was interrupted and does not wait any more. */
  if (writev(device, parts, bytes > 0 ? 2 : 1) < 0 && errno != ENOENT && errno != ENODEV) fail("an answer");
}

/* The result of a system call that has nothing to say but whether it succeeded. */
static void answer_done(const struct fuse_in_header *in, int result) {
  answer(in, result < 0 ? errno : 0, NULL, 0);
}

static struct object *object_of(uint64_t node) {
  return node == FUSE_ROOT_ID ? &root : (struct object *)(uintptr_t)node;
}

static int fd_of(uint64_t node) {
  return object_of(node)->fd;
}

static struct fuse_attr attr_of(const struct stat *stat) {
  return (struct fuse_attr){
      .ino = stat->st_ino,
      .size = (uint64_t)stat->st_size,
      .blocks = (uint64_t)stat->st_blocks,
      .atime = (uint64_t)stat->st_atim.tv_sec,
      .mtime = (uint64_t)stat->st_mtim.tv_sec,
      .ctime = (uint64_t)stat->st_ctim.tv_sec,
      .atimensec = (uint32_t)stat->st_atim.tv_nsec,
      .mtimensec = (uint32_t)stat->st_mtim.tv_nsec,
      .ctimensec = (uint32_t)stat->st_ctim.tv_nsec,
      .mode = stat->st_mode,
      .nlink = (uint32_t)stat->st_nlink,
      .uid = stat->st_uid,
      .gid = stat->st_gid,
      /* new_encode_dev of linux/kdev_t.h */
      .rdev = (minor(stat->st_rdev) & 0xff) | (major(stat->st_rdev) << 8) | ((minor(stat->st_rdev) & ~0xffU) << 12),
      .blksize = (uint32_t)stat->st_blksize,
  };
}

static void answer_attr(const struct fuse_in_header *in, int fd) {
  struct stat stat;
  if (fstatat(fd, "", &stat, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return answer_done(in, -1);
  struct fuse_attr_out out = {.attr = attr_of(&stat)};
  answer(in, 0, &out, sizeof out);
}

static struct fuse_sx_time time_in(struct statx_timestamp time) {
  return (struct fuse_sx_time){.tv_sec = time.tv_sec, .tv_nsec = time.tv_nsec};
}

static void answer_statx(const struct fuse_in_header *in, int fd) {
  struct statx found;
  if (!births) return answer(in, ENOSYS, NULL, 0);
  if (statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &found) != 0)
    return answer_done(in, -1);
  struct fuse_statx_out out = {.stat = {
                                   .mask = found.stx_mask,
                                   .blksize = found.stx_blksize,
                                   .nlink = found.stx_nlink,
                                   .uid = found.stx_uid,
                                   .gid = found.stx_gid,
                                   .mode = found.stx_mode,
                                   .ino = found.stx_ino,
                                   .size = found.stx_size,
                                   .blocks = found.stx_blocks,
                                   .atime = time_in(found.stx_atime),
                                   .btime = time_in(found.stx_btime),
                                   .ctime = time_in(found.stx_ctime),
                                   .mtime = time_in(found.stx_mtime),
                                   .rdev_major = found.stx_rdev_major,
                                   .rdev_minor = found.stx_rdev_minor,
                               }};
  answer(in, 0, &out, sizeof out);
}

static struct object **bucket_of(ino_t ino) {
  return &table[ino % BUCKETS];
}

/* The entry of a name, which the kernel then knows once more; −1 and errno when there is none. Nothing of it is cached. */
static int look_up(uint64_t parent, const char *name, struct fuse_entry_out *entry) {
  struct stat stat;
  int fd = openat(fd_of(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  if (fstatat(fd, "", &stat, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) {
    int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  pthread_mutex_lock(&table_lock);
  struct object *found = *bucket_of(stat.st_ino);
  while (found && (found->ino != stat.st_ino || found->dev != stat.st_dev)) found = found->next;
  if (found) close(fd);
  else {
    found = calloc(1, sizeof *found);
    if (!found) fail("memory");
    *found = (struct object){.next = *bucket_of(stat.st_ino), .dev = stat.st_dev, .ino = stat.st_ino, .fd = fd};
    *bucket_of(stat.st_ino) = found;
  }
  found->lookups++;
  pthread_mutex_unlock(&table_lock);
  *entry = (struct fuse_entry_out){.nodeid = (uint64_t)(uintptr_t)found, .attr = attr_of(&stat)};
  return 0;
}

static void forget(uint64_t node, uint64_t count) {
  if (node == FUSE_ROOT_ID) return;
  struct object *object = object_of(node);
  pthread_mutex_lock(&table_lock);
  object->lookups -= count;
  bool gone = object->lookups == 0;
  if (gone) {
    struct object **at = bucket_of(object->ino);
    while (*at != object) at = &(*at)->next;
    *at = object->next;
  }
  pthread_mutex_unlock(&table_lock);
  if (!gone) return;
  close(object->fd);
  free(object);
}

static void forget_all(const struct fuse_batch_forget_in *in) {
  const struct fuse_forget_one *one = (const struct fuse_forget_one *)(in + 1);
  for (uint32_t i = 0; i < in->count; i++) forget(one[i].nodeid, one[i].nlookup);
}

static void answer_entry(const struct fuse_in_header *in, const char *name) {
  struct fuse_entry_out entry;
  if (look_up(in->nodeid, name, &entry) != 0) return answer_done(in, -1);
  answer(in, 0, &entry, sizeof entry);
}

/* What was made belongs to who asked, as the kernel would have made it: the group of a directory with the set-gid bit stays. */
static int own(const struct fuse_in_header *in, int dir, const char *name) {
  struct stat parent, made;
  if (fstat(dir, &parent) != 0 || fstatat(dir, name, &made, AT_SYMLINK_NOFOLLOW) != 0) return -1;
  gid_t gid = parent.st_mode & S_ISGID ? (gid_t)-1 : in->gid;
  if (fchownat(dir, name, in->uid, gid, AT_SYMLINK_NOFOLLOW) != 0) return -1;
  /* chown(2) takes set-id bits away. */
  if (S_ISLNK(made.st_mode) || (made.st_mode & 06000) == 0) return 0;
  return fchmodat(dir, name, made.st_mode & 07777, 0);
}

/* Replies to a request that creates an object, with the result of the call. */
static void answer_made(const struct fuse_in_header *in, const char *name, int result) {
  if (result != 0 || own(in, fd_of(in->nodeid), name) != 0) return answer_done(in, -1);
  answer_entry(in, name);
}

static const char *after(const char *name) {
  return name + strlen(name) + 1;
}

static void create(const struct fuse_in_header *in, const struct fuse_create_in *how, const char *name) {
  struct {
    struct fuse_entry_out entry;
    struct fuse_open_out open;
  } out = {0};
  int dir = fd_of(in->nodeid), existed = faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
  int fd = openat(dir, name, (int)(how->flags | O_CREAT | O_NOFOLLOW | O_CLOEXEC), how->mode);
  if (fd < 0) return answer_done(in, -1);
  if ((!existed && own(in, dir, name) != 0) || look_up(in->nodeid, name, &out.entry) != 0) {
    answer_done(in, -1);
    close(fd);
    return;
  }
  out.open.fh = (uint64_t)fd;
  answer(in, 0, &out, sizeof out);
}

static void open_object(const struct fuse_in_header *in, const struct fuse_open_in *how, int more) {
  int fd = open(path_of(fd_of(in->nodeid)).text, (int)(how->flags & ~(uint32_t)O_NOFOLLOW) | more | O_CLOEXEC);
  if (fd < 0) return answer_done(in, -1);
  struct fuse_open_out out = {.fh = (uint64_t)fd};
  answer(in, 0, &out, sizeof out);
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t seconds, uint32_t nanoseconds) {
  if (!(valid & set)) return (struct timespec){0, UTIME_OMIT};
  if (valid & now) return (struct timespec){0, UTIME_NOW};
  return (struct timespec){(time_t)seconds, nanoseconds};
}

/* Owner first, since chown(2) takes set-id bits away. */
static int set_attributes(int fd, const struct fuse_setattr_in *how) {
  uint32_t valid = how->valid;
  struct path path = path_of(fd);
  if (valid & (FATTR_UID | FATTR_GID)) {
    uid_t uid = valid & FATTR_UID ? how->uid : (uid_t)-1;
    gid_t gid = valid & FATTR_GID ? how->gid : (gid_t)-1;
    if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return -1;
  }
  if (valid & FATTR_MODE && chmod(path.text, how->mode & 07777) != 0) return -1;
  if (valid & FATTR_SIZE) {
    bool open = valid & FATTR_FH;
    if ((open ? ftruncate((int)how->fh, (off_t)how->size) : truncate(path.text, (off_t)how->size)) != 0) return -1;
  }
  if (!(valid & (FATTR_ATIME | FATTR_MTIME))) return 0;
  struct timespec times[] = {
      time_of(valid, FATTR_ATIME, FATTR_ATIME_NOW, how->atime, how->atimensec),
      time_of(valid, FATTR_MTIME, FATTR_MTIME_NOW, how->mtime, how->mtimensec),
  };
  return utimensat(fd, "", times, AT_EMPTY_PATH);
}

static void read_file(const struct fuse_in_header *in, const struct fuse_read_in *how, char *into) {
  ssize_t bytes =
      pread((int)how->fh, into, how->size < DATA_BYTES_MAX ? how->size : DATA_BYTES_MAX, (off_t)how->offset);
  answer(in, bytes < 0 ? errno : 0, into, bytes < 0 ? 0 : (size_t)bytes);
}

static void write_file(const struct fuse_in_header *in, const struct fuse_write_in *how) {
  ssize_t bytes = pwrite((int)how->fh, how + 1, how->size, (off_t)how->offset);
  if (bytes < 0) return answer_done(in, -1);
  struct fuse_write_out out = {.size = (uint32_t)bytes};
  answer(in, 0, &out, sizeof out);
}

/* getdents64(2) */
struct listed {
  uint64_t ino;
  int64_t next;
  uint16_t bytes;
  uint8_t type;
  char name[];
};

static void list(const struct fuse_in_header *in, const struct fuse_read_in *how, char *into) {
  static __thread char found[32768];
  size_t bytes = 0, most = how->size < DATA_BYTES_MAX ? how->size : DATA_BYTES_MAX;
  int fd = (int)how->fh;
  if (lseek(fd, (off_t)how->offset, SEEK_SET) < 0) return answer_done(in, -1);
  long count = syscall(SYS_getdents64, fd, found, sizeof found);
  if (count < 0) return answer_done(in, -1);
  for (long at = 0; at < count;) {
    const struct listed *one = (const struct listed *)(found + at);
    struct fuse_dirent *entry = (struct fuse_dirent *)(into + bytes);
    size_t length = strlen(one->name), all = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
    if (bytes + all > most) break;
    memset(entry, 0, all);
    *entry = (struct fuse_dirent){
        .ino = one->ino, .off = (uint64_t)one->next, .namelen = (uint32_t)length, .type = one->type};
    memcpy(entry->name, one->name, length);
    bytes += all;
    at += one->bytes;
  }
  answer(in, 0, into, bytes);
}

static void read_link(const struct fuse_in_header *in, char *into) {
  ssize_t bytes = readlinkat(fd_of(in->nodeid), "", into, 4096);
  answer(in, bytes < 0 ? errno : 0, into, bytes < 0 ? 0 : (size_t)bytes);
}

/* A value or a list of names; only its size when none is asked for. */
static void answer_xattr(const struct fuse_in_header *in, uint32_t size, const char *into, ssize_t bytes) {
  if (bytes < 0) return answer_done(in, -1);
  struct fuse_getxattr_out out = {.size = (uint32_t)bytes};
  if (size == 0) answer(in, 0, &out, sizeof out);
  else answer(in, 0, into, (size_t)bytes);
}

static void xattr(const struct fuse_in_header *in, const void *body, char *into) {
  struct path path = path_of(fd_of(in->nodeid));
  const struct fuse_getxattr_in *get = body;
  /* Without FUSE_SETXATTR_EXT, which is not asked for, there are only size and flags. */
  const struct fuse_setxattr_in *set = body;
  const char *name = (const char *)body + FUSE_COMPAT_SETXATTR_IN_SIZE;
  size_t room = in->opcode != FUSE_SETXATTR && get->size < DATA_BYTES_MAX ? get->size : DATA_BYTES_MAX;
  switch (in->opcode) {
    case FUSE_SETXATTR: return answer_done(in, setxattr(path.text, name, after(name), set->size, (int)set->flags));
    case FUSE_REMOVEXATTR: return answer_done(in, removexattr(path.text, body));
    case FUSE_LISTXATTR: return answer_xattr(in, get->size, into, listxattr(path.text, into, room));
    default: return answer_xattr(in, get->size, into, getxattr(path.text, (const char *)(get + 1), into, room));
  }
}

static void answer_statfs(const struct fuse_in_header *in) {
  struct statvfs found;
  if (fstatvfs(root.fd, &found) != 0) return answer_done(in, -1);
  struct fuse_statfs_out out = {.st = {
                                    .blocks = found.f_blocks,
                                    .bfree = found.f_bfree,
                                    .bavail = found.f_bavail,
                                    .files = found.f_files,
                                    .ffree = found.f_ffree,
                                    .bsize = (uint32_t)found.f_bsize,
                                    .namelen = (uint32_t)found.f_namemax,
                                    .frsize = (uint32_t)found.f_frsize,
                                }};
  answer(in, 0, &out, sizeof out);
}

/* The kernel checks permissions and ACLs, and leaves the umask to this program. */
static void begin(const struct fuse_in_header *in, const struct fuse_init_in *how) {
  struct fuse_init_out out = {
      .major = FUSE_KERNEL_VERSION,
      .minor = how->minor < FUSE_KERNEL_MINOR_VERSION ? how->minor : FUSE_KERNEL_MINOR_VERSION,
      .max_readahead = how->max_readahead,
      .flags = (FUSE_BIG_WRITES | FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_ASYNC_READ) & how->flags,
      .max_background = 64,
      .max_write = DATA_BYTES_MAX,
      .time_gran = 1,
  };
  answer(in, 0, &out, sizeof out);
}

static int rename_entry(const struct fuse_in_header *in, uint64_t to, uint32_t flags, const char *names) {
  return (int)syscall(SYS_renameat2, fd_of(in->nodeid), names, fd_of(to), after(names), flags);
}

static void serve(const struct fuse_in_header *in, char *into) {
  const void *body = in + 1;
  const struct fuse_mknod_in *mknod = body;
  const struct fuse_mkdir_in *mkdir = body;
  const struct fuse_rename_in *rename = body;
  const struct fuse_rename2_in *rename2 = body;
  const struct fuse_link_in *link = body;
  const struct fuse_setattr_in *change = body;
  const struct fuse_release_in *release = body;
  const struct fuse_fsync_in *sync = body;
  const char *name = body;
  int fd = in->nodeid ? fd_of(in->nodeid) : -1;
  switch (in->opcode) {
    case FUSE_INIT: return begin(in, body);
    case FUSE_LOOKUP: return answer_entry(in, name);
    case FUSE_GETATTR: return answer_attr(in, fd);
    case FUSE_STATX: return answer_statx(in, fd);
    case FUSE_SETATTR: return set_attributes(fd, change) == 0 ? answer_attr(in, fd) : answer_done(in, -1);
    case FUSE_READLINK: return read_link(in, into);
    case FUSE_SYMLINK: return answer_made(in, name, symlinkat(after(name), fd, name));
    case FUSE_MKNOD:
      name = (const char *)(mknod + 1);
      return answer_made(
          in, name,
          mknodat(fd, name, mknod->mode,
                  makedev((mknod->rdev >> 8) & 0xfff, (mknod->rdev & 0xff) | ((mknod->rdev >> 12) & 0xfff00))));
    case FUSE_MKDIR: name = (const char *)(mkdir + 1); return answer_made(in, name, mkdirat(fd, name, mkdir->mode));
    case FUSE_UNLINK: return answer_done(in, unlinkat(fd, name, 0));
    case FUSE_RMDIR: return answer_done(in, unlinkat(fd, name, AT_REMOVEDIR));
    case FUSE_RENAME: return answer_done(in, rename_entry(in, rename->newdir, 0, (const char *)(rename + 1)));
    case FUSE_RENAME2:
      return answer_done(in, rename_entry(in, rename2->newdir, rename2->flags, (const char *)(rename2 + 1)));
    case FUSE_LINK:
      name = (const char *)(link + 1);
      if (linkat(fd_of(link->oldnodeid), "", fd, name, AT_EMPTY_PATH) != 0) return answer_done(in, -1);
      return answer_entry(in, name);
    case FUSE_OPEN: return open_object(in, body, 0);
    case FUSE_OPENDIR: return open_object(in, body, O_DIRECTORY);
    case FUSE_CREATE: return create(in, body, (const char *)body + sizeof(struct fuse_create_in));
    case FUSE_READ: return read_file(in, body, into);
    case FUSE_WRITE: return write_file(in, body);
    case FUSE_READDIR: return list(in, body, into);
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: return answer_done(in, close((int)release->fh));
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR: return answer_done(in, sync->fsync_flags & 1 ? fdatasync((int)sync->fh) : fsync((int)sync->fh));
    case FUSE_STATFS: return answer_statfs(in);
    case FUSE_SETXATTR:
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_REMOVEXATTR: return xattr(in, body, into);
    /* These have no answer. */
    case FUSE_FORGET: return forget(in->nodeid, ((const struct fuse_forget_in *)body)->nlookup);
    case FUSE_BATCH_FORGET: return forget_all(body);
    case FUSE_INTERRUPT: return;
    case FUSE_FLUSH: return answer(in, 0, NULL, 0);
    default: return answer(in, ENOSYS, NULL, 0);
  }
}

static void take_time(uint32_t *state) {
  /* xorshift32 */
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  if (delay_us == 0 || *state % 4 != 0) return;
  struct timespec time = {0, (long)(*state / 4 % delay_us) * 1000};
  nanosleep(&time, NULL);
}

static void *serve_all(void *number) {
  char *request = aligned_alloc(8, REQUEST_BYTES_MAX), *into = aligned_alloc(8, DATA_BYTES_MAX);
  uint32_t state = (uint32_t)(uintptr_t)number;
  if (!request || !into) fail("memory");
  for (;;) {
    ssize_t bytes = read(device, request, REQUEST_BYTES_MAX);
    /* ENOENT: who asked was interrupted before the request was read. */
    if (bytes < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
    if (bytes < 0 && errno == ENODEV) exit(0);
    if (bytes < 0) fail("a request");
    take_time(&state);
    serve((const struct fuse_in_header *)(const void *)request, into);
  }
}

int main(int count, char **arguments) {
  char options[128];
  if (count < 4) return fprintf(stderr, "passing SOURCE DIRECTORY DELAY-US [births]\n"), 2;
  births = count > 4;
  delay_us = (unsigned)strtoul(arguments[3], NULL, 10);
  /* Every object that the kernel knows costs a descriptor. */
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) fail("RLIMIT_NOFILE");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) fail("RLIMIT_NOFILE");
  umask(0);
  root.fd = open(arguments[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root.fd < 0) fail(arguments[1]);
  device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) fail("/dev/fuse");
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
           device);
  if (mount("passing", arguments[2], "fuse", 0, options) != 0) fail(arguments[2]);
  for (uintptr_t i = 1; i <= THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve_all, (void *)i) != 0) fail("a thread");
  }
  puts("mounted");
  fflush(stdout);
  struct pollfd ended = {.fd = 0, .events = POLLIN};
  while (poll(&ended, 1, -1) < 0)
    if (errno != EINTR) fail("poll");
  umount2(arguments[2], MNT_DETACH);
  return 0;
}
