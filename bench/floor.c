// The floor: the least that a server can do for the messages of the benchmark. One thread, one buffer in and one out, one
// poll, recv and send for a batch, and for each message the system calls that it cannot do without. It trusts its client: it
// checks no name, no length and no right, knows no users, and forgets nothing but what is clunked. Never serve with it.
//   floor DIR    listens on a port of 127.0.0.1, which it prints
#define _GNU_SOURCE
#include "wire.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { clients_max = 256, fids_max = 65536, msize_max = 1 << 20 };
// Sent before the batch is complete, so that the client can work in parallel.
enum { send_at = 1 << 16, out_bytes = send_at + msize_max + 64 };

typedef struct {
  int path;     // O_PATH descriptor, 0 when the fid is free
  int file;     // open descriptor, 0 when it is not open
  int64_t seek; // where a directory's descriptor stands, as the last entry's offset
  int made_in;  // of a file that this fid made: its directory, and its name
  char *made;
} Fid;

typedef struct {
  Fid *fids;
  uint8_t *in;
  size_t have;
  uint32_t msize;
} Client;

static const char *root;
static uint8_t out[out_bytes];
static size_t out_used;

static void send_all(int to) {
  for (size_t at = 0; at < out_used;) {
    ssize_t sent = send(to, out + at, out_used - at, MSG_NOSIGNAL);
    if (sent <= 0) break; // the next recv says that the client is gone
    at += (size_t)sent;
  }
  out_used = 0;
}

static uint8_t *put_qid(uint8_t *at, const struct statx *st) {
  at = put8(at, S_ISDIR(st->stx_mode) ? 0x80 : S_ISLNK(st->stx_mode) ? 0x02 : 0);
  return put64(put32(at, (uint32_t)st->stx_mtime.tv_nsec), st->stx_ino);
}

static uint8_t *put_time(uint8_t *at, struct statx_timestamp time) {
  return put64(put64(at, (uint64_t)time.tv_sec), time.tv_nsec);
}

static int look(int fd, struct statx *st) {
  return statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, st);
}

static uint8_t *put_attr(uint8_t *at, const struct statx *st) {
  at = put_qid(put64(at, 0x7ff), st);
  at = put32(put32(put32(at, st->stx_mode), st->stx_uid), st->stx_gid);
  at = put64(put64(put64(at, st->stx_nlink), 0), st->stx_size);
  at = put64(put64(at, st->stx_blksize), st->stx_blocks);
  at = put_time(put_time(put_time(at, st->stx_atime), st->stx_mtime), st->stx_ctime);
  memset(at, 0, 32);
  return at + 32;
}

// Creates a fid; NULL with errno on failure.
static uint8_t *walk(Client *client, const uint8_t *body, uint8_t *at) {
  int from = client->fids[get32(body)].path;
  Fid *to = &client->fids[get32(body + 4)];
  uint16_t steps = get16(body + 8);
  body += 10;
  at = put16(at, steps);
  int fd = steps == 0 ? dup(from) : from;
  for (int step = 0; step < steps; step++) {
    char name[256];
    uint16_t length = get16(body);
    memcpy(name, body + 2, length);
    name[length] = 0;
    body += 2 + length;
    int next = openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd != from) close(fd);
    if (next < 0) return NULL;
    fd = next;
    struct statx st;
    if (look(fd, &st) < 0) return NULL;
    at = put_qid(at, &st);
  }
  *to = (Fid){.path = fd};
  return at;
}

static uint8_t *put_open(const Client *client, int fd, uint8_t *at) {
  struct statx st;
  if (fd < 0 || look(fd, &st) < 0) return NULL;
  return put32(put_qid(at, &st), client->msize - io_header_bytes);
}

static uint8_t *lopen(const Client *client, Fid *fid, const uint8_t *body, uint8_t *at) {
  char path[32];
  sprintf(path, "/proc/self/fd/%d", fid->path);
  fid->file = open(path, (int)(get32(body + 4) & O_ACCMODE) | O_CLOEXEC);
  return put_open(client, fid->file, at);
}

static uint8_t *lcreate(const Client *client, Fid *fid, const uint8_t *body, uint8_t *at) {
  uint16_t length = get16(body + 4);
  char *name = strndup((const char *)body + 6, length);
  body += 6 + length;
  int made = openat(fid->path, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, get32(body + 4) & 0777);
  if (made < 0) return NULL;
  *fid = (Fid){.path = made, .file = made, .made_in = fid->path, .made = name};
  return put_open(client, made, at);
}

// getdents64 straight into memory, and from there repacked: qid[13] offset[8] type[1] name[s].
static uint8_t *readdir_at(Fid *fid, const uint8_t *body, uint8_t *at) {
  static uint8_t entries[msize_max];
  int64_t offset = (int64_t)get64(body + 4);
  uint32_t count = get32(body + 12);
  if (fid->seek != offset) lseek(fid->file, offset, SEEK_SET);
  uint8_t *data = at + 4;
  uint8_t *to = data;
  // An entry of the kernel is never smaller on the wire by more than its padding, and larger by 5 bytes at most.
  long bytes = syscall(SYS_getdents64, fid->file, entries, (size_t)count * 3 / 4);
  if (bytes < 0) return NULL;
  fid->seek = bytes == 0 ? -1 : offset;
  for (long next = 0; next < bytes;) {
    const struct dirent64 *entry = (const struct dirent64 *)(entries + next);
    to = put64(put32(put8(to, entry->d_type == DT_DIR ? 0x80 : 0), 0), entry->d_ino);
    to = put_str(put8(put64(to, (uint64_t)entry->d_off), entry->d_type), entry->d_name);
    fid->seek = entry->d_off;
    next += entry->d_reclen;
  }
  put32(at, (uint32_t)(to - data));
  return to;
}

static uint8_t *read_at(const Fid *fid, const uint8_t *body, uint8_t *at) {
  ssize_t got = pread(fid->file, at + 4, get32(body + 12), (off_t)get64(body + 4));
  return got < 0 ? NULL : put32(at, (uint32_t)got) + got;
}

static uint8_t *write_at(const Fid *fid, const uint8_t *body, uint8_t *at) {
  ssize_t put = pwrite(fid->file, body + 16, get32(body + 12), (off_t)get64(body + 4));
  return put < 0 ? NULL : put32(at, (uint32_t)put);
}

static uint8_t *version(Client *client, const uint8_t *body, uint8_t *at) {
  uint32_t wanted = get32(body);
  client->msize = wanted < msize_max ? wanted : msize_max;
  return put_str(put32(at, client->msize), "9P2000.L");
}

static uint8_t *attach(const Client *client, const uint8_t *body, uint8_t *at) {
  Fid *fid = &client->fids[get32(body)];
  fid->path = open(root, O_PATH | O_CLOEXEC);
  struct statx st;
  return look(fid->path, &st) < 0 ? NULL : put_qid(at, &st);
}

static uint8_t *clunk(Fid *fid, uint8_t *at) {
  close(fid->path);
  if (fid->file && fid->file != fid->path) close(fid->file);
  if (fid->made) close(fid->made_in);
  free(fid->made);
  *fid = (Fid){0};
  return at;
}

static uint8_t *remove_made(Fid *fid, uint8_t *at) {
  int failed = unlinkat(fid->made_in, fid->made, 0);
  clunk(fid, at);
  return failed ? NULL : at;
}

// Writes the reply's fields at `at`; NULL with errno on failure.
static uint8_t *answer(Client *client, uint8_t type, const uint8_t *body, uint8_t *at) {
  Fid *fid = &client->fids[get32(body) % fids_max];
  struct statx st;
  switch (type) {
    case Tgetattr: return look(fid->path, &st) < 0 ? NULL : put_attr(at, &st);
    case Twalk: return walk(client, body, at);
    case Tclunk: return clunk(fid, at);
    case Tread: return read_at(fid, body, at);
    case Twrite: return write_at(fid, body, at);
    case Tlopen: return lopen(client, fid, body, at);
    case Treaddir: return readdir_at(fid, body, at);
    case Tlcreate: return lcreate(client, fid, body, at);
    case Tremove: return remove_made(fid, at);
    case Tversion: return version(client, body, at);
    case Tattach: return attach(client, body, at);
    default: errno = EOPNOTSUPP; return NULL;
  }
}

static void serve(Client *client, int socket, const uint8_t *frame) {
  uint8_t *reply = out + out_used;
  uint8_t type = frame[4];
  uint16_t tag = get16(frame + 5);
  uint8_t *end = answer(client, type, frame + head_bytes, begin(reply, (uint8_t)(type + 1), tag));
  if (!end) end = put32(begin(reply, Rlerror, tag), (uint32_t)errno);
  out_used += finish(reply, end, 0);
  if (out_used >= send_at) send_all(socket);
}

// False if the client has disconnected.
static int receive(Client *client, int socket) {
  ssize_t got = recv(socket, client->in + client->have, 2 * msize_max - client->have, 0);
  if (got <= 0) return 0;
  client->have += (size_t)got;
  size_t at = 0;
  while (client->have - at >= head_bytes && client->have - at >= get32(client->in + at)) {
    serve(client, socket, client->in + at);
    at += get32(client->in + at);
  }
  send_all(socket);
  client->have -= at;
  if (at > 0) memmove(client->in, client->in + at, client->have);
  return 1;
}

static void forget(Client *client) {
  for (int fid = 0; fid < fids_max; fid++)
    if (client->fids[fid].path) clunk(&client->fids[fid], NULL);
  free(client->fids);
  free(client->in);
}

static int listen_anywhere(void) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  need(bind(listener, (struct sockaddr *)&address, length) == 0, "bind");
  need(listen(listener, clients_max) == 0, "listen");
  need(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
  printf("listening on tcp://127.0.0.1:%d\n", ntohs(address.sin_port));
  fflush(stdout);
  return listener;
}

int main(int count, char **args) {
  if (count != 2) return 2;
  root = args[1];
  umask(0);
  struct pollfd polled[clients_max] = {{.fd = listen_anywhere(), .events = POLLIN}};
  Client clients[clients_max];
  int used = 1;
  for (;;) {
    need(poll(polled, (nfds_t)used, -1) >= 0, "poll");
    for (int i = used - 1; i > 0; i--) {
      if (!polled[i].revents || receive(&clients[i], polled[i].fd)) continue;
      close(polled[i].fd);
      forget(&clients[i]);
      used--;
      polled[i] = polled[used];
      clients[i] = clients[used];
    }
    if (!(polled[0].revents & POLLIN) || used == clients_max) continue;
    int fd = accept4(polled[0].fd, NULL, NULL, SOCK_CLOEXEC);
    need(fd >= 0, "accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    clients[used] = (Client){.fids = calloc(fids_max, sizeof(Fid)), .in = malloc(2 * msize_max)};
    polled[used++] = (struct pollfd){.fd = fd, .events = POLLIN};
  }
}
