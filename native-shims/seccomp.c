/*
 * The seccomp(2) filter for all threads of a server:
 *
 *   allowed    what Node, V8, libc and the shims call
 *   checks     calls that depend on an argument
 *   fatal      calls that only an attacker would make: the process is killed (SIGSYS)
 *   others     ENOSYS, as on a kernel without the call: libraries then fall back to older calls
 *
 * The filter is a binary search by number, about 8 comparisons deep. From Linux 5.11 on the kernel caches which
 * numbers are allowed with any arguments, and runs no filter for them.
 */
#include "closer.h"
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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#define ARCHITECTURE 0
#endif

/* One number a line would be 170 lines more. */
/* clang-format off */
/* The same on every architecture but Alpha; older kernel headers lack some. */
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
    SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_utimensat, SYS_ftruncate, SYS_truncate, SYS_fsync, SYS_fdatasync,
    SYS_lseek, SYS_preadv2, SYS_pwritev2,
    SYS_fadvise64, SYS_flock, SYS_faccessat, CALL_FACCESSAT2, SYS_getcwd, SYS_umask, SYS_listxattr, SYS_flistxattr,
    SYS_fsetxattr, SYS_removexattr, SYS_fremovexattr, CALL_SETXATTRAT, CALL_GETXATTRAT, CALL_LISTXATTRAT,
    CALL_REMOVEXATTRAT,
    /* sockets that exist already */
    SYS_listen, SYS_accept, SYS_getsockopt, SYS_getsockname, SYS_getpeername, SYS_epoll_create1,
    CALL_EPOLL_PWAIT2, SYS_ppoll, SYS_eventfd2, SYS_pipe2, SYS_dup, SYS_dup3, CALL_CLOSE_RANGE,
    /* memory, threads, signals */
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_mremap, SYS_brk, SYS_membarrier, SYS_pkey_alloc, SYS_pkey_free,
    SYS_pkey_mprotect, SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_set_tid_address, SYS_prctl,
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_getparam, SYS_sched_getscheduler, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_restart_syscall, SYS_exit,
    SYS_exit_group,
    /* time and identity */
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_getpid, SYS_gettid,
    SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getgroups, SYS_capget, SYS_getrandom, SYS_uname,
    SYS_sysinfo, SYS_getrusage, SYS_times, SYS_wait4,
};

/* For `passthrough`: to take the ids of a guest's user, and to set owners and modes. `mapped` needs none of them. */
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

/* How ninepd-launch confines what it starts. */
static const int for_launch[] = {
    SYS_mount, SYS_umount2, SYS_pivot_root, CALL_OPEN_TREE, CALL_MOVE_MOUNT, CALL_FSOPEN, CALL_FSCONFIG, CALL_FSMOUNT,
    CALL_MOUNT_SETATTR, SYS_unshare, SYS_setns,
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

/* clang-format on */

enum verdict { NEXT, ALLOW, REFUSE, KILL, UNKNOWN, CHECKED };

/*
 * `equal` if the argument under the mask is `value`, else `other`. NEXT: the next row of the same call decides. Only
 * the low 32 bits are compared: all these arguments are int in the kernel.
 */
struct check {
  int number, argument;
  uint32_t mask, value;
  enum verdict equal, other;
};

enum {
  NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
};
/* Older headers lack these. glibc uses TCGETS2 and TCSETS2 from 2.42 on. */
enum { GET_SEALS = 1034, OFD_GETLK = 36, OFD_SETLK, OFD_SETLKW };
#define TERMINAL_GET2 0x802c542aU
#define TERMINAL_SET2 0x402c542bU
#define ALL UINT32_MAX

static const struct check checks[] = {
    /* Threads, and the children of child.c, which share the signal handlers; no other processes. */
    {SYS_clone, 0, CLONE_SIGHAND | NAMESPACES, CLONE_SIGHAND, ALLOW, KILL},
    /* What Node uses for sockets, files and terminals. Not terminal input (TIOCSTI), FIFREEZE, and the receiver of signals
       (FIOSETOWN). */
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
    /* Not F_SETOWN and F_SETSIG, with which the kernel signals any process; not F_SETLEASE and F_NOTIFY. */
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
    /* SHUT_RD turns a TCP listener into a socket that can connect, which sendto(2) with MSG_FASTOPEN does. */
    {SYS_shutdown, 1, ALL, SHUT_WR, ALLOW, REFUSE},
    {SYS_sendto, 3, MSG_FASTOPEN, 0, ALLOW, REFUSE},
    {SYS_sendmsg, 2, MSG_FASTOPEN, 0, ALLOW, REFUSE},
    /* Keep-alive and Nagle's algorithm: levels 1 (SOL_SOCKET) and 6 (TCP). Not SO_PASSRIGHTS. */
    {SYS_setsockopt, 1, ALL, IPPROTO_IP, REFUSE, NEXT},
    {SYS_setsockopt, 1, ~7U, 0, NEXT, REFUSE},
    {SYS_setsockopt, 2, ALL, TCP_NODELAY, ALLOW, NEXT},
    {SYS_setsockopt, 2, ALL, TCP_KEEPIDLE, ALLOW, NEXT},
    {SYS_setsockopt, 2, ALL, TCP_KEEPINTVL, ALLOW, NEXT},
    {SYS_setsockopt, 2, ALL, TCP_KEEPCNT, ALLOW, NEXT},
    {SYS_setsockopt, 2, ALL, SO_KEEPALIVE, ALLOW, REFUSE},
    {SYS_prlimit64, 0, ALL, 0, ALLOW, REFUSE}, /* limits of this process */
};

/* For `none`, whose modes are the host's: without S_ISUID, which would lend the server's user to everybody. */
static const struct check for_modes[] = {
    {SYS_fchmod, 1, S_ISUID, 0, ALLOW, REFUSE},
    {SYS_fchmodat, 2, S_ISUID, 0, ALLOW, REFUSE},
    {CALL_FCHMODAT2, 2, S_ISUID, 0, ALLOW, REFUSE},
#ifdef __x86_64__
    {SYS_chmod, 1, S_ISUID, 0, ALLOW, REFUSE},
#endif
};

enum { CALLS = 512, CODE_MAX = 2048 };

/* The verdict for numbers from `from` to the next range. */
struct range {
  uint32_t from;
  enum verdict verdict;
};

struct program {
  uint8_t verdicts[CALLS];
  struct check own[8]; /* of this process or role */
  size_t own_count;
  struct range ranges[CALLS + 2];
  struct sock_filter code[CODE_MAX];
  size_t length;
};

static void add(struct program *p, struct sock_filter code) {
  if (p->length < CODE_MAX) p->code[p->length] = code;
  p->length++; /* `emit` checks it */
}

static void load(struct program *p, size_t offset) {
  add(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void jump_if_equal(struct program *p, uint32_t value, uint8_t equal, uint8_t other) {
  add(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, equal, other));
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
  bool only_other = check->equal == NEXT;
  jump_if_equal(p, check->value, only_other, !only_other);
  if (!only_other) decide(p, check->equal);
  if (check->other != NEXT) decide(p, check->other);
}

/* A check of this process or role replaces those of `checks`. */
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

/* A balanced tree. The jump to the upper half is unconditional, since a conditional one reaches 255 instructions. */
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

/* Generates the program. `fallback` is the verdict for numbers without one. */
static int64_t emit(struct program *p, enum verdict fallback) {
  size_t count = 0;
  for (uint32_t number = 0; number < CALLS; number++) {
    enum verdict verdict = p->verdicts[number] == NEXT ? fallback : (enum verdict)p->verdicts[number];
    bool continues = count > 0 && verdict != CHECKED && p->ranges[count - 1].verdict == verdict;
    if (!continues) p->ranges[count++] = (struct range){number, verdict};
  }
  p->ranges[count++] = (struct range){CALLS, fallback};
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

static void server_calls(struct program *p, int needs) {
  uint32_t self = (uint32_t)getpid();
  LIST(p, for_processes, KILL);
  LIST(p, for_users, needs & SECCOMP_NEEDS_USERS ? ALLOW : REFUSE);
  LIST(p, allowed, ALLOW);
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) p->verdicts[checks[i].number] = CHECKED;
  p->verdicts[SYS_recvmsg] = needs & SECCOMP_NEEDS_DESCRIPTORS ? ALLOW : REFUSE;
  bool modes = (needs & (SECCOMP_NEEDS_USERS | SECCOMP_NEEDS_MODES)) == SECCOMP_NEEDS_MODES;
  for (size_t i = 0; modes && i < sizeof for_modes / sizeof *for_modes; i++) own_check(p, for_modes[i]);
  own_check(p, (struct check){SYS_tgkill, 0, ALL, self, ALLOW, REFUSE}); /* abort(3) */
  own_check(p, (struct check){SYS_kill, 0, ALL, self, ALLOW, REFUSE});
}

/* A NULL program is EFAULT where the kernel has filters (seccomp(2)). */
static bool has_filters(void) {
  return ARCHITECTURE != 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) != 0 && errno == EFAULT;
}

/*
 * Installs the filter of a role (SECCOMP_ROLE_*) on all threads: a server, with SECCOMP_NEEDS_* in the second number;
 * a launcher of workers, for which all but fatal calls are allowed; a confiner, whose workers confine themselves before they
 * start (ninepd-launch), which may also mount and enter namespaces; or a program to be executed, for which only
 * io_uring is denied, since libuv sets one up before any JavaScript runs. clone3(2) gets ENOSYS, because its flags
 * are in memory that a filter cannot read; libc then calls clone(2). -ENOSYS only if the kernel or architecture has
 * no filters; -EBUSY if a thread has a filter of its own.
 */
int64_t sys_install_seccomp(const struct call *c) {
  int role = c->number[0];
  static struct program p;
  if (!has_filters()) return -ENOSYS;
  p = (struct program){.length = 0};
  if (role != SECCOMP_ROLE_PRE_EXEC) {
    LIST(&p, fatal, KILL);
    p.verdicts[CALL_CLONE3] = UNKNOWN;
  }
  if (role == SECCOMP_ROLE_CONFINER) LIST(&p, for_launch, ALLOW);
  if (role == SECCOMP_ROLE_SERVER) server_calls(&p, c->number[1]);
  if (role == SECCOMP_ROLE_LAUNCHER || role == SECCOMP_ROLE_CONFINER)
    own_check(&p, (struct check){SYS_clone, 0, NAMESPACES, 0, ALLOW, KILL});
  if (role != SECCOMP_ROLE_SERVER) p.verdicts[SYS_io_uring_setup] = UNKNOWN;
  int64_t done = emit(&p, role == SECCOMP_ROLE_SERVER ? UNKNOWN : ALLOW);
  if (done < 0) return done;
  struct sock_fprog program = {.len = (unsigned short)p.length, .filter = p.code};
  closer_stop(); /* the filter applies to threads, not to children */
  done = RESULT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
  if (done == 0) pool_renew();
  if (done == -ENOSYS) return -EINVAL;
  return done > 0 ? -EBUSY : done;
}
