/*
 * A file system in user space whose calls can be made to take long, or for ever. It speaks /dev/fuse itself (linux/fuse.h).
 *
 *   stalling DIRECTORY                       files named after the call that never returns, ten of each: open0, read7, …
 *                                            (the kernel makes others wait for who hangs in the same file); and `well`
 *   stalling DIRECTORY disk BYTES DELAY-MS   one file, `disk`, each write and fsync of which takes that long, one by one,
 *                                            from SIGUSR1 on and up to SIGUSR2
 *
 * It says `mounted` on standard output, serves until standard input ends, and is gone then with its mount: what hangs in it
 * fails with ENOTCONN. Killing it does the same, but for the mount.
 */
#include <errno.h>
#include <fcntl.h>
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

enum { WRITE_BYTES_MAX = 128 * 1024, CONTENT_BYTES = 64 * 1024, ROOT = FUSE_ROOT_ID, FIRST_FILE = 2 };

struct file {
  const char *name;
  uint32_t hangs; /* the opcode that is never answered; 0 for none */
  uint64_t size, room;
  char *content;
  bool slow;
};

static const struct {
  const char *name;
  uint32_t opcode;
} hanging[] = {{"open", FUSE_OPEN}, {"read", FUSE_READ}, {"write", FUSE_WRITE}, {"fsync", FUSE_FSYNC}};

static struct file stalling[41] = {{.name = "well"}};
static struct file disk = {.name = "disk", .slow = true};

static struct file *files = stalling;
static int file_count = 1;
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
  return node >= FIRST_FILE && node < FIRST_FILE + (uint64_t)file_count ? &files[node - FIRST_FILE] : NULL;
}

static struct fuse_attr attr_of(uint64_t node) {
  const struct file *file = file_of(node);
  struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = 4096, .mode = S_IFDIR | 0777};
  if (!file) return attr;
  attr.mode = S_IFREG | 0666;
  attr.size = file->size;
  attr.blocks = (file->size + 511) / 512;
  return attr;
}

static void lookup(const struct fuse_in_header *in, const char *name) {
  for (int i = 0; i < file_count; i++) {
    if (strcmp(files[i].name, name) != 0) continue;
    struct fuse_entry_out entry = {.nodeid = FIRST_FILE + (uint64_t)i, .attr = attr_of(FIRST_FILE + (uint64_t)i)};
    answer(in, 0, &entry, sizeof entry);
    return;
  }
  answer(in, ENOENT, NULL, 0);
}

static void set_delaying(int signal) { delaying = signal == SIGUSR1; }

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
  if (file && (how->valid & FATTR_SIZE) && how->size <= file->room) file->size = how->size;
  struct fuse_attr_out out = {.attr = attr_of(in->nodeid)};
  answer(in, 0, &out, sizeof out);
}

static void list(const struct fuse_in_header *in, const struct fuse_read_in *how) {
  char entries[4096];
  size_t bytes = 0;
  for (uint64_t i = how->offset; i < (uint64_t)file_count; i++) {
    struct fuse_dirent *entry = (struct fuse_dirent *)(entries + bytes);
    size_t length = strlen(files[i].name), all = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
    if (bytes + all > how->size || bytes + all > sizeof entries) break;
    memset(entry, 0, all);
    *entry = (struct fuse_dirent){.ino = FIRST_FILE + i, .off = i + 1, .namelen = (uint32_t)length, .type = S_IFREG >> 12};
    memcpy(entry->name, files[i].name, length);
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
  struct fuse_attr_out attr = {.attr = attr_of(in->nodeid)};
  struct fuse_open_out opened = {0};
  struct fuse_statfs_out statfs = {.st = {.bsize = 4096, .frsize = 4096, .namelen = 255}};
  if (file && file->hangs == in->opcode) return;
  switch (in->opcode) {
    case FUSE_INIT: return begin(in, body);
    case FUSE_LOOKUP: return lookup(in, body);
    case FUSE_GETATTR: return answer(in, 0, &attr, sizeof attr);
    case FUSE_SETATTR: return set_attributes(in, file, body);
    case FUSE_OPEN:
    case FUSE_OPENDIR: return answer(in, 0, &opened, sizeof opened);
    case FUSE_READ: return read_file(in, file, body);
    case FUSE_READDIR: return list(in, body);
    case FUSE_WRITE: return write_file(in, file, body);
    case FUSE_FSYNC:
      take_time(file);
      return answer(in, 0, NULL, 0);
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
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", device);
  if (mount("stalling", directory, "fuse", MS_NOSUID | MS_NODEV, options) != 0) fail(directory);
}

int main(int count, char **arguments) {
  static char request[WRITE_BYTES_MAX + 4096] __attribute__((aligned(8)));
  if (count != 2 && count != 5) return fprintf(stderr, "stalling DIRECTORY [disk BYTES DELAY-MS]\n"), 2;
  if (count == 5) {
    files = &disk;
    disk.size = disk.room = strtoull(arguments[3], NULL, 10);
    delay_ms = strtol(arguments[4], NULL, 10);
  }
  for (unsigned i = 0; count == 2 && i < 10 * sizeof hanging / sizeof *hanging; i++) {
    char *name = malloc(16);
    if (!name) fail("memory");
    snprintf(name, 16, "%s%u", hanging[i / 10].name, i % 10);
    stalling[file_count++] = (struct file){.name = name, .hangs = hanging[i / 10].opcode};
  }
  for (int i = 0; i < file_count; i++) {
    if (!files[i].slow) files[i] = (struct file){files[i].name, files[i].hangs, 8192, CONTENT_BYTES, NULL, false};
    files[i].content = calloc(1, files[i].room);
    if (!files[i].content) fail("memory");
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
