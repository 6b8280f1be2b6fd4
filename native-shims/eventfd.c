/* eventfd(2): the kicks and calls of a virtqueue. */
#include "syscalls.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

int64_t sys_eventfd(const struct call *c) {
  (void)c;
  return RESULT(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

/*
 * Adds one to an eventfd. -EAGAIN where that would have to wait: whoever passed the descriptor may have filled it and cleared
 * O_NONBLOCK, which belongs to the open file of both.
 */
int64_t sys_signal(const struct call *c) {
  uint64_t one = 1;
  struct pollfd room = {.fd = c->number[0], .events = POLLOUT};
  if (poll(&room, 1, 0) != 1 || !(room.revents & POLLOUT)) return -EAGAIN;
  return RESULT(write(c->number[0], &one, sizeof one));
}
