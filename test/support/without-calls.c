/*
 * without-calls WHAT PROGRAM ARGUMENT...: runs a program as on a kernel without Landlock, or without seccomp as well, or as in
 * a container in which nothing may be mounted, or without memory for a filter. Each letter of WHAT is one: l, s, n, f. The calls
 * are then unknown (ENOSYS), unshare(2) is refused (EPERM), and seccomp(2) with a filter fails (ENOMEM).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LANDLOCK_FIRST = 444, LANDLOCK_LAST = 446 };

int main(int count, char **arguments) {
  int landlock = strchr(arguments[1], 'l') != NULL, seccomp = strchr(arguments[1], 's') != NULL;
  int namespaces = strchr(arguments[1], 'n') != NULL, memory = strchr(arguments[1], 'f') != NULL;
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, namespaces ? SYS_unshare : -1U, 6, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, memory ? SYS_seccomp : -1U, 6, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, seccomp ? SYS_seccomp : -1U, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, landlock ? LANDLOCK_FIRST : -1U, 0, 1),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LANDLOCK_LAST, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      /* The program of SECCOMP_SET_MODE_FILTER, which is at NULL when a kernel is asked whether it has filters. */
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (count < 3) return 2;
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) perror("seccomp");
  else execv(arguments[2], arguments + 2);
  return 1;
}
