/*
 * exercise FILE SEED ROUNDS [mapread] [mapwrite] [stay] [flush] [noappend]: random reads, writes, appends, truncations,
 * reopenings, fsyncs and, where asked for, shared mappings of one file against an oracle in memory, as fsx does it; the first
 * wrong byte ends the program. `stay` leaves out closing and opening again, `noappend` leaves out appends, and `flush` calls
 * fsync before each mapping that is stored to. The oracle is left in /tmp/oracle-SEED.
 */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { size_max = 256 * 1024, piece_max = 40000 };

static unsigned char oracle[size_max], buffer[size_max];
static size_t size;
static const char *path;
static int fd = -1;
static int round_now;
static unsigned seed;
static int flush;

static size_t random_below(size_t limit) {
  return limit == 0 ? 0 : (size_t)rand_r(&seed) % limit;
}

static void reopen(int flags) {
  if (fd >= 0 && close(fd) != 0) fail("round %d: close", round_now);
  fd = open(path, O_RDWR | flags, 0644);
  if (fd < 0) fail("round %d: open", round_now);
}

static void compare(size_t at, size_t length, const char *how) {
  for (size_t i = 0; i < length; i++) {
    if (buffer[i] != oracle[at + i]) {
      fail("round %d: %s: byte %zu of %zu is %02x, not %02x", round_now, how, at + i, size, buffer[i], oracle[at + i]);
    }
  }
}

static void do_read(void) {
  size_t at = random_below(size + 100), length = 1 + random_below(piece_max);
  size_t wanted = at >= size ? 0 : (size - at < length ? size - at : length);
  ssize_t got = pread(fd, buffer, length, (off_t)at);
  if (got != (ssize_t)wanted) fail("round %d: read %zu at %zu of %zu: %zd", round_now, length, at, size, got);
  compare(at, wanted, "read");
}

static void put(size_t at, size_t length) {
  if (at > size) memset(oracle + size, 0, at - size);
  for (size_t i = 0; i < length; i++) buffer[i] = oracle[at + i] = (unsigned char)rand_r(&seed);
  if (at + length > size) size = at + length;
}

static void do_write(void) {
  size_t length = 1 + random_below(piece_max), at = random_below(size_max - length);
  put(at, length);
  ssize_t wrote = pwrite(fd, buffer, length, (off_t)at);
  if (wrote != (ssize_t)length) fail("round %d: write %zu at %zu: %zd", round_now, length, at, wrote);
}

static void do_append(void) {
  size_t length = 1 + random_below(2000);
  if (size + length > size_max) return;
  int appender = open(path, O_WRONLY | O_APPEND);
  if (appender < 0) fail("round %d: open for append", round_now);
  put(size, length);
  ssize_t wrote = write(appender, buffer, length);
  if (wrote != (ssize_t)length) fail("round %d: append %zu: %zd", round_now, length, wrote);
  if (close(appender) != 0) fail("round %d: close of the appender", round_now);
}

static void do_truncate(void) {
  size_t to = random_below(size_max);
  if (ftruncate(fd, (off_t)to) != 0) fail("round %d: truncate to %zu", round_now, to);
  if (to > size) memset(oracle + size, 0, to - size);
  size = to;
}

static void do_fsync(void) {
  if (fsync(fd) != 0) fail("round %d: fsync", round_now);
}

static void do_map(int writing) {
  if (size < 2) return;
  if (writing && flush) do_fsync();
  size_t at = random_below(size - 1), length = 1 + random_below(size - at);
  size_t page = at & ~(size_t)4095;
  int protection = writing ? PROT_READ | PROT_WRITE : PROT_READ;
  unsigned char *map = mmap(NULL, at - page + length, protection, MAP_SHARED, fd, (off_t)page);
  if (map == MAP_FAILED) fail("round %d: mmap", round_now);
  memcpy(buffer, map + (at - page), length);
  compare(at, length, "mapped read");
  if (writing) {
    put(at, length);
    memcpy(map + (at - page), buffer, length);
  }
  if (munmap(map, at - page + length) != 0) fail("round %d: munmap", round_now);
}

static void check_all(void) {
  struct stat st;
  if (fstat(fd, &st) != 0 || (size_t)st.st_size != size) {
    fail("round %d: size %lld, not %zu", round_now, (long long)st.st_size, size);
  }
  ssize_t got = pread(fd, buffer, size_max, 0);
  if (got != (ssize_t)size) fail("round %d: whole read of %zu: %zd", round_now, size, got);
  compare(0, size, "whole read");
}

int main(int argc, char **argv) {
  if (argc < 4) fail("usage: exercise FILE SEED ROUNDS [mapread] [mapwrite] [stay] [flush] [noappend]");
  path = argv[1];
  seed = (unsigned)atoi(argv[2]);
  int rounds = atoi(argv[3]);
  int mapread = 0, mapwrite = 0, stay = 0, noappend = 0;
  for (int i = 4; i < argc; i++) {
    mapread |= strcmp(argv[i], "mapread") == 0;
    mapwrite |= strcmp(argv[i], "mapwrite") == 0;
    stay |= strcmp(argv[i], "stay") == 0;
    flush |= strcmp(argv[i], "flush") == 0;
    noappend |= strcmp(argv[i], "noappend") == 0;
  }
  reopen(O_CREAT | O_TRUNC);
  for (round_now = 0; round_now < rounds; round_now++) {
    switch (random_below(12)) {
      case 0:
      case 1:
      case 2: do_read(); break;
      case 3:
      case 4:
      case 5: do_write(); break;
      case 6:
        if (noappend) do_write();
        else do_append();
        break;
      case 7: do_truncate(); break;
      case 8:
        if (mapwrite) do_map(1);
        else do_write();
        break;
      case 9:
        if (mapread) do_map(0);
        else do_read();
        break;
      case 10:
        if (!stay) reopen(0);
        break;
      case 11: do_fsync(); break;
    }
    if (round_now % 50 == 49) check_all();
  }
  check_all();
  reopen(0);
  check_all();
  char copy[4096];
  snprintf(copy, sizeof copy, "/tmp/oracle-%s", argv[2]);
  FILE *file = fopen(copy, "w");
  CHECK_TRUE(file != NULL && fwrite(oracle, 1, size, file) == size && fclose(file) == 0);
  return close(fd);
}
