/*
 * The shims that take bytes from strangers, as the event loop calls them: a control block of any content, and segments whose
 * memory ends where they end, so that the address sanitizer sees every byte too far. What is packed is unpacked again.
 */
#include "call.h"
#include "syscalls.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { STEPS_MAX = 64, SEGMENT_BYTES_MAX = 4096, ENTRIES = 40, FDS_MAX = 20, MAPPINGS_TRIED = 64 };

/* Where everything happens: removed as soon as it is open. */
static int directory = -1, file = -1;

#define MUST(holds)                                                                                                    \
  do {                                                                                                                 \
    if (!(holds)) {                                                                                                    \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #holds);                                                      \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

struct input {
  const uint8_t *at, *end;
};

static uint8_t byte_of(struct input *in) {
  return in->at < in->end ? *in->at++ : 0;
}
static uint32_t word_of(struct input *in) {
  uint32_t word = 0;
  for (int i = 0; i < 4; i++) word = word << 8 | byte_of(in);
  return word;
}
static void bytes_of(struct input *in, void *into, size_t count) {
  for (size_t i = 0; i < count; i++) ((uint8_t *)into)[i] = byte_of(in);
}

static void entry_name(char *into, int number) {
  int bytes = 1 + number * 6;
  memset(into, 'a' + number % 26, (size_t)bytes);
  snprintf(into + bytes, 8, "%d", number);
}

/* What is only looked at, opened and closed. */
static const char *others[] = {"stat",   "statAt",     "statfs",      "getxattr",  "listxattr", "readlink",
                               "handle", "openHandle", "lock",        "testLock",  "read",      "faults",
                               "detach", "lookup",     "isListening", "vsockName", "vsockPeer"};

static uint32_t shim_called(const char *name) {
  for (int i = 0; i < shim_count; i++) {
    if (strcmp(shims[i].name, name) == 0) return (uint32_t)i;
  }
  MUST(!"a shim of that name");
  return 0;
}

static void prepare(void) {
  char path[] = "/tmp/ninepd-shims-XXXXXX", name[300];
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) shim_called(others[i]);
  MUST(mkdtemp(path));
  directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  file = openat(directory, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  MUST(directory >= 0 && file >= 0 && ftruncate(file, 65536) == 0);
  for (int i = 0; i < ENTRIES; i++) {
    uint8_t mode[6] = {0, (uint8_t)(i << 4), 0, 0, 0, 0};
    entry_name(name, i);
    int fd = openat(directory, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    MUST(fd >= 0);
    fsetxattr(fd, "user.virtfs.mode", mode, i % 7, 0);
    close(fd);
  }
}

static void clean(void) {
  char name[300];
  char path[64], real[300];
  for (int i = 0; i < ENTRIES; i++) {
    entry_name(name, i);
    unlinkat(directory, name, 0);
  }
  unlinkat(directory, "file", 0);
  snprintf(path, sizeof path, "/proc/self/fd/%d", directory);
  ssize_t length = readlink(path, real, sizeof real - 1);
  if (length > 0) {
    real[length] = 0;
    rmdir(real);
  }
}

/* A text of the control block, from a few that mean something or from the input. */
static void text_of(struct input *in, struct control *control, int which) {
  static const char *known[] = {"", ".ninepd-new-", "a", "user.virtfs.mode", "user.x", "file"};
  char *at = control->texts + (which == 0 ? 0 : control->text_bytes[0] + 1);
  uint8_t choice = byte_of(in);
  size_t bytes;
  if (choice < 200) {
    const char *text = known[choice % (sizeof known / sizeof *known)];
    bytes = strlen(text);
    memcpy(at, text, bytes);
  } else {
    bytes = choice % 60;
    bytes_of(in, at, bytes);
  }
  at[bytes] = 0;
  control->text_bytes[which] = (uint32_t)bytes;
}

/* Memory of exactly its size. */
static struct iovec segment_of(struct input *in) {
  static const size_t usual[] = {
      0, 1, 3, 4, 8, 23, 24, STATFS_BYTES, 64, HANDLE_BYTES_MAX, ATTR_BYTES, 300, 1024, SEGMENT_BYTES_MAX};
  uint8_t choice = byte_of(in);
  size_t bytes = choice < 200 ? usual[choice % (sizeof usual / sizeof *usual)] : word_of(in) % SEGMENT_BYTES_MAX;
  struct iovec segment = {.iov_base = malloc(bytes), .iov_len = bytes};
  for (size_t i = 0; i < bytes && i < 64; i++) ((uint8_t *)segment.iov_base)[i] = byte_of(in);
  if (bytes > 64) memset((char *)segment.iov_base + 64, 0xa5, bytes - 64);
  return segment;
}

static int64_t call(const char *name, struct control *control, struct iovec *segments, int count) {
  control->shim = shim_called(name);
  control->creds.server = 1;
  uint32_t blocked_ms = 0;
  return control_bytes(control) < 0 ? -EINVAL : perform(control, NULL, segments, count, &blocked_ms);
}

/* qid[13] offset[8] type[1] name[s], as often as there is room, and no name that is hidden. */
static void check_entries(const struct control *control, const struct iovec *into, int64_t bytes) {
  MUST(bytes <= (int64_t)into->iov_len);
  const uint8_t *at = into->iov_base, *end = at + (bytes > 0 ? bytes : 0);
  while (at < end) {
    MUST(end - at >= DIRENT_NAME);
    size_t name_bytes = (size_t)(at[DIRENT_NAME_BYTES] | at[DIRENT_NAME_BYTES + 1] << 8);
    MUST(name_bytes > 0 && name_bytes <= 255 && (size_t)(end - at) >= DIRENT_NAME + name_bytes);
    const char *name = (const char *)at + DIRENT_NAME;
    MUST(!memchr(name, 0, name_bytes) && !memchr(name, '/', name_bytes));
    uint32_t prefix = control->text_bytes[0];
    MUST(prefix == 0 || prefix > name_bytes || memcmp(name, control->texts, prefix) != 0);
    uint8_t type = at[DIRENT_TYPE];
    MUST(type == DT_DIR || type == DT_REG || type == DT_FIFO || type == DT_CHR || type == DT_BLK || type == DT_LNK ||
         type == DT_SOCK);
    bool is_directory = (name_bytes == 1 && *name == '.') || (name_bytes == 2 && memcmp(name, "..", 2) == 0);
    MUST((type == DT_DIR) == is_directory);
    at += DIRENT_NAME + name_bytes;
  }
}

static void try_readdir(struct input *in, struct control *control) {
  struct iovec into = segment_of(in);
  uint64_t cookie = 0;
  if (byte_of(in) % 4 == 0) bytes_of(in, &cookie, sizeof cookie);
  /* And on from where it stopped. */
  for (int i = 0; i < ENTRIES + 8; i++) {
    control->number[0] = directory;
    control->number[1] = (int32_t)cookie;
    control->number[2] = (int32_t)(cookie >> 32);
    int64_t got = call("readdir", control, &into, 1);
    if (got > 0) got &= ~(int64_t)READDIR_HID;
    check_entries(control, &into, got);
    if (got <= 0) break;
    const uint8_t *at = into.iov_base, *last = at;
    for (; at < (uint8_t *)into.iov_base + got;
         at += DIRENT_NAME + (at[DIRENT_NAME_BYTES] | at[DIRENT_NAME_BYTES + 1] << 8))
      last = at;
    memcpy(&cookie, last + DIRENT_COOKIE, sizeof cookie);
  }
  free(into.iov_base);
}

static int descriptors(void) {
  DIR *all = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(all)) count++;
  closedir(all);
  return count;
}

/* A message with so many descriptors, of which 16 are taken at most: none may be lost. */
static void try_receive(struct input *in, struct control *control) {
  int pair[2], before = descriptors();
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
  } beside = {0};
  uint8_t sent[300];
  size_t count = byte_of(in) % (FDS_MAX + 1);
  struct iovec bytes = {.iov_base = sent, .iov_len = 1 + word_of(in) % (sizeof sent - 1)};
  struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};
  bytes_of(in, sent, bytes.iov_len);
  MUST(socketpair(AF_UNIX, byte_of(in) % 2 ? SOCK_STREAM : SOCK_SEQPACKET, 0, pair) == 0);
  if (count > 0) {
    message.msg_control = &beside;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (size_t i = 0; i < count; i++) memcpy(CMSG_DATA(part) + i * sizeof(int), &file, sizeof file);
  }
  MUST(sendmsg(pair[0], &message, 0) == (ssize_t)bytes.iov_len);
  struct iovec into[2] = {segment_of(in), segment_of(in)};
  control->number[0] = pair[1];
  int64_t got = call("receiveMessage", control, into, byte_of(in) % 8 == 0 ? 1 : 2);
  if (into[1].iov_len >= 4 + 4 * 16 && (got >= 0 || got == -EPROTO)) {
    uint32_t taken;
    memcpy(&taken, into[1].iov_base, 4);
    MUST(got <= (int64_t)into[0].iov_len && taken <= count && taken <= 16);
    for (uint32_t i = 0; i < taken; i++) {
      int fd;
      memcpy(&fd, (char *)into[1].iov_base + 4 + 4 * i, sizeof fd);
      MUST(close(fd) == 0);
    }
  }
  free(into[0].iov_base);
  free(into[1].iov_base);
  close(pair[0]);
  close(pair[1]);
  MUST(descriptors() == before);
}

static void try_map(struct input *in, struct control *control) {
  control->number[0] = byte_of(in) % 8 == 0 ? directory : file;
  control->wide[0] = (double)(word_of(in) % 20 * 4096);
  struct iovec place = {.iov_len = 4096 * (1 + word_of(in) % 16)};
  if (byte_of(in) % 8 == 0) bytes_of(in, control->wide, sizeof *control->wide);
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  place.iov_base = mmap(NULL, place.iov_len, PROT_READ | PROT_WRITE, flags, -1, 0);
  MUST(place.iov_base != MAP_FAILED);
  int64_t index = call("map", control, &place, 1);
  /* Beyond the end of the file the handler of SIGBUS puts memory in the mapping's place. */
  volatile char *touched = (char *)place.iov_base + word_of(in) % place.iov_len;
  *touched = 1;
  if (index >= 0) {
    control->number[0] = (int32_t)index;
    MUST(call("faults", control, NULL, 0) >= 0);
    MUST(call("detach", control, NULL, 0) == 0);
    MUST(call("detach", control, NULL, 0) == -EINVAL);
    *touched = 1;
  }
  munmap(place.iov_base, place.iov_len);
}

/* Everything else: any numbers on a directory, a file or nothing. */
static void try_other(struct input *in, struct control *control) {
  struct iovec into[2] = {segment_of(in), segment_of(in)};
  const char *name = others[byte_of(in) % (sizeof others / sizeof *others)];
  bytes_of(in, control->number, sizeof control->number);
  bytes_of(in, control->wide, sizeof control->wide);
  control->number[0] = byte_of(in) % 8 == 0 ? control->number[0] | 1 << 20 : byte_of(in) % 2 ? directory : file;
  int count = byte_of(in) % 3;
  /* readlinkat(2) is declared to be given memory, and always is. */
  if (count == 0 && strcmp(name, "readlink") == 0) count = 1;
  int64_t got = call(name, control, into, count);
  bool opens = strcmp(name, "lookup") == 0 || strcmp(name, "openHandle") == 0;
  if (opens && got >= 0) close((int)got);
  free(into[0].iov_base);
  free(into[1].iov_base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static struct control control;
  struct input in = {data, data + bytes};
  if (directory < 0) {
    prepare();
    atexit(clean);
  }
  for (int steps = 0; steps < STEPS_MAX && in.at < in.end; steps++) {
    memset(&control, 0, offsetof(struct control, texts) + 256);
    text_of(&in, &control, 0);
    text_of(&in, &control, 1);
    uint8_t what = byte_of(&in) % 8;
    if (what < 2) try_readdir(&in, &control);
    else if (what < 4) try_receive(&in, &control);
    else if (what == 4) try_map(&in, &control);
    else if (what == 5) {
      /* A block that nobody wrote with care. */
      bytes_of(&in, &control.text_bytes, sizeof control.text_bytes);
      control.shim = word_of(&in);
      if (control_bytes(&control) >= 0) MUST(control.shim < (uint32_t)shim_count);
    } else try_other(&in, &control);
  }
  return 0;
}
