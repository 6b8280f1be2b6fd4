/*
 * Readiness of descriptors as callbacks in JavaScript. All descriptors of an event loop are in one epoll instance,
 * which libuv polls. node-api-headers lacks libuv's header, so its functions are declared here; their ABI is stable
 * in libuv 1.
 */
#define NAPI_VERSION 8
#include "epoll.h"
#include "shared.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { UV_POLL = 8, UV_READABLE = 1 };

extern size_t uv_handle_size(int type);
extern int uv_poll_init(struct uv_loop_s *loop, void *handle, int fd);
extern int uv_poll_start(void *handle, int events, void (*callback)(void *handle, int status, int events));
extern int uv_poll_stop(void *handle);
extern void uv_close(void *handle, void (*callback)(void *handle));
extern void uv_ref(void *handle);
extern void uv_unref(void *handle);
extern void *uv_handle_get_data(const void *handle);
extern void uv_handle_set_data(void *handle, void *data);

struct watch {
  napi_env env;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
  napi_ref callback, block;
  uint32_t *ready; /* EPOLL_READY_MAX words in `block` */
  void *handle;
  int epoll, watched;
};

/* An exception of the callback is handled as an uncaught one. */
static void call_back(struct watch *watch, napi_value callback, int count) {
  napi_env env = watch->env;
  napi_value receiver, argument, error;
  napi_create_int32(env, count, &argument);
  napi_get_global(env, &receiver);
  if (napi_make_callback(env, watch->context, receiver, callback, 1, &argument, NULL) != napi_pending_exception) return;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
}

static void on_ready(void *handle, int status, int unused) {
  (void)unused;
  struct watch *watch = uv_handle_get_data(handle);
  struct epoll_event events[EPOLL_READY_MAX];
  napi_handle_scope scope;
  napi_value callback;
  int count = status < 0 ? 0 : epoll_wait(watch->epoll, events, EPOLL_READY_MAX, 0);
  if (count <= 0 || napi_open_handle_scope(watch->env, &scope) != napi_ok) return;
  for (int i = 0; i < count; i++) watch->ready[i] = events[i].data.u32;
  if (napi_get_reference_value(watch->env, watch->callback, &callback) == napi_ok) call_back(watch, callback, count);
  napi_close_handle_scope(watch->env, scope);
}

static napi_value result_of(napi_env env, int result) {
  napi_value number = NULL;
  napi_create_int32(env, result < 0 ? -errno : result, &number);
  return number;
}

static int32_t int_of(napi_env env, napi_value value) {
  int32_t number = -1;
  napi_get_value_int32(env, value, &number);
  return number;
}

/*
 * add(fd, id, edge): reports the id while the descriptor is readable or hung up; with `edge`, each time it becomes so
 * (EPOLLET).
 */
static napi_value add(napi_env env, napi_callback_info info) {
  struct watch *watch;
  napi_value arguments[3];
  size_t count = 3;
  bool edge = false;
  napi_get_cb_info(env, info, &count, arguments, NULL, (void **)&watch);
  napi_get_value_bool(env, arguments[2], &edge);
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (edge ? EPOLLET : 0)};
  event.data.u32 = (uint32_t)int_of(env, arguments[1]);
  int done = epoll_ctl(watch->epoll, EPOLL_CTL_ADD, int_of(env, arguments[0]), &event);
  if (done == 0 && watch->watched++ == 0) uv_ref(watch->handle);
  return result_of(env, done);
}

/* remove(fd), before close(2): epoll(7) reports an open file as long as any process has a descriptor of it. */
static napi_value remove_fd(napi_env env, napi_callback_info info) {
  struct watch *watch;
  napi_value fd;
  size_t count = 1;
  napi_get_cb_info(env, info, &count, &fd, NULL, (void **)&watch);
  int done = epoll_ctl(watch->epoll, EPOLL_CTL_DEL, int_of(env, fd), NULL);
  if (done == 0 && --watch->watched == 0) uv_unref(watch->handle);
  return result_of(env, done);
}

static void closed(void *handle) {
  struct watch *watch = uv_handle_get_data(handle);
  close(watch->epoll);
  free(handle);
  if (watch->cleanup) napi_remove_async_cleanup_hook(watch->cleanup);
  free(watch);
}

static void leave(napi_async_cleanup_hook_handle unused, void *context) {
  (void)unused;
  struct watch *watch = context;
  napi_delete_reference(watch->env, watch->callback);
  napi_delete_reference(watch->env, watch->block);
  napi_async_destroy(watch->env, watch->context);
  uv_poll_stop(watch->handle);
  uv_close(watch->handle, closed);
}

/* Creates the epoll instance and libuv's handle, which does not keep the loop alive. */
static bool start(struct watch *watch) {
  struct uv_loop_s *loop;
  watch->epoll = epoll_create1(EPOLL_CLOEXEC);
  watch->handle = malloc(uv_handle_size(UV_POLL));
  if (watch->epoll >= 0 && watch->handle && napi_get_uv_event_loop(watch->env, &loop) == napi_ok &&
      uv_poll_init(loop, watch->handle, watch->epoll) == 0) {
    uv_handle_set_data(watch->handle, watch);
    uv_poll_start(watch->handle, UV_READABLE, on_ready);
    uv_unref(watch->handle);
    return true;
  }
  if (watch->epoll >= 0) close(watch->epoll);
  free(watch->handle);
  return false;
}

/* watch(block, callback): { add, remove }, or undefined. The callback gets the count of ids in the block. */
napi_value watch_open(napi_env env, napi_callback_info info) {
  napi_value arguments[2], name, result;
  size_t count = 2, bytes = 0;
  void *block = NULL;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  if (napi_get_arraybuffer_info(env, arguments[0], &block, &bytes) != napi_ok) return NULL;
  struct watch *watch = bytes < EPOLL_READY_MAX * sizeof(uint32_t) ? NULL : calloc(1, sizeof *watch);
  if (!watch) return NULL;
  watch->env = env;
  watch->ready = block;
  if (!start(watch)) {
    free(watch);
    return NULL;
  }
  napi_create_string_utf8(env, "ninepd watch", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, NULL, name, &watch->context);
  napi_create_reference(env, arguments[0], 1, &watch->block);
  napi_create_reference(env, arguments[1], 1, &watch->callback);
  napi_add_async_cleanup_hook(env, leave, watch, &watch->cleanup);
  napi_create_object(env, &result);
  set_function(env, result, "add", add, watch);
  set_function(env, result, "remove", remove_fd, watch);
  return result;
}
