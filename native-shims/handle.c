/* File handles (name_to_handle_at(2)), which are stable over renames. Packed as type[4] and the handle's bytes. */
#include "syscalls.h"

#include <fcntl.h>
#include <string.h>

_Static_assert(HANDLE_BYTES_MAX == 4 + MAX_HANDLE_SZ, "HANDLE_BYTES_MAX of shared.mjs");

union handle {
  struct file_handle head;
  char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

int64_t sys_handle(const struct call *c) {
  union handle handle = {.head = {.handle_bytes = MAX_HANDLE_SZ}};
  int mount_id;
  if (c->segment->iov_len < HANDLE_BYTES_MAX) return -EINVAL;
  int64_t done = RESULT(name_to_handle_at(c->number[0], "", &handle.head, &mount_id, AT_EMPTY_PATH));
  if (done < 0) return done;
  uint8_t *at = c->segment->iov_base;
  put32(at, (uint32_t)handle.head.handle_type);
  memcpy(at + 4, handle.head.f_handle, handle.head.handle_bytes);
  return 4 + handle.head.handle_bytes;
}

int64_t sys_open_handle(const struct call *c) {
  union handle handle;
  const uint8_t *at = c->segment->iov_base;
  size_t bytes = c->segment->iov_len;
  if (bytes < 4 || bytes > HANDLE_BYTES_MAX) return -EINVAL;
  handle.head.handle_bytes = (unsigned)(bytes - 4);
  handle.head.handle_type = (int)(at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24);
  memcpy(handle.head.f_handle, at + 4, bytes - 4);
  return RESULT(open_by_handle_at(c->number[0], &handle.head, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}
