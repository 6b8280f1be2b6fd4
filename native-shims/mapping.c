/*
 * Guest memory. Its file belongs to the monitor, which may truncate it: an access to a page beyond the end then
 * raises SIGBUS (mmap(2)). The handler replaces the mapping with anonymous memory, after which the access succeeds;
 * `faults` reports it. System calls on such pages fail with EFAULT and raise no signal.
 *
 * A file is mapped over the memory of a SharedArrayBuffer, which V8 unmaps when its last view is collected. `detach` comes before
 * that, and puts anonymous memory back. The handler reads the table without the lock: an entry is complete before `live` is set.
 */
#include "syscalls.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

/* Of all devices. src/transport/vhost-user/windows.ts has the limit of one device. */
enum { MAPPINGS_MAX = 65536 };

static struct mapping {
  char *start;
  size_t bytes;
  atomic_bool live, faulted;
} mappings[MAPPINGS_MAX];

static atomic_int mappings_used;
static atomic_int faults_seen;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;

static bool replace(const struct mapping *mapping) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  return mmap(mapping->start, mapping->bytes, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED;
}

static void on_bus_error(int signal, siginfo_t *info, void *context) {
  uintptr_t at = (uintptr_t)info->si_addr;
  int saved = errno;
  for (int i = 0; i < atomic_load(&mappings_used); i++) {
    struct mapping *mapping = &mappings[i];
    if (!atomic_load(&mapping->live) || at - (uintptr_t)mapping->start >= mapping->bytes) continue;
    if (!replace(mapping)) break;
    atomic_store(&mapping->faulted, true);
    atomic_fetch_add(&faults_seen, 1);
    errno = saved;
    return;
  }
  errno = saved;
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(signal, info, context);
  } else {
    sigaction(SIGBUS, &before, NULL); /* the access is repeated */
  }
}

static void handle_bus_errors(void) {
  struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &before);
}

/* The index of a free entry, or -ENOSPC. */
static int free_index(void) {
  int used = atomic_load(&mappings_used);
  for (int i = 0; i < used; i++) {
    if (!atomic_load(&mappings[i].live)) return i;
  }
  if (used == MAPPINGS_MAX) return -ENOSPC;
  if (used == 0) handle_bus_errors();
  atomic_store(&mappings_used, used + 1);
  return used;
}

static int64_t add_mapping(char *start, size_t bytes) {
  pthread_mutex_lock(&mutex);
  int index = free_index();
  if (index >= 0) {
    mappings[index].start = start;
    mappings[index].bytes = bytes;
    atomic_store(&mappings[index].faulted, false);
    atomic_store(&mappings[index].live, true);
  }
  pthread_mutex_unlock(&mutex);
  return index;
}

/* Bytes from the segment's start to the first multiple of number[0], a power of two. */
int64_t sys_bytes_to_alignment(const struct call *c) {
  return (int64_t)(-(uintptr_t)c->segment->iov_base & ((uintptr_t)(uint32_t)c->number[0] - 1));
}

static void remove_mapping(int64_t index) {
  atomic_store(&mappings[index].live, false);
}

/*
 * mmap(2) of a part of a file, shared, over the pages of the segment. Returns the index of the mapping. On an error the pages are
 * anonymous memory.
 */
int64_t sys_map(const struct call *c) {
  int64_t at = offset_of(c->wide[0]);
  char *start = c->segment->iov_base;
  size_t bytes = c->segment->iov_len;
  if (at < 0 || bytes == 0) return -EINVAL;
  int64_t index = add_mapping(start, bytes);
  if (index < 0) return index;
  int flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED;
  if (mmap(start, bytes, PROT_READ | PROT_WRITE, flags, c->number[0], at) == MAP_FAILED) {
    int64_t failed = -(int64_t)errno;
    replace(&mappings[index]);
    remove_mapping(index);
    return failed;
  }
  madvise(start, bytes, MADV_DONTDUMP);
  return index;
}

static bool is_live(int index) {
  return index >= 0 && index < atomic_load(&mappings_used) && atomic_load(&mappings[index].live);
}

/*
 * Replaces a mapping with anonymous memory, which releases the guest's memory although views of it still exist. Takes as long as
 * the kernel needs to free the file's memory, if this was its last use.
 */
int64_t sys_detach(const struct call *c) {
  int index = c->number[0];
  if (!is_live(index)) return -EINVAL;
  if (!replace(&mappings[index])) return -(int64_t)errno;
  remove_mapping(index);
  return 0;
}

/* 1 if SIGBUS has replaced the mapping, else 0; for -1, how many were replaced so far. */
int64_t sys_faults(const struct call *c) {
  int index = c->number[0];
  if (index < 0) return atomic_load(&faults_seen) & INT32_MAX;
  return is_live(index) ? atomic_load(&mappings[index].faulted) : -EINVAL;
}
