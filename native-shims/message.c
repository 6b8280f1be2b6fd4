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

/* A peer's descriptor is made non-blocking, so that writing to it cannot block. */
static void take_fd(int fd, uint8_t *into) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  put32(into, (uint32_t)fd);
}

/*
 * recvmsg(2) into the first segment, without blocking. The second gets the count of descriptors and the descriptors,
 * a word each. -EPROTO, with those that were received, if the kernel has truncated them (MSG_CTRUNC). None is closed here:
 * close(2) of a peer's file may never return (FUSE_FLUSH). Without a second segment recv(2), which receives bytes only and
 * needs no recvmsg(2) of the seccomp filter.
 */
int64_t sys_receive_message(const struct call *c) {
  union control_message control;
  if (c->segment_count == 1) return RESULT(recv(c->number[0], c->segment->iov_base, c->segment->iov_len, MSG_DONTWAIT));
  if (c->segment_count != 2 || c->segment[1].iov_len < 4 + 4 * MESSAGE_FDS_MAX) return -EINVAL;
  struct msghdr message = {
      .msg_iov = (struct iovec *)c->segment,
      .msg_iovlen = 1,
      .msg_control = &control,
      .msg_controllen = sizeof control,
  };
  uint8_t *into = c->segment[1].iov_base;
  uint32_t count = 0;
  int64_t got = RESULT(recvmsg(c->number[0], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  bool truncated = got >= 0 && message.msg_flags & MSG_CTRUNC;
  for (struct cmsghdr *part = got < 0 ? NULL : CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; at + CMSG_LEN(sizeof(int)) <= part->cmsg_len; at += sizeof(int)) {
      int fd;
      memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
      take_fd(fd, into + 4 + 4 * count++);
    }
  }
  put32(into, count);
  return truncated ? -EPROTO : got;
}

/*
 * The kind of a peer's descriptor, by calls that ask no file system: fstat(2), poll(2), a page fault and close(2) ask a FUSE daemon,
 * which may never answer. 1: memory (a file of tmpfs or hugetlbfs; only these have seals); 2: an eventfd, or a pipe, which Linux's
 * virtio_uml uses for calls; 3: a socket; 0: anything else. d_path() begins every file's name with a slash, so no file has a name
 * of these kinds, a FIFO of a file system included.
 */
int64_t sys_kind_of_descriptor(const struct call *c) {
  enum { OTHER, MEMORY, EVENT, SOCKET, GET_SEALS = 1034 };
  char text[32] = {0};
  struct proc_path path = proc_path(c->number[0]);
  int from = proc_fds();
  if (fcntl(c->number[0], GET_SEALS) >= 0) return MEMORY;
  if (readlinkat(from, name_from(from, &path), text, sizeof text - 1) < 0) return OTHER;
  if (strcmp(text, "anon_inode:[eventfd]") == 0 || strncmp(text, "pipe:[", 6) == 0) return EVENT;
  return strncmp(text, "socket:[", 8) == 0 ? SOCKET : OTHER;
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
