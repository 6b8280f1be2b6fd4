/*
 * A file system in user space whose calls can be made to take long, or for ever. It speaks /dev/fuse itself (linux/fuse.h).
 *
 *   stalling DIRECTORY                       files named after the call that never returns, ten of each: open0, read7, …
 *                                            (the kernel makes others wait for who hangs in the same file); and `well`. From
 *                                            the first such call on there is a file `open0.hangs`. More files and
 *                                            directories can be made, linked, renamed, marked and removed
 *   stalling DIRECTORY disk BYTES DELAY-MS   one file, `disk`, each write and fsync of which takes that long, one by one,
 *                                            from SIGUSR1 on and up to SIGUSR2
 *
 * It says `mounted` on standard output, serves until standard input ends, and is gone then with its mount: what hangs in it
 * fails with ENOTCONN. Killing it does the same, but for the mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE_BYTES_MAX = 128 * 1024, CONTENT_BYTES = 64 * 1024, FILES_MAX = 512, NAMES_MAX = 1024 };

/* A file or a directory; its node number is its place in `files` and FUSE_ROOT_ID. An unused place has no mode. */
struct file {
  uint32_t mode, uid, gid, links;
  uint32_t hangs; /* the opcode that is never answered; 0 for none */
  uint64_t size, room;
  char *content;
  bool slow;
  char attribute[64], value[64]; /* the one extended attribute */
  uint32_t value_bytes;
};

/* A name in a directory; an unused one has no file. */
struct name {
  uint64_t parent, node;
  char text[NAME_MAX + 1];
};

static const struct {
  const char *name;
  uint32_t opcode;
} hanging[] = {
    {"open", FUSE_OPEN},   {"read", FUSE_READ},       {"write", FUSE_WRITE},
    {"fsync", FUSE_FSYNC}, {"getattr", FUSE_GETATTR}, {"flush", FUSE_FLUSH},
};

static struct file files[FILES_MAX];
static struct name names[NAMES_MAX];
static long delay_ms;
static volatile sig_atomic_t delaying;
static int device;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void answer(const struct fuse_in_header *in, int error, const void *data, size_t bytes) {
  struct fuse_out_header out = {.len = (uint32_t)(sizeof out + bytes), .error = -error, .unique = in->unique};
  struct iovec parts[] = {{&out, sizeof out}, {(void *)(uintptr_t)data, bytes}};
  if (writev(device, parts, bytes > 0 ? 2 : 1) < 0 && errno != ENOENT) fail("an answer");
}

static struct file *file_of(uint64_t node) {
  return node >= FUSE_ROOT_ID && node < FUSE_ROOT_ID + FILES_MAX ? &files[node - FUSE_ROOT_ID] : NULL;
}

static uint64_t node_of(const struct file *file) {
  return (uint64_t)(file - files) + FUSE_ROOT_ID;
}

static struct fuse_attr attr_of(const struct file *file) {
  return (struct fuse_attr){
      .ino = node_of(file),
      .size = file->size,
      .blocks = (file->size + 511) / 512,
      .mode = file->mode,
      .nlink = file->links,
      .uid = file->uid,
      .gid = file->gid,
      .blksize = 4096,
  };
}

static struct name *find(uint64_t parent, const char *text) {
  for (struct name *name = names; name < names + NAMES_MAX; name++)
    if (name->node && name->parent == parent && strcmp(name->text, text) == 0) return name;
  return NULL;
}

static void give_name(uint64_t parent, const char *text, struct file *file) {
  for (struct name *name = names; name < names + NAMES_MAX; name++) {
    if (name->node) continue;
    *name = (struct name){.parent = parent, .node = node_of(file)};
    snprintf(name->text, sizeof name->text, "%s", text);
    file->links++;
    return;
  }
  fail("more names");
}

/* What has no name any more stays as it is, since it may be open. */
static void take_name(struct name *name) {
  file_of(name->node)->links--;
  name->node = 0;
}

static struct file *make(uint32_t mode, uint64_t room) {
  for (struct file *file = files; file < files + FILES_MAX; file++) {
    if (file->mode) continue;
    *file = (struct file){.mode = mode, .room = room, .content = room ? calloc(1, room) : NULL};
    if (room && !file->content) fail("memory");
    return file;
  }
  fail("more files");
  return NULL;
}

static void note_hanging(uint64_t node) {
  char text[32];
  for (struct name *name = names; name < names + NAMES_MAX; name++) {
    if (name->node != node) continue;
    snprintf(text, sizeof text, "%.16s.hangs", name->text);
    if (!find(FUSE_ROOT_ID, text)) give_name(FUSE_ROOT_ID, text, make(S_IFREG | 0444, 0));
    return;
  }
}

static struct fuse_entry_out entry_of(const struct file *file) {
  return (struct fuse_entry_out){.nodeid = node_of(file), .attr = attr_of(file)};
}

static void lookup(const struct fuse_in_header *in, const char *text) {
  const struct name *name = find(in->nodeid, text);
  if (!name) return answer(in, ENOENT, NULL, 0);
  struct fuse_entry_out entry = entry_of(file_of(name->node));
  answer(in, 0, &entry, sizeof entry);
}

static struct file *make_for(const struct fuse_in_header *in, const char *text, uint32_t mode) {
  struct file *file = make(mode, S_ISREG(mode) ? CONTENT_BYTES : 0);
  file->uid = in->uid;
  file->gid = in->gid;
  give_name(in->nodeid, text, file);
  return file;
}

static void make_entry(const struct fuse_in_header *in, const char *text, uint32_t mode) {
  if (find(in->nodeid, text)) return answer(in, EEXIST, NULL, 0);
  struct fuse_entry_out entry = entry_of(make_for(in, text, mode));
  answer(in, 0, &entry, sizeof entry);
}

static void create(const struct fuse_in_header *in, const struct fuse_create_in *how) {
  struct {
    struct fuse_entry_out entry;
    struct fuse_open_out opened;
  } out = {0};
  const char *text = (const char *)(how + 1);
  const struct name *name = find(in->nodeid, text);
  out.entry = entry_of(name ? file_of(name->node) : make_for(in, text, how->mode));
  answer(in, 0, &out, sizeof out);
}

static void link_file(const struct fuse_in_header *in, const struct fuse_link_in *how) {
  const char *text = (const char *)(how + 1);
  if (find(in->nodeid, text)) return answer(in, EEXIST, NULL, 0);
  give_name(in->nodeid, text, file_of(how->oldnodeid));
  lookup(in, text);
}

static void remove_name(const struct fuse_in_header *in, const char *text) {
  struct name *name = find(in->nodeid, text);
  if (name) take_name(name);
  answer(in, name ? 0 : ENOENT, NULL, 0);
}

static void rename_file(const struct fuse_in_header *in, uint64_t to, uint32_t flags, const char *texts) {
  struct name *old = find(in->nodeid, texts);
  const char *text = texts + strlen(texts) + 1;
  struct name *replaced = find(to, text);
  if (!old) return answer(in, ENOENT, NULL, 0);
  if (flags & ~(uint32_t)RENAME_NOREPLACE) return answer(in, EINVAL, NULL, 0);
  if (replaced && flags) return answer(in, EEXIST, NULL, 0);
  if (replaced) take_name(replaced);
  old->parent = to;
  snprintf(old->text, sizeof old->text, "%s", text);
  answer(in, 0, NULL, 0);
}

/* Without FUSE_SETXATTR_EXT, which is not asked for, there are only size and flags before the name. */
static void set_attribute(const struct fuse_in_header *in, struct file *file, const struct fuse_setxattr_in *how) {
  const char *name = (const char *)how + FUSE_COMPAT_SETXATTR_IN_SIZE, *value = name + strlen(name) + 1;
  if (how->size > sizeof file->value || strlen(name) >= sizeof file->attribute) return answer(in, ENOSPC, NULL, 0);
  strcpy(file->attribute, name);
  memcpy(file->value, value, how->size);
  file->value_bytes = how->size;
  answer(in, 0, NULL, 0);
}

static void answer_bytes(const struct fuse_in_header *in, uint32_t room, const char *from, size_t bytes) {
  struct fuse_getxattr_out size = {.size = (uint32_t)bytes};
  if (room == 0) answer(in, 0, &size, sizeof size);
  else answer(in, room < bytes ? ERANGE : 0, from, room < bytes ? 0 : bytes);
}

static void get_attribute(const struct fuse_in_header *in, const struct file *file,
                          const struct fuse_getxattr_in *how) {
  if (strcmp(file->attribute, (const char *)(how + 1)) != 0) return answer(in, ENODATA, NULL, 0);
  answer_bytes(in, how->size, file->value, file->value_bytes);
}

static void remove_attribute(const struct fuse_in_header *in, struct file *file, const char *name) {
  bool there = *name && strcmp(file->attribute, name) == 0;
  if (there) *file->attribute = 0;
  answer(in, there ? 0 : ENODATA, NULL, 0);
}

static void set_delaying(int signal) {
  delaying = signal == SIGUSR1;
}

static void take_time(const struct file *file) {
  struct timespec time = {delay_ms / 1000, delay_ms % 1000 * 1000000};
  if (file->slow && delaying) nanosleep(&time, NULL);
}

static void read_file(const struct fuse_in_header *in, const struct file *file, const struct fuse_read_in *how) {
  uint64_t size = file->size, from = how->offset < size ? how->offset : size;
  uint64_t bytes = size - from < how->size ? size - from : how->size;
  answer(in, 0, file->content + from, bytes);
}

static void write_file(const struct fuse_in_header *in, struct file *file, const struct fuse_write_in *how) {
  struct fuse_write_out out = {.size = how->size};
  take_time(file);
  if (how->offset + how->size > file->room) return answer(in, ENOSPC, NULL, 0);
  memcpy(file->content + how->offset, how + 1, how->size);
  if (how->offset + how->size > file->size) file->size = how->offset + how->size;
  answer(in, 0, &out, sizeof out);
}

static void set_attributes(const struct fuse_in_header *in, struct file *file, const struct fuse_setattr_in *how) {
  if ((how->valid & FATTR_SIZE) && how->size <= file->room) file->size = how->size;
  if (how->valid & FATTR_MODE) file->mode = how->mode;
  if (how->valid & FATTR_UID) file->uid = how->uid;
  if (how->valid & FATTR_GID) file->gid = how->gid;
  struct fuse_attr_out out = {.attr = attr_of(file)};
  answer(in, 0, &out, sizeof out);
}

static void list(const struct fuse_in_header *in, const struct fuse_read_in *how) {
  char entries[4096];
  size_t bytes = 0;
  for (uint64_t i = how->offset; i < NAMES_MAX; i++) {
    if (!names[i].node || names[i].parent != in->nodeid) continue;
    struct fuse_dirent *entry = (struct fuse_dirent *)(entries + bytes);
    size_t length = strlen(names[i].text), all = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
    if (bytes + all > how->size || bytes + all > sizeof entries) break;
    memset(entry, 0, all);
    *entry = (struct fuse_dirent){
        .ino = names[i].node, .off = i + 1, .namelen = (uint32_t)length, .type = file_of(names[i].node)->mode >> 12};
    memcpy(entry->name, names[i].text, length);
    bytes += all;
  }
  answer(in, 0, entries, bytes);
}

static void begin(const struct fuse_in_header *in, const struct fuse_init_in *how) {
  struct fuse_init_out out = {
      .major = FUSE_KERNEL_VERSION,
      .minor = how->minor < FUSE_KERNEL_MINOR_VERSION ? how->minor : FUSE_KERNEL_MINOR_VERSION,
      .max_readahead = 0,
      .flags = FUSE_BIG_WRITES & how->flags,
      .max_background = 64,
      .max_write = WRITE_BYTES_MAX,
      .time_gran = 1,
  };
  answer(in, 0, &out, sizeof out);
}

static void serve(const struct fuse_in_header *in) {
  const void *body = in + 1;
  struct file *file = file_of(in->nodeid);
  const struct fuse_rename_in *rename = body;
  const struct fuse_rename2_in *rename2 = body;
  struct fuse_attr_out attr = {.attr = attr_of(file ? file : files)};
  struct fuse_open_out opened = {0};
  struct fuse_statfs_out statfs = {.st = {.bsize = 4096, .frsize = 4096, .namelen = 255}};
  if (file && file->hangs == in->opcode) return note_hanging(in->nodeid);
  switch (in->opcode) {
    case FUSE_INIT: return begin(in, body);
    case FUSE_LOOKUP: return lookup(in, body);
    case FUSE_GETATTR: return answer(in, 0, &attr, sizeof attr);
    case FUSE_SETATTR: return set_attributes(in, file, body);
    case FUSE_MKNOD: return make_entry(in, (const char *)body + sizeof(struct fuse_mknod_in), *(const uint32_t *)body);
    case FUSE_MKDIR:
      return make_entry(in, (const char *)body + sizeof(struct fuse_mkdir_in), *(const uint32_t *)body | S_IFDIR);
    case FUSE_CREATE: return create(in, body);
    case FUSE_LINK: return link_file(in, body);
    case FUSE_UNLINK:
    case FUSE_RMDIR: return remove_name(in, body);
    case FUSE_RENAME: return rename_file(in, rename->newdir, 0, (const char *)(rename + 1));
    case FUSE_RENAME2: return rename_file(in, rename2->newdir, rename2->flags, (const char *)(rename2 + 1));
    case FUSE_SETXATTR: return set_attribute(in, file, body);
    case FUSE_GETXATTR: return get_attribute(in, file, body);
    case FUSE_LISTXATTR:
      return answer_bytes(in, *(const uint32_t *)body, file->attribute,
                          *file->attribute ? strlen(file->attribute) + 1 : 0);
    case FUSE_REMOVEXATTR: return remove_attribute(in, file, body);
    case FUSE_OPEN:
    case FUSE_OPENDIR: return answer(in, 0, &opened, sizeof opened);
    case FUSE_READ: return read_file(in, file, body);
    case FUSE_READDIR: return list(in, body);
    case FUSE_WRITE: return write_file(in, file, body);
    case FUSE_FSYNC: take_time(file); return answer(in, 0, NULL, 0);
    case FUSE_STATFS: return answer(in, 0, &statfs, sizeof statfs);
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT: return; /* have no answer */
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_FSYNCDIR: return answer(in, 0, NULL, 0);
    default: return answer(in, ENOSYS, NULL, 0);
  }
}

static void mount_on(const char *directory) {
  char options[128];
  device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) fail("/dev/fuse");
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
           device);
  if (mount("stalling", directory, "fuse", MS_NOSUID | MS_NODEV, options) != 0) fail(directory);
}

static struct file *make_first(const char *text, uint64_t size, uint64_t room) {
  struct file *file = make(S_IFREG | 0666, room);
  file->size = size;
  give_name(FUSE_ROOT_ID, text, file);
  return file;
}

int main(int count, char **arguments) {
  static char request[WRITE_BYTES_MAX + 4096] __attribute__((aligned(8)));
  if (count != 2 && count != 5) return fprintf(stderr, "stalling DIRECTORY [disk BYTES DELAY-MS]\n"), 2;
  make(S_IFDIR | 0777, 0)->links = 1;
  if (count == 5) {
    uint64_t bytes = strtoull(arguments[3], NULL, 10);
    make_first("disk", bytes, bytes)->slow = true;
    delay_ms = strtol(arguments[4], NULL, 10);
  } else make_first("well", 8192, CONTENT_BYTES);
  for (unsigned i = 0; count == 2 && i < 10 * sizeof hanging / sizeof *hanging; i++) {
    char text[16];
    snprintf(text, sizeof text, "%s%u", hanging[i / 10].name, i % 10);
    make_first(text, 8192, CONTENT_BYTES)->hangs = hanging[i / 10].opcode;
  }
  signal(SIGUSR1, set_delaying);
  signal(SIGUSR2, set_delaying);
  mount_on(arguments[1]);
  puts("mounted");
  fflush(stdout);
  struct pollfd ready[] = {{.fd = device, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  for (;;) {
    if (poll(ready, 2, -1) < 0) {
      if (errno == EINTR) continue;
      fail("poll");
    }
    if (ready[1].revents != 0) break;
    if (ready[0].revents == 0) continue;
    ssize_t bytes = read(device, request, sizeof request);
    if (bytes < 0 && errno == ENODEV) return 0; /* unmounted by somebody else */
    if (bytes > 0) serve((const struct fuse_in_header *)request);
  }
  umount2(arguments[1], MNT_DETACH);
  return 0;
}
