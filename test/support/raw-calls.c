/*
 * An addon with which a program makes any system call: `call(number, ...arguments)`, each argument a number or a typed array, which
 * stands for its address. Returns what the kernel does: −errno when it fails. `address(array)` is an address to write into memory.
 */
#include <node_api.h>
#include <stdint.h>

#if defined(__x86_64__)
static long raw(long n, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}
#else
static long raw(long n, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = n;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}
#endif

static long value_of(napi_env env, napi_value value) {
  int64_t number = 0;
  void *data = NULL;
  if (napi_get_typedarray_info(env, value, NULL, NULL, &data, NULL, NULL) == napi_ok) return (long)(intptr_t)data;
  napi_get_value_int64(env, value, &number);
  return number;
}

static napi_value call(napi_env env, napi_callback_info info) {
  napi_value arguments[7], result;
  size_t count = 7;
  long values[7] = {0};
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  for (size_t i = 0; i < count; i++) values[i] = value_of(env, arguments[i]);
  long done = raw(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
  napi_create_int64(env, done, &result);
  return result;
}

static napi_value address(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  size_t count = 1;
  napi_get_cb_info(env, info, &count, &argument, NULL, NULL);
  napi_create_bigint_int64(env, value_of(env, argument), &result);
  return result;
}

NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "call", NAPI_AUTO_LENGTH, call, NULL, &function);
  napi_set_named_property(env, exports, "call", function);
  napi_create_function(env, "address", NAPI_AUTO_LENGTH, address, NULL, &function);
  napi_set_named_property(env, exports, "address", function);
  return exports;
}
