// Sends and receives: one send(2) and one recv(2) for as many messages as possible.
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum { in_bytes = 2 << 20, batch_max = 64 };

static int dial_unix(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  need(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
  return fd;
}

static int dial(const char *address) {
  if (strncmp(address, "unix://", 7) == 0) return dial_unix(address + 7);
  const char *port = strrchr(address, ':');
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port + 1))};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  need(connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  return fd;
}

void open_connection(Connection *connection) {
  *connection = (Connection){.fd = dial(options.address)};
  connection->slots = calloc((size_t)options.depth, sizeof(Slot));
  connection->waiting = calloc((size_t)options.depth, sizeof(Slot *));
  connection->in = malloc(in_bytes);
  converse(connection);
  need(fcntl(connection->fd, F_SETFL, O_NONBLOCK) == 0, "fcntl");
}

void enqueue(Connection *connection, Slot *slot) {
  write_step(slot);
  int last = (connection->first + connection->waiting_count++) % options.depth;
  connection->waiting[last] = slot;
}

static Slot *waiting_at(const Connection *connection, int index) {
  return connection->waiting[(connection->first + index) % options.depth];
}

// Heads are copied into one buffer, data is sent in place.
static int gather(const Connection *connection, struct iovec *pieces, uint8_t *heads) {
  int count = 0;
  uint8_t *at = heads;
  bool extend = false;
  for (int i = 0; i < connection->waiting_count && i < batch_max; i++) {
    const Slot *slot = waiting_at(connection, i);
    memcpy(at, slot->head, slot->head_used);
    if (extend) pieces[count - 1].iov_len += slot->head_used;
    else pieces[count++] = (struct iovec){at, slot->head_used};
    at += slot->head_used;
    extend = data_beside(slot) == 0;
    if (!extend) pieces[count++] = (struct iovec){payload, data_beside(slot)};
  }
  return count;
}

static void leave_out(struct iovec *pieces, size_t bytes) {
  for (; bytes > 0; pieces++) {
    size_t less = bytes < pieces->iov_len ? bytes : pieces->iov_len;
    pieces->iov_base = (uint8_t *)pieces->iov_base + less;
    pieces->iov_len -= less;
    bytes -= less;
  }
}

bool flush(Connection *connection, uint64_t at) {
  while (connection->waiting_count > 0) {
    struct iovec pieces[2 * batch_max];
    uint8_t heads[batch_max * head_bytes_max];
    int count = gather(connection, pieces, heads);
    leave_out(pieces, connection->first_sent);
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    ssize_t sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return false;
    need(sent >= 0, "send");
    size_t whole = connection->first_sent + (size_t)sent;
    while (connection->waiting_count > 0) {
      Slot *slot = waiting_at(connection, 0);
      size_t bytes = slot->head_used + data_beside(slot);
      if (whole < bytes) break;
      whole -= bytes;
      slot->sent = at;
      connection->first = (connection->first + 1) % options.depth;
      connection->waiting_count--;
    }
    connection->first_sent = whole;
  }
  return true;
}

static void take_frame(Connection *connection, const uint8_t *frame, uint64_t at) {
  uint16_t tag = get16(frame + 5);
  if (tag >= options.depth) fail("a reply to nothing: tag", tag);
  Slot *slot = &connection->slots[tag];
  if (tally.counting) record(at - slot->sent);
  if (take_reply(slot, frame)) enqueue(connection, slot);
  else tally.running--;
}

// Bytes of a frame that are needed to parse it: without the data of Rread.
static size_t looked_at(const uint8_t *frame) {
  return frame[4] == Tread + 1 ? data_head_bytes : get32(frame);
}

void receive(Connection *connection) {
  ssize_t got = recv(connection->fd, connection->in + connection->have, in_bytes - connection->have, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) fail("the server closed the connection: errno", got < 0 ? errno : 0);
  connection->have += (size_t)got;
  uint64_t at = now();
  size_t used = 0;
  for (;;) {
    size_t left = connection->have - used;
    size_t skipped = connection->skip < left ? (size_t)connection->skip : left;
    connection->skip -= skipped;
    used += skipped;
    left -= skipped;
    const uint8_t *frame = connection->in + used;
    if (left < head_bytes || left < looked_at(frame)) break;
    used += looked_at(frame);
    connection->skip = get32(frame) - looked_at(frame);
    take_frame(connection, frame, at);
  }
  connection->have -= used;
  if (connection->have > 0) memmove(connection->in, connection->in + used, connection->have);
}

// A request and its reply before the measurement; the reply is in `in`.
void call(Connection *connection, Slot *slot, uint8_t type) {
  need(send(connection->fd, slot->head, slot->head_used, MSG_NOSIGNAL) == (ssize_t)slot->head_used, "send");
  size_t have = 0;
  while (have < head_bytes || have < get32(connection->in)) {
    ssize_t got = recv(connection->fd, connection->in + have, in_bytes - have, 0);
    if (got <= 0) fail("the server closed the connection while it was prepared: type", type);
    have += (size_t)got;
  }
  if (connection->in[4] == Rlerror) fail("preparing failed with errno", get32(connection->in + head_bytes));
  if (connection->in[4] != type + 1) fail("preparing had a wrong reply: type", connection->in[4]);
}
