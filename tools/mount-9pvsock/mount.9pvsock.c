/*
 * mount.9pvsock: mounts a 9P file system whose server is reached over AF_VSOCK. mount(8) runs it for `-t 9pvsock` and for
 * lines of fstab. The kernel's 9p has no vsock transport of its own, but takes a connected descriptor (trans=fd), which it
 * keeps; so this program connects, mounts, and is gone. README.md is its manual.
 *
 * Called as mount(8) says: mount.9pvsock SPEC DIRECTORY [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE].
 */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* mount(8), EXIT STATUS. */
enum { WRONG_CALL = 1, SYSTEM_ERROR = 2, MOUNT_FAILED = 32 };

/* Some devices do not answer when nothing listens, so one attempt of many must be short; the only one need not. */
enum {
  PORT_DEFAULT = 564,
  RETRY_MS = 250,
  ATTEMPT_SECONDS = 10,
  ATTEMPT_OF_MANY_SECONDS = 2,
  RETRY_SECONDS_MAX = 86400,
  DATA_MAX = 4096
};

struct request {
  unsigned long flags;
  unsigned retry_seconds;
  bool fake, verbose, versioned;
  char data[DATA_MAX]; /* for the kernel; it takes one page */
};

static void fail(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("mount.9pvsock: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(status);
}

/* What mount(8) knows of every file system and mount(2) takes as a flag. */
static const struct {
  const char *name;
  unsigned long set, clear;
} generic[] = {
    {"rw", 0, MS_RDONLY},
    {"ro", MS_RDONLY, 0},
    {"suid", 0, MS_NOSUID},
    {"nosuid", MS_NOSUID, 0},
    {"dev", 0, MS_NODEV},
    {"nodev", MS_NODEV, 0},
    {"exec", 0, MS_NOEXEC},
    {"noexec", MS_NOEXEC, 0},
    {"async", 0, MS_SYNCHRONOUS},
    {"sync", MS_SYNCHRONOUS, 0},
    {"dirsync", MS_DIRSYNC, 0},
    {"atime", 0, MS_NOATIME},
    {"noatime", MS_NOATIME, 0},
    {"diratime", 0, MS_NODIRATIME},
    {"nodiratime", MS_NODIRATIME, 0},
    {"relatime", MS_RELATIME, 0},
    {"norelatime", 0, MS_RELATIME},
    {"strictatime", MS_STRICTATIME, 0},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"lazytime", MS_LAZYTIME, 0},
    {"nolazytime", 0, MS_LAZYTIME},
    {"nosymfollow", MS_NOSYMFOLLOW, 0},
    {"symfollow", 0, MS_NOSYMFOLLOW},
    {"silent", MS_SILENT, 0},
    {"loud", 0, MS_SILENT},
    {"remount", MS_REMOUNT, 0},
    {"defaults", 0, 0},
    /* Words for mount(8) and for the start of the system, which the kernel must not see. */
    {"user", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0},
    {"users", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0},
    {"owner", MS_NOSUID | MS_NODEV, 0},
    {"group", MS_NOSUID | MS_NODEV, 0},
    {"nouser", 0, 0},
    {"nousers", 0, 0},
    {"noowner", 0, 0},
    {"nogroup", 0, 0},
    {"auto", 0, 0},
    {"noauto", 0, 0},
    {"fail", 0, 0},
    {"nofail", 0, 0},
    {"_netdev", 0, 0},
};

static bool take_generic(const char *option, unsigned long *flags) {
  for (size_t i = 0; i < sizeof generic / sizeof *generic; i++) {
    if (strcmp(option, generic[i].name) != 0) continue;
    *flags = (*flags & ~generic[i].clear) | generic[i].set;
    return true;
  }
  static const char *const comments[] = {"x-", "X-", "comment=", "user=", "helper=", "uhelper="};
  for (size_t i = 0; i < sizeof comments / sizeof *comments; i++)
    if (strncmp(option, comments[i], strlen(comments[i])) == 0) return true;
  return false;
}

/* A decimal number up to `max`; false for anything else. */
static bool number(const char *text, uint64_t max, uint64_t *value) {
  *value = 0;
  if (*text == 0) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9') return false;
    *value = *value * 10 + (uint64_t)(*text - '0');
    if (*value > max) return false;
  }
  return true;
}

static void append(struct request *request, const char *option) {
  size_t have = strlen(request->data), more = strlen(option) + (have > 0);
  if (have + more >= sizeof request->data) fail(WRONG_CALL, "the options are longer than the kernel takes (a page)");
  if (have > 0) request->data[have++] = ',';
  strcpy(request->data + have, option);
}

static void take_option(struct request *request, const char *option) {
  uint64_t seconds;
  if (take_generic(option, &request->flags)) return;
  if (strncmp(option, "retry=", 6) == 0) {
    if (!number(option + 6, RETRY_SECONDS_MAX, &seconds))
      fail(WRONG_CALL, "%s: it is a number of seconds, at most %d", option, RETRY_SECONDS_MAX);
    request->retry_seconds = (unsigned)seconds;
    return;
  }
  static const char *const ours[] = {"trans=", "rfdno=", "wfdno=", "port="};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (strncmp(option, ours[i], strlen(ours[i])) == 0)
      fail(WRONG_CALL, "%s: leave it out, since the transport is vsock; the port belongs to the device, as in 2:%d",
           option, PORT_DEFAULT);
  if (strncmp(option, "version=", 8) == 0) request->versioned = true;
  append(request, option);
}

/* Cuts a list at its commas; one between double quotes belongs to a value (mount(8), context=). */
static void take_options(struct request *request, char *list) {
  while (list != NULL) {
    bool quoted = false;
    char *end = list;
    for (; *end && (quoted || *end != ','); end++)
      if (*end == '"') quoted = !quoted;
    char *next = *end ? end + 1 : NULL;
    *end = 0;
    if (*list) take_option(request, list);
    list = next;
  }
}

/* CID or CID:PORT. */
static struct sockaddr_vm address_of(const char *spec) {
  char cid_text[16] = "";
  uint64_t cid, port = PORT_DEFAULT;
  size_t length = strcspn(spec, ":");
  if (length < sizeof cid_text) memcpy(cid_text, spec, length);
  bool right = number(cid_text, UINT32_MAX - 1, &cid);
  if (right && spec[length] == ':') right = number(spec + length + 1, UINT32_MAX - 1, &port);
  if (!right) fail(WRONG_CALL, "%s: the device is CID or CID:PORT; the host is CID 2, as in 2:%d", spec, PORT_DEFAULT);
  return (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = (uint32_t)cid, .svm_port = (uint32_t)port};
}

static const char *connect_advice(int error, uint32_t cid) {
  switch (error) {
    case EAFNOSUPPORT: return ": this kernel has no vsock (modprobe vmw_vsock_virtio_transport)";
    case ENODEV:
    case ENETUNREACH:
    case EADDRNOTAVAIL:
      return cid == VMADDR_CID_LOCAL ? ": there is no loop (modprobe vsock_loopback)"
                                     : ": this guest has no vsock device, or not its driver (modprobe "
                                       "vmw_vsock_virtio_transport)";
    case ECONNREFUSED:
    case ECONNRESET: return ": nothing listens there; start the server, or let this wait for it with -o retry=SECONDS";
    case ETIMEDOUT:
    case EHOSTUNREACH: return ": nobody answers; start the server, or let this wait for it with -o retry=SECONDS";
    default: return "";
  }
}

/* One attempt: a connected descriptor, or -errno. */
static int connect_once(const struct sockaddr_vm *address, time_t seconds) {
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  struct timeval patience = {.tv_sec = seconds};
  setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof patience);
  if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0) return fd;
  int error = errno;
  close(fd);
  return -error;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int connect_to(const struct request *request, const char *spec) {
  const struct sockaddr_vm address = address_of(spec);
  double end = now() + request->retry_seconds;
  time_t patience = request->retry_seconds > 0 ? ATTEMPT_OF_MANY_SECONDS : ATTEMPT_SECONDS;
  for (bool said = false;; said = true) {
    int fd = connect_once(&address, patience);
    if (fd >= 0) return fd;
    if (now() >= end)
      fail(MOUNT_FAILED, "CID %u, port %u: %s%s", address.svm_cid, address.svm_port, strerror(-fd),
           connect_advice(-fd, address.svm_cid));
    if (request->verbose && !said)
      fprintf(stderr, "mount.9pvsock: %s; trying for %u s\n", strerror(-fd), request->retry_seconds);
    usleep(RETRY_MS * 1000);
  }
}

static const char *mount_advice(int error) {
  switch (error) {
    case ENODEV: return ": this kernel has no 9p (modprobe 9p)";
    case ENOENT: return ": there is no such directory here, or no export of that name (aname=) there";
    case EPERM: return ": only root may mount";
    case EINVAL:
    case EPROTONOSUPPORT:
      return ": an option is wrong, or the kernel has no 9pnet_fd (modprobe 9pnet_fd); dmesg says which";
    case EIO:
      return ": what answers there does not speak 9P2000.L, has hung up, or cannot read its disk: its log says which";
    case ECONNRESET:
    case EPIPE:
    case EREMOTEIO:
    case EFAULT: return ": what answers there does not speak 9P2000.L, or has hung up";
    default: return "";
  }
}

static void do_mount(struct request *request, const char *spec, const char *directory) {
  int fd = -1;
  if (!(request->flags & MS_REMOUNT)) {
    fd = connect_to(request, spec);
    char transport[64];
    snprintf(transport, sizeof transport, "trans=fd,rfdno=%d,wfdno=%d", fd, fd);
    append(request, transport);
    if (!request->versioned) append(request, "version=9p2000.L");
  }
  if (request->verbose) printf("mount.9pvsock: %s on %s with %s\n", spec, directory, request->data);
  /* The kernel takes descriptors of its own: this one ends with this process. */
  if (mount(spec, directory, "9p", request->flags, request->data) != 0)
    fail(MOUNT_FAILED, "%s on %s: %s%s", spec, directory, strerror(errno), mount_advice(errno));
}

int main(int count, char **arguments) {
  static struct request request;
  const char *usage = "usage: mount.9pvsock CID[:PORT] DIRECTORY [-sfnv] [-o OPTION,…]";
  if (count < 3 || arguments[1][0] == '-' || arguments[2][0] == '-') fail(WRONG_CALL, "%s", usage);
  const char *spec = arguments[1], *directory = arguments[2];
  optind = 3;
  for (int option; (option = getopt(count, arguments, "sfnvN:o:t:")) != -1;) {
    if (option == 'o') take_options(&request, optarg);
    else if (option == 'f') request.fake = true;
    else if (option == 'v') request.verbose = true;
    /* 9p ignores options that it does not know anyway (-s), there is no mtab (-n), and the kernel's type is always 9p (-t). */
    else if (option == 'N') fail(WRONG_CALL, "-N: enter the namespace first (nsenter -t PID -m mount …)");
    else if (option == '?') fail(WRONG_CALL, "%s", usage);
  }
  if (optind < count) fail(WRONG_CALL, "%s", usage);
  address_of(spec);
  if (request.fake) return 0;
  do_mount(&request, spec, directory);
  return 0;
}
