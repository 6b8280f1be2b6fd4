/*
 * The system calls of a server that has started, for all of its threads: seccomp(2).
 *
 *   allowed    what Node, V8, the C library and the shims call
 *   checks     calls that depend on an argument
 *   fatal      what no file server has a reason to call and an intruder has: the process is killed (SIGSYS)
 *   the rest   ENOSYS, as on a kernel without the call: a library that tries a newer call goes back to the older one
 *
 * The kernel keeps by number what is allowed whatever its arguments are, and runs no filter for it (from 5.11 on). An older
 * one runs it from the top, where the frequent calls are.
 */
#include "apart.h"
#include "pool.h"
#include "syscalls.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#define ARCHITECTURE 0
#endif

/* Numbers that are the same on every architecture but Alpha; older kernel headers do not have all of them. */
enum {
  CALL_OPEN_TREE = 428, CALL_MOVE_MOUNT, CALL_FSOPEN, CALL_FSCONFIG, CALL_FSMOUNT, CALL_FSPICK, CALL_PIDFD_OPEN, CALL_CLONE3,
  CALL_CLOSE_RANGE = 436, CALL_OPENAT2, CALL_PIDFD_GETFD, CALL_FACCESSAT2, CALL_EPOLL_PWAIT2 = 441,
  CALL_MOUNT_SETATTR, CALL_MEMFD_SECRET = 447, CALL_LISTXATTRAT = 465, CALL_REMOVEXATTRAT,
  CALL_OPEN_TREE_ATTR,
};

static const int allowed[] = {
    SYS_read, SYS_write, SYS_epoll_pwait, SYS_pread64, SYS_pwrite64, CALL_OPENAT2, SYS_statx, SYS_close, SYS_futex,
    SYS_openat, SYS_writev, SYS_preadv, SYS_pwritev, SYS_getxattr, SYS_fgetxattr, SYS_setxattr, SYS_getdents64,
    SYS_epoll_ctl, SYS_fstatfs, SYS_fcntl, SYS_readv, SYS_recvmsg, SYS_sendmsg, SYS_recvfrom, SYS_sendto, SYS_accept4,
#ifdef __x86_64__
    SYS_epoll_wait, SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_unlink, SYS_mkdir, SYS_rmdir,
    SYS_rename, SYS_chmod, SYS_chown, SYS_poll, SYS_dup2, SYS_pipe, SYS_eventfd, SYS_getrlimit, SYS_time,
    SYS_arch_prctl,
#endif
    /* files */
    SYS_fstat, SYS_newfstatat, SYS_statfs, SYS_readlinkat, SYS_mkdirat, SYS_mknodat, SYS_symlinkat, SYS_linkat,
    SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_fchmod, SYS_fchmodat, CALL_FCHMODAT2, SYS_fchown, SYS_fchownat,
    SYS_utimensat, SYS_ftruncate, SYS_truncate, SYS_fsync, SYS_fdatasync, SYS_lseek, SYS_preadv2, SYS_pwritev2,
    SYS_fadvise64, SYS_flock, SYS_faccessat, CALL_FACCESSAT2, SYS_getcwd, SYS_umask, SYS_listxattr, SYS_flistxattr,
    SYS_fsetxattr, SYS_removexattr, SYS_fremovexattr, CALL_SETXATTRAT, CALL_GETXATTRAT, CALL_LISTXATTRAT,
    CALL_REMOVEXATTRAT,
    /* sockets that are there */
    SYS_listen, SYS_accept, SYS_getsockopt, SYS_setsockopt, SYS_getsockname, SYS_getpeername, SYS_shutdown, SYS_epoll_create1,
    CALL_EPOLL_PWAIT2, SYS_ppoll, SYS_eventfd2, SYS_pipe2, SYS_dup, SYS_dup3, CALL_CLOSE_RANGE,
    /* memory, threads, signals */
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_mremap, SYS_brk, SYS_membarrier, SYS_pkey_alloc, SYS_pkey_free,
    SYS_pkey_mprotect, SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_set_tid_address, SYS_prctl,
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_getparam, SYS_sched_getscheduler, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_restart_syscall, SYS_exit,
    SYS_exit_group,
    /* time, and what it is told of itself */
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_getpid, SYS_gettid,
    SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getgroups, SYS_capget, SYS_getrandom, SYS_uname,
    SYS_sysinfo, SYS_getrusage, SYS_times, SYS_wait4,
};

/* How a thread becomes a guest's user: for `passthrough`. */
static const int for_users[] = {SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_capset};

static const int for_processes[] = {
    SYS_execve,
#ifdef __x86_64__
    SYS_fork, SYS_vfork,
#endif
};

static const int fatal[] = {
    SYS_execveat, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, CALL_PIDFD_GETFD,
    CALL_PIDFD_OPEN, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, CALL_OPEN_TREE, CALL_OPEN_TREE_ATTR,
    CALL_MOVE_MOUNT, CALL_FSOPEN, CALL_FSCONFIG, CALL_FSMOUNT, CALL_FSPICK, CALL_MOUNT_SETATTR, SYS_unshare, SYS_setns,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_bpf, SYS_perf_event_open, SYS_keyctl,
    SYS_add_key, SYS_request_key, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_userfaultfd,
    SYS_fanotify_init, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_settimeofday, SYS_clock_settime,
    SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname, SYS_syslog, SYS_vhangup, SYS_personality,
    CALL_MEMFD_SECRET,
#ifdef __x86_64__
    SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_kexec_file_load,
#endif
};

enum verdict { NEXT, ALLOW, REFUSE, KILL, UNKNOWN };

/* When `argument` masked is `value`, the one verdict, otherwise the other. */
struct check {
  int number, argument;
  uint32_t mask, value;
  enum verdict same, different;
};

enum { NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET };

static const struct check checks[] = {
    /* Threads, and the processes of apart.c that are as good as threads; no others. */
    {SYS_clone, 0, CLONE_SIGHAND | NAMESPACES, CLONE_SIGHAND, ALLOW, KILL},
    {SYS_ioctl, 1, UINT32_MAX, TIOCSTI, REFUSE, NEXT},                    /* no typing on the terminal of who started it */
    {SYS_ioctl, 1, UINT32_MAX, TIOCLINUX, REFUSE, ALLOW},
    {SYS_prlimit64, 0, UINT32_MAX, 0, ALLOW, REFUSE}, /* its own limits */
};

/* The program while it is put together. A jump leads to a verdict, whose place is known only at the end. */
struct program {
  struct sock_filter code[256];
  enum verdict yes[256], no[256];
  unsigned short length;
};

static void add(struct program *p, struct sock_filter code, enum verdict yes, enum verdict no) {
  if (p->length == 256) return; /* checked at the end */
  p->yes[p->length] = yes;
  p->no[p->length] = no;
  p->code[p->length++] = code;
}

static void load(struct program *p, size_t offset) {
  add(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset), NEXT, NEXT);
}

static void compare(struct program *p, uint32_t value, enum verdict same, enum verdict different) {
  add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 0), same, different);
}

static void list(struct program *p, const int *numbers, size_t count, enum verdict verdict) {
  for (size_t i = 0; i < count; i++) compare(p, (uint32_t)numbers[i], verdict, NEXT);
}

/* Both architectures are little-endian: the low half of an argument comes first. */
static void check(struct program *p, int number, int argument, uint32_t mask, uint32_t value, enum verdict same,
                  enum verdict different) {
  load(p, offsetof(struct seccomp_data, nr));
  add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 3), NEXT, NEXT);
  load(p, offsetof(struct seccomp_data, args) + 8 * (size_t)argument);
  add(p, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask), NEXT, NEXT);
  compare(p, value, same, different);
}

/* The verdicts at the end, and the way to them. Jumps reach 255 instructions. */
static int64_t finish(struct program *p, enum verdict rest) {
  static const uint32_t results[] = {
      [UNKNOWN] = SECCOMP_RET_ERRNO | ENOSYS,
      [ALLOW] = SECCOMP_RET_ALLOW,
      [REFUSE] = SECCOMP_RET_ERRNO | EPERM,
      [KILL] = SECCOMP_RET_KILL_PROCESS,
  };
  const enum verdict order[] = {rest, UNKNOWN, ALLOW, REFUSE, KILL};
  unsigned short place[UNKNOWN + 1] = {0};
  for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
    place[order[i]] = p->length;
    add(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, results[order[i]]), NEXT, NEXT);
  }
  if (p->length == 256) return -E2BIG;
  for (int i = 0; i < p->length; i++) {
    if (p->yes[i] != NEXT) p->code[i].jt = (uint8_t)(place[p->yes[i]] - i - 1);
    if (p->no[i] != NEXT) p->code[i].jf = (uint8_t)(place[p->no[i]] - i - 1);
  }
  return 0;
}

#define LIST(p, numbers, verdict) list(p, numbers, sizeof numbers / sizeof *numbers, verdict)

/* A server: what it may call, and what is its end. */
static void server_calls(struct program *p, bool users) {
  LIST(p, allowed, ALLOW);
  if (users) LIST(p, for_users, ALLOW);
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
    const struct check *one = &checks[i];
    check(p, one->number, one->argument, one->mask, one->value, one->same, one->different);
  }
  uint32_t self = (uint32_t)getpid();
  check(p, SYS_tgkill, 0, UINT32_MAX, self, ALLOW, REFUSE); /* abort(3) */
  check(p, SYS_kill, 0, UINT32_MAX, self, ALLOW, REFUSE);
  load(p, offsetof(struct seccomp_data, nr));
  LIST(p, for_processes, KILL);
}

/*
 * The first number says for whom the filter is. For a server; for one whose threads become guests' users; for a process that
 * starts servers, to which all is allowed but what is fatal; or for a program that is about to be executed: libuv makes its
 * io_uring before any JavaScript runs, and no variable keeps it from that, so that there must be none. clone3(2), which keeps its flags in memory where no filter sees them, is known to nobody; the C
 * library then calls clone(2). -ENOSYS where there is no filter for this machine.
 */
int64_t sys_filter_calls(const struct call *c) {
  enum { SERVER, SERVER_OF_USERS, STARTER, NEXT_PROGRAM } role = (unsigned)c->number[0];
  struct program p = {.length = 0};
  if (ARCHITECTURE == 0) return -ENOSYS;
  load(&p, offsetof(struct seccomp_data, arch));
  compare(&p, ARCHITECTURE, NEXT, KILL);
  load(&p, offsetof(struct seccomp_data, nr));
  if (role == SERVER || role == SERVER_OF_USERS) server_calls(&p, role == SERVER_OF_USERS);
  if (role == STARTER) check(&p, SYS_clone, 0, NAMESPACES, 0, ALLOW, KILL);
  load(&p, offsetof(struct seccomp_data, nr));
  if (role == STARTER || role == NEXT_PROGRAM) compare(&p, SYS_io_uring_setup, UNKNOWN, NEXT);
  if (role != NEXT_PROGRAM) {
    compare(&p, CALL_CLONE3, UNKNOWN, NEXT);
    LIST(&p, fatal, KILL);
  }
#ifdef __x86_64__
  add(&p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 0), KILL, NEXT); /* x32 */
#endif
  int64_t done = finish(&p, role == STARTER || role == NEXT_PROGRAM ? ALLOW : UNKNOWN);
  if (done < 0) return done;
  struct sock_fprog program = {.len = p.length, .filter = p.code};
  apart_retire(); /* A filter does not reach other processes, and may forbid to end one. */
  done = RESULT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
  if (done == 0) pool_renew();
  return done > 0 ? -EBUSY : done; /* a thread with a filter of its own */
}
