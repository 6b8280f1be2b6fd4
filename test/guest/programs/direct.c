/*
 * direct FILE: reads and writes with O_DIRECT at offsets, lengths and addresses of any alignment: an oracle in memory
 * tells what must be there. A file system may ask for alignment (EINVAL); `aligned` as second argument keeps to it.
 */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <unistd.h>

enum { file_bytes = 300000 };

int main(int argc, char **argv) {
  if (argc < 2) fail("usage: direct FILE [aligned]");
  size_t step = argc > 2 ? 4096 : 1;
  static unsigned char oracle[file_bytes + 2 * 65536];
  unsigned char *memory;
  if (posix_memalign((void **)&memory, 4096, 4 * 65536) != 0) fail("posix_memalign");
  int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0644);
  if (fd < 0) fail("open with O_DIRECT");
  size_t end = 0;
  unsigned seed = 9;
  for (int round = 0; round < 200; round++) {
    size_t offset = (size_t)rand_r(&seed) % file_bytes / step * step;
    size_t length = ((size_t)rand_r(&seed) % 40000 + 1 + step - 1) / step * step;
    unsigned char *at = memory + (size_t)rand_r(&seed) % 4096 / step * step;
    if (round % 3 == 2) {
      ssize_t wanted = offset >= end ? 0 : (ssize_t)(end - offset < length ? end - offset : length);
      ssize_t got = pread(fd, at, length, (off_t)offset);
      if (got != wanted) fail("round %d: read %zu at %zu of %zu gave %zd", round, length, offset, end, got);
      if (memcmp(at, oracle + offset, (size_t)got) != 0) fail("round %d: other bytes", round);
    } else {
      memset(at, rand_r(&seed) & 0xff, length);
      ssize_t wrote = pwrite(fd, at, length, (off_t)offset);
      if (wrote != (ssize_t)length) fail("round %d: wrote %zd of %zu at %zu", round, wrote, length, offset);
      memcpy(oracle + offset, at, length);
      if (offset + length > end) end = offset + length;
    }
  }
  CHECK(close(fd));
  fd = open(argv[1], O_RDONLY);
  CHECK(fd);
  unsigned char *whole = malloc(end + 1);
  size_t have = 0;
  for (ssize_t got; (got = read(fd, whole + have, end + 1 - have)) > 0;) have += (size_t)got;
  CHECK_TRUE(have == end && memcmp(whole, oracle, end) == 0);
  return 0;
}
