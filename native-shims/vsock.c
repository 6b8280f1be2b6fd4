/* AF_VSOCK sockets, which Node and libuv lack: vsock(7). Numbers: context id, port; 0xffffffff means any for both. */
#include "syscalls.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

typedef int address_of(int fd, struct sockaddr *address, socklen_t *bytes);

/* Writes the context id and the port into the segment; -EAFNOSUPPORT for a socket of another family. */
static int64_t put_address(const struct call *c, address_of *ask) {
  struct sockaddr_vm address = {0};
  socklen_t bytes = sizeof address;
  int64_t done = RESULT(ask(c->number[0], (struct sockaddr *)&address, &bytes));
  if (done < 0) return done;
  if (address.svm_family != AF_VSOCK) return -EAFNOSUPPORT;
  uint32_t words[] = {address.svm_cid, address.svm_port};
  if (c->segment->iov_len < sizeof words) return -EINVAL;
  memcpy(c->segment->iov_base, words, sizeof words);
  return 0;
}

/* A bound stream socket, close-on-exec and non-blocking. libuv calls listen(2). */
int64_t sys_vsock_bind(const struct call *c) {
  struct sockaddr_vm address = {
      .svm_family = AF_VSOCK, .svm_cid = (uint32_t)c->number[0], .svm_port = (uint32_t)c->number[1]};
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  int64_t done = RESULT(bind(fd, (struct sockaddr *)&address, sizeof address));
  if (done == 0) return fd;
  close(fd);
  return done;
}

/* getsockname(2). */
int64_t sys_vsock_name(const struct call *c) {
  return put_address(c, getsockname);
}

/* getpeername(2). */
int64_t sys_vsock_peer(const struct call *c) {
  return put_address(c, getpeername);
}
