/* The shims, and what they share. */
#ifndef SYSCALLS_H
#define SYSCALLS_H

#include "call.h"
#include "shared.h"

#include <errno.h>
#include <stddef.h>
#include <sys/sysmacros.h>
#include <sys/types.h>

/* The value of a system call, or -errno. */
#define RESULT(value) result_of((int64_t)(value))
static inline int64_t result_of(int64_t value) {
  return value < 0 ? -(int64_t)errno : value;
}

/* The same on every architecture but Alpha; older kernel headers lack them. */
#ifdef OLD_KERNEL /* for tests: numbers that no kernel has */
enum { CALL_FCHMODAT2 = 100452, CALL_SETXATTRAT = 100463, CALL_GETXATTRAT = 100464 };
#else
enum { CALL_FCHMODAT2 = 452, CALL_SETXATTRAT = 463, CALL_GETXATTRAT = 464 };
#endif

/* The other result of `close` for which nothing was closed: the object is large. */
enum { CLOSE_LARGE = CLOSE_REMOVED + 1 };

struct proc_path {
  char text[32];
};

/* "/proc/self/fd/N". snprintf(3) would cost as much as the system call. */
static inline struct proc_path proc_path(int fd) {
  struct proc_path path = {"/proc/self/fd/"};
  char digits[12];
  int count = 0, at = sizeof "/proc/self/fd/" - 1;
  uint32_t rest = fd < 0 ? UINT32_MAX : (uint32_t)fd;
  do digits[count++] = (char)('0' + rest % 10);
  while ((rest /= 10) != 0);
  while (count > 0) path.text[at++] = digits[--count];
  return path;
}

/*
 * An O_PATH descriptor of /proc/self/fd, for calls that take a directory: a path from there has one component instead
 * of four. −1 in a child (child.h), for which it leads to the descriptors of another process, and only who may trace
 * that can follow them (proc(5)).
 */
int proc_fds(void);
void open_proc_fds(void);

/* The path relative to `from`, a value of `proc_fds`; absolute if that is −1. */
static inline const char *name_from(int from, const struct proc_path *path) {
  return from < 0 ? path->text : path->text + sizeof "/proc/self/fd/" - 1;
}

/* An offset or length passed as a double, or -EINVAL. */
static inline int64_t offset_of(double value) {
  return value >= 0 && value < 0x1p63 && value == (double)(int64_t)value ? (int64_t)value : -EINVAL;
}

/* new_encode_dev and new_decode_dev of include/linux/kdev_t.h. */
static inline uint32_t encode_device(uint32_t major, uint32_t minor) {
  return (minor & 0xff) | major << 8 | (minor & ~0xffU) << 12;
}
static inline dev_t device_of(uint32_t encoded) {
  return makedev((encoded & 0xfff00) >> 8, (encoded & 0xff) | (encoded >> 12 & 0xfff00));
}

static inline void put16(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)value;
  at[1] = (uint8_t)(value >> 8);
}
static inline void put32(uint8_t *at, uint32_t value) {
  put16(at, value);
  put16(at + 2, value >> 16);
}
static inline void put64(uint8_t *at, uint64_t value) {
  put32(at, (uint32_t)value);
  put32(at + 4, (uint32_t)(value >> 32));
}

/* syscalls.c */
shim sys_lookup, sys_reopen, sys_create, sys_create_unnamed, sys_close, sys_duplicate;
shim sys_mkdir, sys_mknod, sys_symlink, sys_link, sys_rename, sys_unlink, sys_readlink;
shim sys_chmod, sys_chown, sys_utimens, sys_ftruncate, sys_truncate;
shim sys_read, sys_read_cached, sys_write, sys_fsync;

/* xattr.c */
shim sys_getxattr, sys_listxattr, sys_setxattr, sys_removexattr;
int64_t getxattr_at(int dirfd, const char *name, int flags, const char *xattr, void *into, size_t bytes);

shim sys_stat, sys_stat_at, sys_statfs;  /* attr.c */
shim sys_readdir;                        /* readdir.c */
shim sys_lock, sys_test_lock, sys_flock; /* lock.c */
shim sys_handle, sys_open_handle;        /* handle.c */

/* process.c */
/* Closes sockets, pipes and terminals, for whose end somebody may wait. Files stay open, since closing one may hang. */
void close_streams(void);
shim sys_effective_capabilities, sys_groups_of, sys_user_named, sys_group_named, sys_peer_credentials,
    sys_descriptor_limit;
shim sys_stop_threads, sys_exit_now;

shim sys_private_root;                                           /* private-root.c */
shim sys_landlock_abi, sys_landlock;                             /* landlock.c */
shim sys_bound_capabilities, sys_keep_capabilities, sys_execute; /* exec.c */
shim sys_install_seccomp;                                        /* seccomp.c */

shim sys_is_listening, sys_refuse_descriptors, sys_datagram_to, sys_socket_pair; /* socket.c */

shim sys_vsock_bind, sys_vsock_name, sys_vsock_peer; /* vsock.c */

shim sys_receive_message, sys_send_message, sys_kind_of_descriptor; /* message.c */
shim sys_eventfd, sys_signal;                                       /* eventfd.c */
shim sys_map, sys_detach, sys_faults, sys_bytes_to_alignment;       /* mapping.c */

#endif
