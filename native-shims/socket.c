/* Properties of sockets that Node does not report, and kinds of socket that it does not have. */
#include "syscalls.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* 1 for a listening stream socket, 0 for any other stream socket: SO_ACCEPTCONN and SO_TYPE of socket(7). */
int64_t sys_is_listening(const struct call *c) {
  int listening = 0, type = 0;
  socklen_t bytes = sizeof type;
  int64_t done = RESULT(getsockopt(c->number[0], SOL_SOCKET, SO_TYPE, &type, &bytes));
  if (done < 0) return done;
  if (type != SOCK_STREAM) return -EPROTOTYPE;
  bytes = sizeof listening;
  done = RESULT(getsockopt(c->number[0], SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes));
  return done < 0 ? done : listening != 0;
}

/* SO_PASSRIGHTS = 0 of socket(7), Linux 6.16. Sockets accepted from this one inherit it (unix_stream_connect). */
int64_t sys_refuse_descriptors(const struct call *c) {
  enum { PASS_RIGHTS = 83 };
  int off = 0;
  return RESULT(setsockopt(c->number[0], SOL_SOCKET, PASS_RIGHTS, &off, sizeof off));
}

/* A datagram socket connected to the Unix socket named by the text; @ begins an abstract name. */
int64_t sys_datagram_to(const struct call *c) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  size_t length = c->text_bytes[0];
  if (length == 0 || length >= sizeof to.sun_path) return -EINVAL;
  memcpy(to.sun_path, c->text[0], length);
  if (to.sun_path[0] == '@') to.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  int64_t done = RESULT(connect(fd, (struct sockaddr *)&to, bytes));
  if (done == 0) return fd;
  close(fd);
  return done;
}

/* A pair of SOCK_SEQPACKET sockets, written as two words. */
int64_t sys_socket_pair(const struct call *c) {
  int ends[2];
  if (c->segment->iov_len < sizeof ends) return -EINVAL;
  int64_t done = RESULT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends));
  if (done == 0) memcpy(c->segment->iov_base, ends, sizeof ends);
  return done;
}
