/* The rows that src/host finds by name, and the one way to run them. */
#include "creds.h"
#include "syscalls.h"

#include <string.h>

const struct row shims[] = {
    {"lookup", sys_lookup, 0},
    {"reopen", sys_reopen, 0},
    {"create", sys_create, 0},
    {"createUnnamed", sys_create_unnamed, 0},
    {"close", sys_close, AS_SERVER},
    {"stat", sys_stat, 0},
    {"statAt", sys_stat_at, 0},
    {"statfs", sys_statfs, 0},
    {"mkdir", sys_mkdir, 0},
    {"mknod", sys_mknod, 0},
    {"symlink", sys_symlink, 0},
    {"link", sys_link, 0},
    {"rename", sys_rename, 0},
    {"unlink", sys_unlink, 0},
    {"readlink", sys_readlink, 0},
    {"chmod", sys_chmod, 0},
    {"chown", sys_chown, 0},
    {"utimens", sys_utimens, 0},
    {"ftruncate", sys_ftruncate, 0},
    {"truncate", sys_truncate, 0},
    {"read", sys_read, 0},
    {"write", sys_write, 0},
    {"fsync", sys_fsync, 0},
    {"readdir", sys_readdir, 0},
    {"getxattr", sys_getxattr, 0},
    {"listxattr", sys_listxattr, 0},
    {"setxattr", sys_setxattr, 0},
    {"removexattr", sys_removexattr, 0},
    {"lock", sys_lock, 0},
    {"testLock", sys_test_lock, 0},
    {"handle", sys_handle, AS_SERVER},
    {"openHandle", sys_open_handle, AS_SERVER},
    {"effectiveCapabilities", sys_effective_capabilities, AS_SERVER},
    {"groupsOf", sys_groups_of, AS_SERVER},
    {"peerCredentials", sys_peer_credentials, AS_SERVER},
    {"descriptorLimit", sys_descriptor_limit, AS_SERVER},
    {"userNamed", sys_user_named, AS_SERVER},
    {"landlockAbi", sys_landlock_abi, AS_SERVER},
    {"landlock", sys_landlock, AS_SERVER},
    {"boundCapabilities", sys_bound_capabilities, AS_SERVER},
    {"keepCapabilities", sys_keep_capabilities, AS_SERVER},
    {"execute", sys_execute, AS_SERVER},
    {"filterCalls", sys_filter_calls, AS_SERVER},
    {"isListening", sys_is_listening, AS_SERVER},
    {"datagramTo", sys_datagram_to, AS_SERVER},
    {"channel", sys_channel, AS_SERVER},
    {"vsockBind", sys_vsock_bind, AS_SERVER},
    {"vsockName", sys_vsock_name, AS_SERVER},
    {"vsockPeer", sys_vsock_peer, AS_SERVER},
    {"receiveMessage", sys_receive_message, AS_SERVER},
    {"sendMessage", sys_send_message, AS_SERVER},
    {"duplicate", sys_duplicate, AS_SERVER},
    {"eventfd", sys_eventfd, AS_SERVER},
    {"signal", sys_signal, AS_SERVER},
    {"map", sys_map, AS_SERVER},
    {"sever", sys_sever, AS_SERVER},
    {"faults", sys_faults, AS_SERVER},
};

const int shim_count = sizeof shims / sizeof *shims;

int64_t control_bytes(const struct control *control) {
  uint64_t texts = (uint64_t)control->text_bytes[0] + control->text_bytes[1] + 2;
  if (control->shim >= (uint32_t)shim_count || texts > TEXT_BYTES_MAX) return -EINVAL;
  return (int64_t)(offsetof(struct control, texts) + texts);
}

int64_t perform(const struct control *control, const struct iovec *segment, int segment_count) {
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
  /* A text that a NUL cuts short would name another object than it says. */
  if (strlen(call.text[0]) != control->text_bytes[0] || strlen(second) != control->text_bytes[1]) return -EINVAL;
  const struct row *row = &shims[control->shim];
  int64_t result = creds_assume(row->flags & AS_SERVER ? &as_server : &control->creds);
  if (result < 0) return result;
  do result = row->run(&call);
  while (result == -EINTR);
  return result;
}
