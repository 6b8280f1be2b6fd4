/* What every test program shares: a statement that must hold, or the program ends telling which did not. */
#ifndef CHECK_H
#define CHECK_H
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char *format, ...) {
  int error = errno;
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, " (errno %d: %s)\n", error, strerror(error));
  exit(1);
}

/* The call succeeds. */
#define CHECK(call)                                                                                                    \
  do {                                                                                                                 \
    errno = 0;                                                                                                         \
    if ((call) < 0) fail("line %d: %s failed", __LINE__, #call);                                                       \
  } while (0)

/* The statement is true. */
#define CHECK_TRUE(statement)                                                                                          \
  do {                                                                                                                 \
    errno = 0;                                                                                                         \
    if (!(statement)) fail("line %d: not so: %s", __LINE__, #statement);                                               \
  } while (0)

/* The call fails with this errno. */
#define CHECK_ERRNO(call, error)                                                                                       \
  do {                                                                                                                 \
    errno = 0;                                                                                                         \
    if ((call) >= 0 || errno != (error)) fail("line %d: %s did not fail with %s", __LINE__, #call, #error);            \
  } while (0)
#endif
