/*
 * Holds a lease (fcntl(2), F_SETLEASE) on a file, as any user may on a file of theirs, and takes its time to give it up.
 *
 *   lease FILE read|write
 *
 * It says `held`, and `asked` when somebody wants to open or truncate the file; it ends, and gives up the lease, when standard
 * input ends.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void wanted(int signal) {
  (void)signal;
  asked = 1;
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  int write = strcmp(arguments[2], "write") == 0;
  int fd = open(arguments[1], write ? O_RDWR : O_RDONLY);
  signal(SIGIO, wanted);
  if (fd < 0 || fcntl(fd, F_SETLEASE, write ? F_WRLCK : F_RDLCK) != 0) {
    perror(arguments[1]);
    return 1;
  }
  setvbuf(stdout, NULL, _IONBF, 0);
  puts("held");
  struct pollfd input = {STDIN_FILENO, POLLIN, 0};
  for (int told = 0;;) {
    if (poll(&input, 1, 50) > 0) return 0;
    if (asked && !told) told = puts("asked") >= 0;
  }
}
