/* What vhost-user asks of the host: messages that carry descriptors, and eventfds. */
#include "syscalls.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE_FDS_MAX = 16 };

union descriptors {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
};

/* A descriptor from a stranger is made non-blocking, so that writing to it cannot make this process wait. */
static int take_fd(int fd, uint8_t *into, size_t room) {
  if (room < 4) {
    close(fd);
    return 0;
  }
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  put32(into, (uint32_t)fd);
  return 1;
}

/*
 * Up to as many bytes as the first segment has room for. The second takes the count of descriptors that came with them
 * and the descriptors, a word each; those it has no room for are closed. -EPROTO when the kernel had to cut them off. Without a
 * second segment nothing but bytes is received: recv(2), for which the filter of seccomp.c needs no recvmsg(2).
 */
int64_t sys_receive_message(const struct call *c) {
  union descriptors control;
  if (c->segment_count == 1) return RESULT(recv(c->number[0], c->segment->iov_base, c->segment->iov_len, MSG_DONTWAIT));
  if (c->segment_count != 2 || c->segment[1].iov_len < 4) return -EINVAL;
  struct msghdr message = {
      .msg_iov = (struct iovec *)c->segment,
      .msg_iovlen = 1,
      .msg_control = &control,
      .msg_controllen = sizeof control,
  };
  uint8_t *into = c->segment[1].iov_base;
  size_t room = c->segment[1].iov_len - 4;
  uint32_t count = 0;
  int64_t got = RESULT(recvmsg(c->number[0], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  bool cut = got >= 0 && message.msg_flags & MSG_CTRUNC;
  if (cut) room = 0;
  for (struct cmsghdr *part = got < 0 ? NULL : CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; at + CMSG_LEN(sizeof(int)) <= part->cmsg_len; at += sizeof(int)) {
      int fd;
      memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
      count += (uint32_t)take_fd(fd, into + 4 + 4 * count, room - 4 * count);
    }
  }
  put32(into, count);
  return cut ? -EPROTO : got;
}

/* All of the first segment or a part of it, with the descriptors that the second holds. */
int64_t sys_send_message(const struct call *c) {
  union descriptors control = {0};
  struct msghdr message = {.msg_iov = (struct iovec *)c->segment, .msg_iovlen = 1};
  size_t bytes = c->segment_count < 2 ? 0 : c->segment[1].iov_len;
  if (bytes > MESSAGE_FDS_MAX * sizeof(int)) return -EINVAL;
  if (bytes > 0) {
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(bytes);
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(part), c->segment[1].iov_base, bytes);
  }
  return RESULT(sendmsg(c->number[0], &message, MSG_DONTWAIT | MSG_NOSIGNAL));
}

int64_t sys_duplicate(const struct call *c) { return RESULT(fcntl(c->number[0], F_DUPFD_CLOEXEC, 3)); }

int64_t sys_eventfd(const struct call *c) {
  (void)c;
  return RESULT(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

/* Adds one to an eventfd. */
int64_t sys_signal(const struct call *c) {
  uint64_t one = 1;
  return RESULT(write(c->number[0], &one, sizeof one));
}
