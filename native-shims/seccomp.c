/*
 * The system calls of a server that has started, for all of its threads: seccomp(2).
 *
 *   allowed    what Node, V8, the C library and the shims call
 *   checks     calls that depend on an argument
 *   fatal      what no file server has a reason to call and an intruder has: the process is killed (SIGSYS)
 *   the rest   ENOSYS, as on a kernel without the call: a library that tries a newer call goes back to the older one
 *
 * The filter is a binary search by number, some 8 comparisons deep, so that a longer list costs no time. For what is allowed
 * whatever its arguments are, Linux 5.11 and later run no filter at all.
 */
#include "apart.h"
#include "pool.h"
#include "syscalls.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
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
    SYS_epoll_ctl, SYS_fstatfs, SYS_readv, SYS_recvfrom, SYS_accept4,
#ifdef __x86_64__
    SYS_epoll_wait, SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_unlink, SYS_mkdir, SYS_rmdir,
    SYS_rename, SYS_poll, SYS_dup2, SYS_pipe, SYS_eventfd, SYS_getrlimit, SYS_time,
    SYS_arch_prctl,
#endif
    /* files */
    SYS_fstat, SYS_newfstatat, SYS_statfs, SYS_readlinkat, SYS_mkdirat, SYS_mknodat, SYS_symlinkat, SYS_linkat,
    SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_utimensat, SYS_ftruncate, SYS_truncate, SYS_fsync, SYS_fdatasync, SYS_lseek, SYS_preadv2, SYS_pwritev2,
    SYS_fadvise64, SYS_flock, SYS_faccessat, CALL_FACCESSAT2, SYS_getcwd, SYS_umask, SYS_listxattr, SYS_flistxattr,
    SYS_fsetxattr, SYS_removexattr, SYS_fremovexattr, CALL_SETXATTRAT, CALL_GETXATTRAT, CALL_LISTXATTRAT,
    CALL_REMOVEXATTRAT,
    /* sockets that are there */
    SYS_listen, SYS_accept, SYS_getsockopt, SYS_getsockname, SYS_getpeername, SYS_epoll_create1,
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

/* For `passthrough`: how a thread becomes a guest's user, and how that user sets owners and modes. `mapped` needs none. */
static const int for_users[] = {
    SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_capset, SYS_fchmod, SYS_fchmodat, CALL_FCHMODAT2, SYS_fchown,
    SYS_fchownat,
#ifdef __x86_64__
    SYS_chmod, SYS_chown,
#endif
};

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

enum verdict { NEXT, ALLOW, REFUSE, KILL, UNKNOWN, CHECKED };

/*
 * When `argument` masked is `value`, the one verdict, otherwise the other. NEXT: the next row decides, which is for the same
 * call. Only the low 32 bits are compared: all of these arguments are an int of the kernel's.
 */
struct check {
  int number, argument;
  uint32_t mask, value;
  enum verdict same, different;
};

enum { NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET };
/* Of newer headers. TCGETS2 and TCSETS2 are what the C library calls from glibc 2.42 on. */
enum { GET_SEALS = 1034, OFD_GETLK = 36, OFD_SETLK, OFD_SETLKW };
#define TERMINAL_GET2 0x802c542aU
#define TERMINAL_SET2 0x402c542bU
#define ALL UINT32_MAX

static const struct check checks[] = {
    /* Threads, and the processes of apart.c that are as good as threads; no others. */
    {SYS_clone, 0, CLONE_SIGHAND | NAMESPACES, CLONE_SIGHAND, ALLOW, KILL},
    /* Node's own for sockets, files and terminals. Not: what types on a terminal (TIOCSTI), freezes a file system (FIFREEZE),
       sets who gets signals (FIOSETOWN). */
    {SYS_ioctl, 1, ALL, FIONBIO, ALLOW, NEXT},
    {SYS_ioctl, 1, ALL, FIOCLEX, ALLOW, NEXT},
    {SYS_ioctl, 1, ALL, FIONCLEX, ALLOW, NEXT},
    {SYS_ioctl, 1, ALL, FIONREAD, ALLOW, NEXT},
    {SYS_ioctl, 1, ALL, TCGETS, ALLOW, NEXT},
    {SYS_ioctl, 1, ALL, TCSETS, ALLOW, NEXT},
    {SYS_ioctl, 1, ALL, TERMINAL_GET2, ALLOW, NEXT},
    {SYS_ioctl, 1, ALL, TERMINAL_SET2, ALLOW, NEXT},
    {SYS_ioctl, 1, ALL, TIOCGPTN, ALLOW, NEXT},
    {SYS_ioctl, 1, ALL, TIOCGWINSZ, ALLOW, REFUSE},
    /* Not F_SETOWN and F_SETSIG, by which the kernel signals any process; not F_SETLEASE and F_NOTIFY. */
    {SYS_fcntl, 1, ALL, F_GETFL, ALLOW, NEXT},
    {SYS_fcntl, 1, ALL, F_SETFL, ALLOW, NEXT},
    {SYS_fcntl, 1, ALL, F_GETFD, ALLOW, NEXT},
    {SYS_fcntl, 1, ALL, F_SETFD, ALLOW, NEXT},
    {SYS_fcntl, 1, ALL, F_DUPFD, ALLOW, NEXT},
    {SYS_fcntl, 1, ALL, F_DUPFD_CLOEXEC, ALLOW, NEXT},
    {SYS_fcntl, 1, ALL, OFD_GETLK, ALLOW, NEXT},
    {SYS_fcntl, 1, ALL, OFD_SETLK, ALLOW, NEXT},
    {SYS_fcntl, 1, ALL, OFD_SETLKW, ALLOW, NEXT},
    {SYS_fcntl, 1, ALL, GET_SEALS, ALLOW, REFUSE},
    /* SHUT_RD makes of a TCP listener a socket that connects: with MSG_FASTOPEN, sendto(2) is connect(2). */
    {SYS_shutdown, 1, ALL, SHUT_WR, ALLOW, REFUSE},
    {SYS_sendto, 3, MSG_FASTOPEN, 0, ALLOW, REFUSE},
    {SYS_sendmsg, 2, MSG_FASTOPEN, 0, ALLOW, REFUSE},
    /* Keep-alive and Nagle's algorithm, of levels 1 (SOL_SOCKET) and 6 (TCP). Not SO_PASSRIGHTS. */
    {SYS_setsockopt, 1, ALL, IPPROTO_IP, REFUSE, NEXT},
    {SYS_setsockopt, 1, ~7U, 0, NEXT, REFUSE},
    {SYS_setsockopt, 2, ALL, TCP_NODELAY, ALLOW, NEXT},
    {SYS_setsockopt, 2, ALL, TCP_KEEPIDLE, ALLOW, NEXT},
    {SYS_setsockopt, 2, ALL, TCP_KEEPINTVL, ALLOW, NEXT},
    {SYS_setsockopt, 2, ALL, TCP_KEEPCNT, ALLOW, NEXT},
    {SYS_setsockopt, 2, ALL, SO_KEEPALIVE, ALLOW, REFUSE},
    {SYS_prlimit64, 0, ALL, 0, ALLOW, REFUSE}, /* its own limits */
};

enum { CALLS = 512, CODE_MAX = 2048 };

/* The calls from a number on, up to the next row's, with one verdict. */
struct range {
  uint32_t from;
  enum verdict verdict;
};

struct program {
  uint8_t verdicts[CALLS];
  struct check own[3]; /* what depends on this process or its role */
  size_t own_count;
  struct range ranges[CALLS + 2];
  struct sock_filter code[CODE_MAX];
  size_t length;
};

static void add(struct program *p, struct sock_filter code) {
  if (p->length < CODE_MAX) p->code[p->length] = code;
  p->length++; /* checked at the end */
}

static void load(struct program *p, size_t offset) {
  add(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void jump_if_equal(struct program *p, uint32_t value, uint8_t same, uint8_t different) {
  add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, same, different));
}

static void decide(struct program *p, enum verdict verdict) {
  static const uint32_t results[] = {
      [UNKNOWN] = SECCOMP_RET_ERRNO | ENOSYS,
      [ALLOW] = SECCOMP_RET_ALLOW,
      [REFUSE] = SECCOMP_RET_ERRNO | EPERM,
      [KILL] = SECCOMP_RET_KILL_PROCESS,
  };
  add(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, results[verdict]));
}

static void list(struct program *p, const int *numbers, size_t count, enum verdict verdict) {
  for (size_t i = 0; i < count; i++) p->verdicts[numbers[i]] = (uint8_t)verdict;
}

#define LIST(p, numbers, verdict) list(p, numbers, sizeof numbers / sizeof *numbers, verdict)

static void own_check(struct program *p, struct check check) {
  p->own[p->own_count++] = check;
  p->verdicts[check.number] = CHECKED;
}

/* Both architectures are little-endian: the low half of an argument comes first. */
static void emit_check(struct program *p, const struct check *check) {
  load(p, offsetof(struct seccomp_data, args) + 8 * (size_t)check->argument);
  if (check->mask != ALL) add(p, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, check->mask));
  bool only_different = check->same == NEXT;
  jump_if_equal(p, check->value, only_different, !only_different);
  if (!only_different) decide(p, check->same);
  if (check->different != NEXT) decide(p, check->different);
}

/* A check of the role's own takes the place of the general ones. */
static void emit_checks(struct program *p, int number) {
  for (size_t i = 0; i < p->own_count; i++) {
    if (p->own[i].number != number) continue;
    emit_check(p, &p->own[i]);
    return;
  }
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
    if (checks[i].number == number) emit_check(p, &checks[i]);
  }
}

/* A balanced tree. An unconditional jump leads to the upper half, since a conditional one reaches 255 instructions. */
static void emit_ranges(struct program *p, const struct range *ranges, size_t count) {
  if (count == 1) {
    if (ranges->verdict == CHECKED) emit_checks(p, (int)ranges->from);
    else decide(p, ranges->verdict);
    return;
  }
  size_t half = count / 2;
  add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ranges[half].from, 0, 1));
  size_t jump = p->length;
  add(p, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0));
  emit_ranges(p, ranges, half);
  if (jump < CODE_MAX) p->code[jump].k = (uint32_t)(p->length - jump - 1);
  emit_ranges(p, ranges + half, count - half);
}

/* The whole program, from the verdicts. `rest` is for numbers that no list has. */
static int64_t emit(struct program *p, enum verdict rest) {
  size_t count = 0;
  for (uint32_t number = 0; number < CALLS; number++) {
    enum verdict verdict = p->verdicts[number] == NEXT ? rest : (enum verdict)p->verdicts[number];
    bool goes_on = count > 0 && verdict != CHECKED && p->ranges[count - 1].verdict == verdict;
    if (!goes_on) p->ranges[count++] = (struct range){number, verdict};
  }
  p->ranges[count++] = (struct range){CALLS, rest};
#ifdef __x86_64__
  p->ranges[count++] = (struct range){0x40000000, KILL}; /* x32 */
#endif
  load(p, offsetof(struct seccomp_data, arch));
  jump_if_equal(p, ARCHITECTURE, 1, 0);
  decide(p, KILL);
  load(p, offsetof(struct seccomp_data, nr));
  emit_ranges(p, p->ranges, count);
  return p->length <= CODE_MAX ? 0 : -E2BIG;
}

/* What a server serves that needs more calls. */
enum { FOR_USERS = 1, FOR_DESCRIPTORS = 2 };

/* A server: what it may call, and what is its end. */
static void server_calls(struct program *p, int needs) {
  uint32_t self = (uint32_t)getpid();
  LIST(p, for_processes, KILL);
  LIST(p, for_users, needs & FOR_USERS ? ALLOW : REFUSE);
  LIST(p, allowed, ALLOW);
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) p->verdicts[checks[i].number] = CHECKED;
  p->verdicts[SYS_recvmsg] = needs & FOR_DESCRIPTORS ? ALLOW : REFUSE;
  own_check(p, (struct check){SYS_tgkill, 0, ALL, self, ALLOW, REFUSE}); /* abort(3) */
  own_check(p, (struct check){SYS_kill, 0, ALL, self, ALLOW, REFUSE});
}

/* Whether the kernel has filters: a program at NULL is then EFAULT, seccomp(2). */
static bool has_filters(void) {
  return ARCHITECTURE != 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) != 0 && errno == EFAULT;
}

/*
 * The first number says for whom the filter is: for a server (the second number says what it needs besides, FOR_*); for a process
 * that starts servers, to which all is allowed but what is fatal; or for a program that is about to be executed: libuv makes its
 * io_uring before any JavaScript runs, and no variable keeps it from that, so that there must be none. clone3(2), which keeps its
 * flags in memory where no filter sees them, is known to nobody; the C library then calls clone(2). -ENOSYS where this kernel or
 * machine has no filters, and no other reason; every other error means that there is no filter although there could be one.
 */
int64_t sys_filter_calls(const struct call *c) {
  enum { SERVER, STARTER, NEXT_PROGRAM } role = (unsigned)c->number[0];
  static struct program p;
  if (!has_filters()) return -ENOSYS;
  p = (struct program){.length = 0};
  if (role != NEXT_PROGRAM) {
    LIST(&p, fatal, KILL);
    p.verdicts[CALL_CLONE3] = UNKNOWN;
  }
  if (role == SERVER) server_calls(&p, c->number[1]);
  if (role == STARTER) own_check(&p, (struct check){SYS_clone, 0, NAMESPACES, 0, ALLOW, KILL});
  if (role != SERVER) p.verdicts[SYS_io_uring_setup] = UNKNOWN;
  int64_t done = emit(&p, role == SERVER ? UNKNOWN : ALLOW);
  if (done < 0) return done;
  struct sock_fprog program = {.len = (unsigned short)p.length, .filter = p.code};
  apart_retire(); /* A filter does not reach other processes, and may forbid to end one. */
  done = RESULT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
  if (done == 0) pool_renew();
  if (done == -ENOSYS) return -EINVAL;
  return done > 0 ? -EBUSY : done; /* a thread with a filter of its own */
}
