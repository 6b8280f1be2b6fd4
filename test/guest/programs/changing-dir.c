/*
 * changing-dir COUNT: a directory of COUNT entries is read while others add and remove entries in it. Entries that
 * were there the whole time come exactly once; then `rm -r`'s way: each entry removed just after it was read.
 */
#define _GNU_SOURCE
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void make(const char *prefix, int count) {
  char name[64];
  for (int i = 0; i < count; i++) {
    snprintf(name, sizeof name, "big/%s%d", prefix, i);
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
  holds(dir != NULL);
  int stable = 0;
  for (struct dirent *entry; errno = 0, (entry = readdir(dir)) != NULL;) {
    if (strncmp(entry->d_name, "keep", 4) != 0) continue;
    int i = atoi(entry->d_name + 4);
    holds(i >= 0 && i < count);
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
  holds(dir != NULL);
  int removed = 0;
  for (struct dirent *entry; errno = 0, (entry = readdir(dir)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    if (unlinkat(dirfd(dir), entry->d_name, 0) != 0) fail("remove %s", entry->d_name);
    removed++;
  }
  if (errno != 0) fail("readdir");
  if (removed < count) fail("%d of %d entries came to be removed", removed, count);
  closedir(dir);
  must(rmdir("big"));
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 1000;
  must(mkdir("big", 0755));
  make("keep", count);
  pid_t other = churn();
  read_once(count);
  read_once(count);
  must(kill(other, SIGKILL));
  must(waitpid(other, NULL, 0));
  remove_while_reading(count);
  return 0;
}
