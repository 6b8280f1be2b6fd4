/*
 * changing-dir COUNT: the directory `big` of COUNT entries (made here if it is not there) is read while
 * others add and remove entries in it: what was there the whole time comes exactly once. Then it is read while every
 * fourth entry is removed just after it came, which must hide no other.
 */
#define _GNU_SOURCE
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Long names, so that a listing does not fit into one message: keep0, keep1 … and this many dashes. */
enum { dashes = 200 };

static void make(int count) {
  char name[256], tail[dashes + 1];
  memset(tail, '-', dashes);
  tail[dashes] = 0;
  for (int i = 0; i < count; i++) {
    snprintf(name, sizeof name, "big/keep%d%s", i, tail);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd < 0) fail("create %s", name);
    close(fd);
  }
}

static pid_t churn(void) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  char name[64];
  for (int i = 0;; i++) {
    snprintf(name, sizeof name, "big/churn%d", i % 97);
    int fd = open(name, O_WRONLY | O_CREAT, 0644);
    if (fd >= 0) close(fd);
    snprintf(name, sizeof name, "big/churn%d", (i + 50) % 97);
    unlink(name);
    usleep(2000);
  }
}

static void read_once(int count) {
  char *seen = calloc((size_t)count, 1);
  DIR *dir = opendir("big");
  CHECK_TRUE(dir != NULL);
  int stable = 0;
  for (struct dirent *entry; errno = 0, (entry = readdir(dir)) != NULL;) {
    if (strncmp(entry->d_name, "keep", 4) != 0) continue;
    int i = atoi(entry->d_name + 4);
    CHECK_TRUE(i >= 0 && i < count);
    if (seen[i]++ != 0) fail("keep%d came twice", i);
    stable++;
  }
  if (errno != 0) fail("readdir");
  if (stable != count) fail("%d of %d entries came", stable, count);
  closedir(dir);
  free(seen);
}

static void remove_while_reading(int count) {
  DIR *dir = opendir("big");
  CHECK_TRUE(dir != NULL);
  int came = 0;
  for (struct dirent *entry; errno = 0, (entry = readdir(dir)) != NULL;) {
    if (strncmp(entry->d_name, "keep", 4) != 0) continue;
    if (came % 4 == 0 && unlinkat(dirfd(dir), entry->d_name, 0) != 0) fail("remove %s", entry->d_name);
    came++;
  }
  if (errno != 0) fail("readdir");
  if (came != count) fail("%d of %d entries came while some were removed", came, count);
  closedir(dir);
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 1000;
  if (mkdir("big", 0755) == 0) make(count);
  pid_t other = churn();
  read_once(count);
  read_once(count);
  CHECK(kill(other, SIGKILL));
  CHECK(waitpid(other, NULL, 0));
  remove_while_reading(count);
  return 0;
}
