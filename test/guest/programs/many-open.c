/* many-open COUNT: that many files open at once, each with its own content and still the right one; half unlinked. */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 1000;
  struct rlimit limit = {(rlim_t)count + 64, (rlim_t)count + 64};
  CHECK(setrlimit(RLIMIT_NOFILE, &limit));
  int *fds = calloc((size_t)count, sizeof *fds);
  char name[32], text[32];
  for (int i = 0; i < count; i++) {
    snprintf(name, sizeof name, "open-%d", i);
    fds[i] = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fds[i] < 0) fail("open file %d of %d", i, count);
    int length = snprintf(text, sizeof text, "I am %d", i);
    CHECK_TRUE(write(fds[i], text, (size_t)length) == length);
    if (i % 2 == 1) CHECK(unlink(name));
  }
  for (int i = count - 1; i >= 0; i--) {
    struct stat st;
    char wanted[32];
    int length = snprintf(wanted, sizeof wanted, "I am %d", i);
    CHECK(fstat(fds[i], &st));
    CHECK_TRUE((int)st.st_nlink == (i % 2 == 1 ? 0 : 1));
    CHECK_TRUE(pread(fds[i], text, sizeof text, 0) == length);
    if (memcmp(text, wanted, (size_t)length) != 0) fail("file %d holds another's content", i);
    CHECK(close(fds[i]));
    snprintf(name, sizeof name, "open-%d", i);
    if (i % 2 == 0) CHECK(unlink(name));
  }
  return 0;
}
