/* eventfd(2): the kicks and calls of a virtqueue. */
#include "syscalls.h"

#include <sys/eventfd.h>
#include <unistd.h>

int64_t sys_eventfd(const struct call *c) {
  (void)c;
  return RESULT(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

/* Adds one to an eventfd. */
int64_t sys_signal(const struct call *c) {
  uint64_t one = 1;
  return RESULT(write(c->number[0], &one, sizeof one));
}
