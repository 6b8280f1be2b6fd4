/* Messages with descriptors (SCM_RIGHTS of unix(7)). */
#include "syscalls.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control_message {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
};

/* Returns 1 if there was room for the descriptor. It is made non-blocking, so that a peer's descriptor cannot block a write. */
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
 * recvmsg(2) into the first segment, without blocking. The second gets the count of descriptors and the descriptors,
 * a word each; those without room are closed. -EPROTO if the kernel has truncated them (MSG_CTRUNC); all are closed
 * then. Without a second segment recv(2), which receives bytes only and needs no recvmsg(2) of the seccomp filter.
 */
int64_t sys_receive_message(const struct call *c) {
  union control_message control;
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
  bool truncated = got >= 0 && message.msg_flags & MSG_CTRUNC;
  if (truncated) room = 0;
  for (struct cmsghdr *part = got < 0 ? NULL : CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; at + CMSG_LEN(sizeof(int)) <= part->cmsg_len; at += sizeof(int)) {
      int fd;
      memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
      count += (uint32_t)take_fd(fd, into + 4 + 4 * count, room - 4 * count);
    }
  }
  put32(into, count);
  return truncated ? -EPROTO : got;
}

/* sendmsg(2) of the first segment with the descriptors in the second, without blocking. Bytes sent, which may be fewer. */
int64_t sys_send_message(const struct call *c) {
  union control_message control = {0};
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
