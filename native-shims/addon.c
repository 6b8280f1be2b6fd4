/*
 * The Node-API side. It makes no system calls, throws nothing, and after loading creates objects for `groupList` and
 * `memory` only.
 */
#define NAPI_VERSION 8
#include "creds-threads.h"
#include "creds.h"
#include "epoll.h"
#include "handoff.h"
#include "pool.h"
#include "syscalls.h"

#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* One for each `attach`; each event loop (worker thread) may have one. */
struct binding {
  struct loop loop; /* first: a pointer to it is one to the binding */
  struct shared *shared;
  struct group_list *groups; /* of the last useGroups() */
  napi_env env;
  napi_threadsafe_function wake;
  napi_ref block;
  uint32_t outstanding;
};

static napi_value number_of(napi_env env, int64_t value) {
  napi_value number = NULL;
  napi_create_int32(env, (int32_t)value, &number);
  return number;
}

static bool segment_of(napi_env env, napi_value value, struct iovec *segment) {
  napi_typedarray_type type;
  napi_status status = napi_get_typedarray_info(env, value, &type, &segment->iov_len, &segment->iov_base, NULL, NULL);
  return status == napi_ok && type == napi_uint8_array;
}

/* A Uint8Array, or an array of them, of which the first SEGMENTS_MAX are used. The count, or -EINVAL. */
static int segments_of(napi_env env, napi_value value, struct iovec *segments) {
  uint32_t count;
  if (segment_of(env, value, segments)) return 1;
  if (napi_get_array_length(env, value, &count) != napi_ok) return -EINVAL;
  if (count > SEGMENTS_MAX) count = SEGMENTS_MAX;
  for (uint32_t i = 0; i < count; i++) {
    napi_value element;
    if (napi_get_element(env, value, i, &element) != napi_ok) return -EINVAL;
    if (!segment_of(env, element, &segments[i])) return -EINVAL;
  }
  return (int)count;
}

/* The group list of the caller in the block, if it has more than GROUPS_MAX. */
static struct group_list *groups_in(const struct binding *binding) {
  const struct creds *creds = &binding->shared->control.creds;
  return creds->server == 0 && creds->group_count > GROUPS_MAX ? binding->groups : NULL;
}

/* run(data?): makes the call inline; the thread has the server's credentials again when it returns. 0 or more, or -errno. */
static napi_value run(napi_env env, napi_callback_info info) {
  struct binding *binding;
  struct iovec segments[SEGMENTS_MAX];
  napi_value data;
  size_t count = 1;
  napi_get_cb_info(env, info, &count, &data, NULL, (void **)&binding);
  const struct control *control = &binding->shared->control;
  int segment_count = count == 0 ? 0 : segments_of(env, data, segments);
  if (segment_count < 0 || control_bytes(control) < 0) return number_of(env, -EINVAL);
  int64_t result = perform_inline(control, groups_in(binding), segments, segment_count, &binding->shared->blocked_ms);
  return number_of(env, result);
}

/* submit(data?): queues the call on the pool; the caller keeps the data alive. 0, or -errno. */
static napi_value submit(napi_env env, napi_callback_info info) {
  struct binding *binding;
  struct iovec segments[SEGMENTS_MAX];
  napi_value data;
  size_t count = 1;
  napi_get_cb_info(env, info, &count, &data, NULL, (void **)&binding);
  const struct control *control = &binding->shared->control;
  int segment_count = count == 0 ? 0 : segments_of(env, data, segments);
  if (segment_count < 0 || control_bytes(control) < 0) return number_of(env, -EINVAL);
  int64_t failed = pool_submit(&binding->loop, control, groups_in(binding), segments, segment_count);
  if (failed == 0 && binding->outstanding++ == 0) napi_ref_threadsafe_function(env, binding->wake);
  return number_of(env, failed);
}

/* handOff(data?): makes the call by `hand_off`. Its result, or layout.late: the result then comes like those of the pool. */
static napi_value run_by_helper(napi_env env, napi_callback_info info) {
  struct binding *binding;
  struct iovec segments[SEGMENTS_MAX];
  napi_value data;
  size_t count = 1;
  napi_get_cb_info(env, info, &count, &data, NULL, (void **)&binding);
  struct shared *shared = binding->shared;
  int segment_count = count == 0 ? 0 : segments_of(env, data, segments);
  if (segment_count < 0 || control_bytes(&shared->control) < 0) return number_of(env, -EINVAL);
  int64_t result =
      hand_off(&binding->loop, &shared->control, groups_in(binding), segments, segment_count, &shared->blocked_ms);
  if (result == HANDOFF_LATE && binding->outstanding++ == 0) napi_ref_threadsafe_function(env, binding->wake);
  return number_of(env, result);
}

/* withdraw(slot): removes a submitted call that has not begun. Whether there was one. */
static napi_value withdraw(napi_env env, napi_callback_info info) {
  struct binding *binding;
  napi_value slot, result;
  size_t count = 1;
  uint32_t number = 0;
  napi_get_cb_info(env, info, &count, &slot, NULL, (void **)&binding);
  bool done = napi_get_value_uint32(env, slot, &number) == napi_ok && pool_withdraw(&binding->loop, number);
  if (done && --binding->outstanding == 0) napi_unref_threadsafe_function(env, binding->wake);
  napi_get_boolean(env, done, &result);
  return result;
}

static void drop_list(napi_env env, void *list, void *unused) {
  (void)env;
  (void)unused;
  group_list_drop(list);
}

/* groupList(words): an object for these groups, or undefined if there are more than NGROUPS_MAX. */
static napi_value group_list(napi_env env, napi_callback_info info) {
  napi_value words, result = NULL;
  size_t count = 1;
  struct iovec gids;
  napi_get_cb_info(env, info, &count, &words, NULL, NULL);
  struct group_list *list = segment_of(env, words, &gids) ? group_list_of(gids.iov_base, gids.iov_len / 4) : NULL;
  if (list && napi_create_external(env, list, drop_list, NULL, &result) != napi_ok) group_list_drop(list);
  return result;
}

/* useGroups(list): the groups of the caller in the block, if it has more than GROUPS_MAX. */
static napi_value use_groups(napi_env env, napi_callback_info info) {
  struct binding *binding;
  napi_value object;
  size_t count = 1;
  void *list;
  napi_get_cb_info(env, info, &count, &object, NULL, (void **)&binding);
  if (napi_get_value_external(env, object, &list) != napi_ok) return NULL;
  group_list_hold(list);
  group_list_drop(binding->groups);
  binding->groups = list;
  return NULL;
}

/* On a pool thread. */
static void finished(struct loop *loop) {
  struct binding *binding = (struct binding *)loop;
  napi_call_threadsafe_function(binding->wake, NULL, napi_tsfn_nonblocking);
}

/*
 * On the event loop: delivers the finished jobs of one queue. Those of other queues are delivered in another
 * callback, so that the microtasks of a callback all belong to one session.
 */
static void deliver(napi_env env, napi_value callback, void *context, void *unused) {
  (void)unused;
  if (!env) return; /* the event loop has ended, and `context` was freed */
  struct binding *binding = context;
  struct shared *shared = binding->shared;
  bool more;
  unsigned count = pool_take(&binding->loop, shared->done, DONE_MAX, &shared->done_queue, &more);
  if (more) napi_call_threadsafe_function(binding->wake, NULL, napi_tsfn_nonblocking);
  if (count == 0) return;
  napi_value receiver, argument = number_of(env, count);
  binding->outstanding -= count;
  napi_get_undefined(env, &receiver);
  napi_call_function(env, receiver, callback, 1, &argument, NULL);
  if (binding->outstanding == 0) napi_unref_threadsafe_function(env, binding->wake);
}

/* The environment ends. */
static void leave(void *context) {
  struct binding *binding = context;
  handoff_leave(&binding->loop);
  pool_leave(&binding->loop);
  napi_delete_reference(binding->env, binding->block);
}

static void discard(napi_env env, void *binding, void *unused) {
  (void)env;
  (void)unused;
  group_list_drop(((struct binding *)binding)->groups);
  free(binding);
}

void set_function(napi_env env, napi_value object, const char *name, napi_callback function, void *data) {
  napi_value value;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, function, data, &value);
  napi_set_named_property(env, object, name, value);
}

/*
 * attach(block, finished): { run, submit, handOff, withdraw, useGroups } for this control block, or undefined.
 * `finished` is called with the count of finished jobs. Cleanup hooks run last in, first out, so `leave` runs before
 * Node closes `wake`.
 */
static napi_value attach(napi_env env, napi_callback_info info) {
  napi_value arguments[2], name, result;
  size_t count = 2, bytes = 0;
  void *block = NULL;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  if (napi_get_arraybuffer_info(env, arguments[0], &block, &bytes) != napi_ok) return NULL;
  struct binding *binding = bytes < sizeof(struct shared) ? NULL : calloc(1, sizeof *binding);
  if (!binding) return NULL;
  binding->shared = block;
  binding->env = env;
  binding->loop.finished = finished;
  napi_create_string_utf8(env, "ninepd pool", NAPI_AUTO_LENGTH, &name);
  napi_status status = napi_create_threadsafe_function(env, arguments[1], NULL, name, 0, 1, binding, discard, binding,
                                                       deliver, &binding->wake);
  if (status != napi_ok) {
    free(binding);
    return NULL;
  }
  napi_unref_threadsafe_function(env, binding->wake);
  napi_create_reference(env, arguments[0], 1, &binding->block);
  napi_add_env_cleanup_hook(env, leave, binding);
  napi_create_object(env, &result);
  set_function(env, result, "run", run, binding);
  set_function(env, result, "submit", submit, binding);
  set_function(env, result, "handOff", run_by_helper, binding);
  set_function(env, result, "withdraw", withdraw, binding);
  set_function(env, result, "useGroups", use_groups, binding);
  return result;
}

/* setPoolBounds(threads, running) */
static napi_value set_pool_bounds(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  uint32_t threads = 0, running = 0;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  if (count < 2 || napi_get_value_uint32(env, arguments[0], &threads) != napi_ok) return NULL;
  if (napi_get_value_uint32(env, arguments[1], &running) == napi_ok) pool_set_bounds(threads, running);
  return NULL;
}

/* src/host/control-block.ts writes these as consecutive words. */
_Static_assert(offsetof(struct creds, gid) == offsetof(struct creds, uid) + 4, "uid, gid");
_Static_assert(offsetof(struct creds, group_count) == offsetof(struct creds, uid) + 8, "gid, group count");

static const struct constant layout[] = {
    {"shim", offsetof(struct shared, control.shim)},
    {"slot", offsetof(struct shared, control.slot)},
    {"pool", offsetof(struct shared, control.pool)},
    {"queue", offsetof(struct shared, control.queue)},
    {"trustUs", offsetof(struct shared, control.trust_us)},
    {"textBytes", offsetof(struct shared, control.text_bytes)},
    {"wide", offsetof(struct shared, control.wide)},
    {"number", offsetof(struct shared, control.number)},
    {"server", offsetof(struct shared, control.creds.server)},
    {"fileCaps", offsetof(struct shared, control.creds.file_caps)},
    {"ranges", offsetof(struct shared, control.creds.ranges)},
    {"rangesMax", RANGES_MAX},
    {"uid", offsetof(struct shared, control.creds.uid)},
    {"groups", offsetof(struct shared, control.creds.groups)},
    {"groupsMax", GROUPS_MAX},
    {"texts", offsetof(struct shared, control.texts)},
    {"textsBytesMax", TEXT_BYTES_MAX},
    {"poolUnkillable", POOL_UNKILLABLE},
    {"blockedMs", offsetof(struct shared, blocked_ms)},
    {"doneQueue", offsetof(struct shared, done_queue)},
    {"done", offsetof(struct shared, done)},
    {"doneWords", sizeof(struct done) / sizeof(uint32_t)},
    {"handOffBytesMax", HANDOFF_BYTES_MAX},
    {"late", (uint32_t)HANDOFF_LATE},
    {"bytes", sizeof(struct shared)},
};

static void set_numbers(napi_env env, napi_value exports, const char *name, const struct constant *from, int count) {
  napi_value object, value;
  napi_create_object(env, &object);
  for (int i = 0; i < count; i++) {
    napi_create_uint32(env, from[i].value, &value);
    napi_set_named_property(env, object, from[i].name, value);
  }
  napi_set_named_property(env, exports, name, object);
}

NAPI_MODULE_INIT() {
  napi_value names, name;
  open_proc_fds();
  napi_create_array_with_length(env, (size_t)shim_count, &names);
  for (int i = 0; i < shim_count; i++) {
    napi_create_string_utf8(env, shims[i].name, NAPI_AUTO_LENGTH, &name);
    napi_set_element(env, names, (uint32_t)i, name);
  }
  napi_set_named_property(env, exports, "shims", names);
  set_numbers(env, exports, "constants", constants, constant_count);
  set_numbers(env, exports, "layout", layout, sizeof layout / sizeof *layout);
  set_function(env, exports, "attach", attach, NULL);
  set_function(env, exports, "groupList", group_list, NULL);
  set_function(env, exports, "setPoolBounds", set_pool_bounds, NULL);
  set_function(env, exports, "watch", watch_open, NULL);
  return exports;
}
