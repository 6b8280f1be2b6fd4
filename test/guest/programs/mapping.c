/* mapping FILE: a shared mapping, read and write calls and two descriptors agree on one file's content. */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { bytes = 1 << 20 };

int main(int argc, char **argv) {
  if (argc < 2) fail("usage: mapping FILE");
  int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0644);
  CHECK(fd);
  CHECK(ftruncate(fd, bytes));
  unsigned char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) fail("mmap");
  for (size_t at = 0; at < bytes; at += 1000) map[at] = (unsigned char)(at / 1000);
  CHECK(msync(map, bytes, MS_SYNC));
  int other = open(argv[1], O_RDONLY);
  CHECK(other);
  for (size_t at = 0; at < bytes; at += 1000) {
    unsigned char byte;
    CHECK_TRUE(pread(other, &byte, 1, (off_t)at) == 1 && byte == (unsigned char)(at / 1000));
  }
  CHECK_TRUE(pwrite(fd, "through write", 13, 4090) == 13);
  CHECK_TRUE(memcmp(map + 4090, "through write", 13) == 0);
  map[bytes - 1] = 0x5a;
  CHECK(munmap(map, bytes));
  CHECK(close(fd));
  CHECK(close(other));
  fd = open(argv[1], O_RDONLY);
  CHECK(fd);
  unsigned char last;
  CHECK_TRUE(pread(fd, &last, 1, bytes - 1) == 1 && last == 0x5a);
  struct stat st;
  CHECK(fstat(fd, &st));
  CHECK_TRUE(st.st_size == bytes);
  return 0;
}
