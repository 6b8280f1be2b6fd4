/*
 * A host process that changes an export under its clients: swapper EXPORT LIMBO CANARY SEED.
 *
 * In EXPORT, for each i below COUNT, the directories dI and the files dI/fI change places with each other, with symlinks to CANARY
 * and what is in it, and with files (RENAME_EXCHANGE, so that a name is never absent), go away to LIMBO and come back, and
 * as root have LIMBO mounted over them. It never goes into CANARY, and prints a line for everything that anybody does
 * there (inotify: open, read, write, attributes, names), and the number of swaps at the end, which is at SIGTERM.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COUNT = 4 };

static const char *export, *limbo, *canary;
static volatile sig_atomic_t ended;
static unsigned long long state;
static unsigned long swaps;

static void end(int signal) {
  (void)signal;
  ended = 1;
}

/* xorshift64* */
static unsigned below(unsigned bound) {
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return (unsigned)((state * 2685821657736338717ULL) >> 33) % bound;
}

struct path {
  char text[PATH_MAX];
};

__attribute__((format(printf, 1, 2))) static struct path path_of(const char *format, ...) {
  struct path path;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(path.text, sizeof path.text, format, arguments);
  va_end(arguments);
  return path;
}

static void check(bool ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static void make_file(int dir, const char *name) {
  int fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
  check(fd < 0 ? errno == EEXIST || errno == ENOENT : write(fd, "inside\n", 7) == 7, name);
  if (fd >= 0) close(fd);
}

/* Makes what is missing of dI. Something else may be there at the moment, which is not gone into. */
static void fill(int i) {
  struct path path = path_of("%s/d%d", export, i);
  if (mkdir(path.text, 0777) != 0 && errno != EEXIST) return;
  int dir = open(path.text, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0) return;
  mkdirat(dir, "sub", 0777);
  for (int j = 0; j < COUNT; j++) make_file(dir, path_of("f%d", j).text);
  close(dir);
}

static void make_all(void) {
  for (int i = 0; i < COUNT; i++) {
    fill(i);
    /* What takes their places. */
    check(symlink(canary, path_of("%s/to-canary%d", limbo, i).text) == 0, "symlink");
    check(symlink(path_of("%s/secret", canary).text, path_of("%s/to-secret%d", limbo, i).text) == 0, "symlink");
    check(symlink("../../canary", path_of("%s/upwards%d", limbo, i).text) == 0, "symlink");
    check(mkdir(path_of("%s/other%d", limbo, i).text, 0777) == 0, "mkdir");
    make_file(AT_FDCWD, path_of("%s/other%d/f0", limbo, i).text);
    make_file(AT_FDCWD, path_of("%s/file%d", limbo, i).text);
  }
  check(mkdir(path_of("%s/bound", limbo).text, 0777) == 0, "mkdir");
  check(mkdir(path_of("%s/m", export).text, 0777) == 0, "mkdir");
}

static const char *const strangers[] = {"to-canary", "to-secret", "upwards", "other", "file"};

/* Names come and go by the clients too: what fails is no matter. */
static void swap(void) {
  int i = (int)below(COUNT), j = (int)below(COUNT);
  struct path dir = path_of("%s/d%d", export, i), other = path_of("%s/d%d", export, j);
  struct path file = path_of("%s/d%d/f%d", export, i, j), other_file = path_of("%s/d%d/f%d", export, j, i);
  struct path stranger = path_of("%s/%s%d", limbo, strangers[below(5)], i);
  struct path away = path_of("%s/away%d", limbo, i);
  int result = 0;
  if (below(8) == 0) fill(i);
  switch (below(7)) {
    case 0: result = renameat2(AT_FDCWD, dir.text, AT_FDCWD, other.text, RENAME_EXCHANGE); break;
    case 1: result = renameat2(AT_FDCWD, file.text, AT_FDCWD, other_file.text, RENAME_EXCHANGE); break;
    case 2:
    case 3: /* There and back, with a moment between. */
      for (int times = 0; times < 2; times++) {
        result = renameat2(AT_FDCWD, dir.text, AT_FDCWD, stranger.text, RENAME_EXCHANGE);
        if (times == 0) usleep(below(300));
      }
      break;
    case 4:
      for (int times = 0; times < 2; times++) {
        result = renameat2(AT_FDCWD, file.text, AT_FDCWD, stranger.text, RENAME_EXCHANGE);
        if (times == 0) usleep(below(300));
      }
      break;
    case 5:
      if (rename(dir.text, away.text) == 0) {
        usleep(below(300));
        result = renameat2(AT_FDCWD, away.text, AT_FDCWD, dir.text, RENAME_NOREPLACE);
        /* A client has made one in between: that one goes. */
        if (result != 0) result = renameat2(AT_FDCWD, away.text, AT_FDCWD, dir.text, RENAME_EXCHANGE);
      }
      break;
    default: {
      struct path bound = path_of("%s/bound", limbo), at = path_of("%s/m", export);
      if (geteuid() != 0 || below(8) != 0) return;
      if (mount(bound.text, at.text, NULL, MS_BIND, NULL) != 0) return;
      usleep(below(2000));
      result = umount2(at.text, MNT_DETACH);
    }
  }
  if (result == 0) swaps++;
}

static int watch_canary(void) {
  int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  check(fd >= 0, "inotify_init1");
  const char *const names[] = {"", "/secret", "/inner", "/inner/deep"};
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    check(inotify_add_watch(fd, path_of("%s%s", canary, names[i]).text, IN_ALL_EVENTS) >= 0, "inotify_add_watch");
  }
  return fd;
}

static void tell_events(int fd) {
  _Alignas(struct inotify_event) char events[4096];
  for (ssize_t got; (got = read(fd, events, sizeof events)) > 0;) {
    for (ssize_t at = 0; at < got;) {
      const struct inotify_event *event = (const struct inotify_event *)(events + at);
      printf("canary: watch %d, mask 0x%x, %s\n", event->wd, event->mask, event->len > 0 ? event->name : "itself");
      at += (ssize_t)(sizeof *event + event->len);
    }
  }
}

int main(int count, char **arguments) {
  check(count == 5, "swapper EXPORT LIMBO CANARY SEED");
  export = arguments[1];
  limbo = arguments[2];
  canary = arguments[3];
  state = strtoull(arguments[4], NULL, 10) | 1;
  umask(0);
  signal(SIGTERM, end);
  signal(SIGINT, end);
  setlinebuf(stdout);
  make_all();
  int events = watch_canary();
  puts("ready");
  while (!ended) {
    swap();
    if (below(64) == 0) tell_events(events);
    if (below(16) == 0) usleep(below(200));
  }
  tell_events(events);
  umount2(path_of("%s/m", export).text, MNT_DETACH);
  printf("swaps: %lu\n", swaps);
  return 0;
}
