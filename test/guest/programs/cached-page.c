/*
 * cached-page FILE store|store-wronly|append: three short ways to change a page of a file that the kernel has not cached yet.
 *
 * store: FILE is a page of 'A'. "WWWW" is written at 100 and "SSSS" is stored at 0 through a shared mapping, before the
 * kernel has sent either to the server. store-wronly writes through a descriptor that is not open for reading. Prints `kept`
 * when the process reads both back and fsync succeeds, `refused` when the file cannot be mapped (EINVAL, cache=none).
 * What the server has afterwards is for the caller to look at.
 *
 * append: FILE is 5000 bytes of 'A'. Its second page is read and mapped, "BBBB" is written through a descriptor with O_APPEND.
 * Prints what a read and the mapping then have at 5000, with a dot for a zero.
 */
#include "check.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { page = 4096, written_at = 100, end_at = 5000 };

static void store(const char *path, int write_only) {
  int fd = open(path, O_RDWR);
  CHECK(fd);
  int writer = write_only ? open(path, O_WRONLY) : fd;
  CHECK(writer);
  char *map = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED && errno == EINVAL) {
    puts("refused");
    return;
  }
  CHECK_TRUE(map != MAP_FAILED);
  CHECK_TRUE(pwrite(writer, "WWWW", 4, written_at) == 4);
  memcpy(map, "SSSS", 4);
  CHECK(munmap(map, page));
  char got[written_at + 4];
  CHECK_TRUE(pread(fd, got, sizeof got, 0) == sizeof got);
  CHECK_TRUE(memcmp(got, "SSSS", 4) == 0);
  CHECK_TRUE(memcmp(got + written_at, "WWWW", 4) == 0);
  CHECK(fsync(fd));
  CHECK(close(fd));
  if (write_only) CHECK(close(writer));
  puts("kept");
}

static void append(const char *path) {
  int fd = open(path, O_RDONLY);
  CHECK(fd);
  char cached, end[4];
  CHECK_TRUE(pread(fd, &cached, 1, page) == 1 && cached == 'A');
  volatile char *map = mmap(NULL, 2 * page, PROT_READ, MAP_PRIVATE, fd, 0);
  CHECK_TRUE(map != MAP_FAILED);
  CHECK_TRUE(map[page] == 'A');
  int appender = open(path, O_WRONLY | O_APPEND);
  CHECK(appender);
  CHECK_TRUE(write(appender, "BBBB", 4) == 4);
  CHECK_TRUE(pread(fd, end, 4, end_at) == 4);
  fputs("read ", stdout);
  for (int i = 0; i < 4; i++) putchar(end[i] == 0 ? '.' : end[i]);
  fputs(", mapped ", stdout);
  for (int i = 0; i < 4; i++) putchar(map[end_at + i] == 0 ? '.' : map[end_at + i]);
  putchar('\n');
  CHECK(fsync(appender));
  CHECK(close(appender));
  CHECK(close(fd));
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[2], "store") == 0) store(argv[1], 0);
  else if (argc == 3 && strcmp(argv[2], "store-wronly") == 0) store(argv[1], 1);
  else if (argc == 3 && strcmp(argv[2], "append") == 0) append(argv[1]);
  else fail("usage: cached-page FILE store|store-wronly|append");
  return 0;
}
