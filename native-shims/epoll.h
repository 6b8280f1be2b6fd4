#ifndef EPOLL_H
#define EPOLL_H

#include <node_api.h>

/* addon.c */
void set_function(napi_env env, napi_value object, const char *name, napi_callback function, void *data);

napi_value watch_open(napi_env env, napi_callback_info info);

#endif
