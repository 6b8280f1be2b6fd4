/* The table of shims, which src/host finds by name, and `perform`. */
#include "creds.h"
#include "ranges.h"
#include "syscalls.h"

#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/*
 * Not MEASURED are calls that do not block on a local file system: stat (the inode is in memory), readCached
 * (RWF_NOWAIT), lock and testLock (F_OFD_SETLK), flock (LOCK_NB), handle. Nor is fsync, which always blocks.
 */
const struct row shims[] = {
    {"lookup", sys_lookup, MEASURED},
    {"reopen", sys_reopen, MEASURED},
    {"create", sys_create, MEASURED},
    {"createUnnamed", sys_create_unnamed, MEASURED},
    {"close", sys_close, AS_SERVER | MEASURED},
    {"stat", sys_stat, 0},
    {"statAt", sys_stat_at, MEASURED},
    {"statfs", sys_statfs, MEASURED},
    {"mkdir", sys_mkdir, MEASURED},
    {"mknod", sys_mknod, MEASURED},
    {"symlink", sys_symlink, MEASURED},
    {"link", sys_link, MEASURED},
    {"rename", sys_rename, MEASURED},
    {"unlink", sys_unlink, MEASURED},
    {"readlink", sys_readlink, MEASURED},
    {"chmod", sys_chmod, MEASURED},
    {"chown", sys_chown, MEASURED},
    {"utimens", sys_utimens, MEASURED},
    {"ftruncate", sys_ftruncate, MEASURED},
    {"truncate", sys_truncate, MEASURED},
    {"read", sys_read, MEASURED},
    {"readCached", sys_read_cached, 0},
    {"write", sys_write, MEASURED},
    {"fsync", sys_fsync, SLOW_QUEUE},
    {"readdir", sys_readdir, MEASURED},
    {"getxattr", sys_getxattr, MEASURED},
    {"listxattr", sys_listxattr, MEASURED},
    {"setxattr", sys_setxattr, MEASURED},
    {"removexattr", sys_removexattr, MEASURED},
    {"lock", sys_lock, SLOW_QUEUE},
    {"testLock", sys_test_lock, SLOW_QUEUE},
    {"flock", sys_flock, 0},
    {"handle", sys_handle, AS_SERVER},
    {"openHandle", sys_open_handle, AS_SERVER | MEASURED},
    {"effectiveCapabilities", sys_effective_capabilities, AS_SERVER},
    {"groupsOf", sys_groups_of, AS_SERVER},
    {"peerCredentials", sys_peer_credentials, AS_SERVER},
    {"descriptorLimit", sys_descriptor_limit, AS_SERVER},
    {"stopThreads", sys_stop_threads, AS_SERVER},
    {"exitNow", sys_exit_now, AS_SERVER},
    {"userNamed", sys_user_named, AS_SERVER},
    {"groupNamed", sys_group_named, AS_SERVER},
    {"privateRoot", sys_private_root, AS_SERVER},
    {"landlockAbi", sys_landlock_abi, AS_SERVER},
    {"landlock", sys_landlock, AS_SERVER},
    {"boundCapabilities", sys_bound_capabilities, AS_SERVER},
    {"keepCapabilities", sys_keep_capabilities, AS_SERVER},
    {"execute", sys_execute, AS_SERVER},
    {"installSeccomp", sys_install_seccomp, AS_SERVER},
    {"isListening", sys_is_listening, AS_SERVER},
    {"refuseDescriptors", sys_refuse_descriptors, AS_SERVER},
    {"datagramTo", sys_datagram_to, AS_SERVER},
    {"socketPair", sys_socket_pair, AS_SERVER},
    {"vsockBind", sys_vsock_bind, AS_SERVER},
    {"vsockName", sys_vsock_name, AS_SERVER},
    {"vsockPeer", sys_vsock_peer, AS_SERVER},
    {"receiveMessage", sys_receive_message, AS_SERVER},
    {"kindOfDescriptor", sys_kind_of_descriptor, AS_SERVER},
    {"sendMessage", sys_send_message, AS_SERVER},
    {"duplicate", sys_duplicate, AS_SERVER},
    {"eventfd", sys_eventfd, AS_SERVER},
    {"signal", sys_signal, AS_SERVER},
    {"map", sys_map, AS_SERVER},
    {"detach", sys_detach, AS_SERVER},
    {"faults", sys_faults, AS_SERVER},
    {"bytesToAlignment", sys_bytes_to_alignment, AS_SERVER},
};

const int shim_count = sizeof shims / sizeof *shims;

int64_t control_bytes(const struct control *control) {
  uint64_t texts = (uint64_t)control->text_bytes[0] + control->text_bytes[1] + 2;
  if (control->shim >= (uint32_t)shim_count || texts > TEXT_BYTES_MAX) return -EINVAL;
  return (int64_t)(offsetof(struct control, texts) + texts);
}

enum { COUNTING_NS = 1000000000 };

/* A clock that costs less and advances in ticks: a difference of two ticks means that one or more has passed. */
static int64_t coarse_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t tick_ns(void) {
  static _Atomic int64_t known;
  struct timespec tick;
  if (known == 0) known = clock_getres(CLOCK_MONOTONIC_COARSE, &tick) == 0 ? tick.tv_nsec : 10000000;
  return known;
}

static long voluntary_switches(void) {
  struct rusage usage;
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : 0;
}

/*
 * A call that took long has blocked, or its thread was preempted. The count of voluntary context switches tells
 * which, but costs as much as a call: so it is read only for COUNTING_NS after a long call of any thread.
 */
static int64_t measured(const struct row *row, const struct call *call, uint32_t *blocked_ms) {
  static _Atomic int64_t counting_until;
  int64_t began = coarse_ns(), result;
  bool counting = began < counting_until;
  long before = counting ? voluntary_switches() : 0;
  do result = row->run(call);
  while (result == -EINTR);
  int64_t ended = coarse_ns();
  if (ended - began < 2 * tick_ns()) return result;
  counting_until = ended + COUNTING_NS;
  if (counting && voluntary_switches() > before) *blocked_ms = (uint32_t)((ended - began) / 1000000);
  return result;
}

static int64_t attempt(const struct row *row, const struct call *call, uint32_t *blocked_ms) {
  int64_t result;
  if (row->flags & MEASURED) return measured(row, call, blocked_ms);
  do result = row->run(call);
  while (result == -EINTR);
  return result;
}

int64_t perform(const struct control *control, struct group_list *groups, const struct iovec *segment,
                int segment_count, uint32_t *blocked_ms) {
  static const struct creds as_server = {.server = 1};
  static const struct iovec nothing = {0};
  const char *second = control->texts + control->text_bytes[0] + 1;
  struct call call = {
      .number = control->number,
      .wide = control->wide,
      .text = {control->texts, second},
      .text_bytes = control->text_bytes,
      .segment = segment_count > 0 ? segment : &nothing,
      .segment_count = segment_count,
  };
  *blocked_ms = 0;
  /* A text with a NUL inside would name another object. */
  if (strlen(call.text[0]) != control->text_bytes[0] || strlen(second) != control->text_bytes[1]) return -EINVAL;
  const struct row *row = &shims[control->shim];
  const struct creds *caller = row->flags & AS_SERVER ? &as_server : &control->creds;
  int64_t result = creds_assume(caller, groups);
  if (result < 0) return result;
  result = attempt(row, &call, blocked_ms);
  if ((result != -EACCES && result != -EPERM) || !in_ranges(caller, row, &call)) return result;
  struct creds over = *caller;
  over.file_caps = FILE_CAPS_ALL;
  int64_t failed = creds_assume(&over, groups);
  return failed < 0 ? failed : attempt(row, &call, blocked_ms);
}
