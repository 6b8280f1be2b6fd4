/* Directory entries, packed as in Rreaddir (DIRENT_* of shared.h). */
#include "syscalls.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { READ_BYTES_MIN = 1024, READ_BYTES_MAX = 32768 };

/*
 * Cookie of an entry after which a listing cannot continue: the kernel's position is 0, which would start it again
 * and make a client read for ever, or 2^63 or more, which lseek(2) refuses. ext4 uses this number for its end.
 */
static const int64_t END = INT64_MAX;

struct packing {
  const struct call *call;
  uint8_t *at, *end;
  int64_t cookie;
  bool hid;
};

/* The xattr of an entry: by getxattrat(2), or by an O_PATH descriptor on older kernels. */
static int64_t xattr_of_entry(int dirfd, const char *name, const char *xattr, void *into, size_t bytes) {
  int64_t got = getxattr_at(dirfd, name, AT_SYMLINK_NOFOLLOW, xattr, into, bytes);
  if (got != -ENOSYS) return got;
  int fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -errno;
  got = RESULT(getxattr(proc_path(fd).text, xattr, into, bytes));
  close(fd);
  return got;
}

/* The types that a regular file of the host can represent, as in src/security/mapped.ts. */
static bool is_mapped_type(uint8_t type) {
  return type == DT_FIFO || type == DT_CHR || type == DT_BLK || type == DT_LNK || type == DT_SOCK;
}

static uint8_t type_of(const struct call *c, const struct dirent64 *entry) {
  uint8_t type = entry->d_type;
  struct stat st;
  if (type == DT_UNKNOWN && fstatat(c->number[0], entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
    type = IFTODT(st.st_mode);
  }
  uint8_t mode[4];
  if (type != DT_REG || c->text_bytes[1] == 0) return type;
  if (xattr_of_entry(c->number[0], entry->d_name, c->text[1], mode, sizeof mode) != sizeof mode) return type;
  uint8_t stored = IFTODT(mode[0] | mode[1] << 8);
  return is_mapped_type(stored) ? stored : type;
}

/*
 * text[0] is a prefix, and behind each '/' a whole name, of which ASCII case does not matter: a file system without case has no other
 * object of that name. Only the prefix is told of, since what is left behind under it is to be removed.
 */
static bool hide(struct packing *p, const char *name) {
  const struct call *c = p->call;
  const char *names = strchrnul(c->text[0], '/');
  size_t prefix_bytes = (size_t)(names - c->text[0]), name_bytes = strlen(name);
  if (prefix_bytes > 0 && strncmp(name, c->text[0], prefix_bytes) == 0) return p->hid = true;
  while (*names == '/') {
    const char *end = strchrnul(names + 1, '/');
    if ((size_t)(end - names - 1) == name_bytes && strncasecmp(name, names + 1, name_bytes) == 0) return true;
    names = end;
  }
  return false;
}

/* False if there is no room for the entry. */
static bool pack(struct packing *p, const struct dirent64 *entry) {
  size_t name_bytes = strlen(entry->d_name);
  if (DIRENT_NAME + name_bytes > (size_t)(p->end - p->at)) return false;
  uint8_t type = type_of(p->call, entry);
  p->cookie = entry->d_off > 0 ? entry->d_off : END;
  p->at[DIRENT_QID_TYPE] = type == DT_DIR ? QTDIR : type == DT_LNK ? QTSYMLINK : QTFILE;
  put32(p->at + DIRENT_QID_VERSION, 0);
  put64(p->at + DIRENT_QID_PATH, entry->d_ino);
  put64(p->at + DIRENT_COOKIE, (uint64_t)p->cookie);
  p->at[DIRENT_TYPE] = type;
  put16(p->at + DIRENT_NAME_BYTES, (uint32_t)name_bytes);
  memcpy(p->at + DIRENT_NAME, entry->d_name, name_bytes);
  p->at += DIRENT_NAME + name_bytes;
  return true;
}

/* Reads from the descriptor's position on. Bytes, or -errno if nothing was packed before the failure. */
static int64_t pack_all(struct packing *p) {
  uint8_t *start = p->at;
  _Alignas(struct dirent64) char entries[READ_BYTES_MAX];
  for (;;) {
    size_t want = (size_t)(p->end - p->at);
    want = want < READ_BYTES_MIN ? READ_BYTES_MIN : want > READ_BYTES_MAX ? READ_BYTES_MAX : want;
    int64_t got = RESULT(getdents64(p->call->number[0], entries, want));
    if (got <= 0) return p->at > start ? p->at - start : got;
    for (int64_t at = 0; at < got;) {
      struct dirent64 *entry = (struct dirent64 *)(entries + at);
      at += entry->d_reclen;
      if (hide(p, entry->d_name) || pack(p, entry)) continue;
      if (p->at == start) return -EINVAL;
      return p->cookie == END ? -EOVERFLOW : p->at - start;
    }
  }
}

int64_t sys_readdir(const struct call *c) {
  uint64_t cookie = (uint32_t)c->number[1] | (uint64_t)(uint32_t)c->number[2] << 32;
  struct packing p = {.call = c, .at = c->segment->iov_base};
  p.end = p.at + c->segment->iov_len;
  if (cookie >= (uint64_t)END) return 0;
  if (lseek(c->number[0], (off_t)cookie, SEEK_SET) < 0) return -errno;
  int64_t bytes = pack_all(&p);
  return bytes >= 0 && p.hid ? bytes | READDIR_HID : bytes;
}
