/*
 * Guest memory. Its file belongs to the monitor, which may truncate it: an access to a page beyond the end then
 * raises SIGBUS (mmap(2)). The handler replaces the mapping with anonymous memory, after which the access succeeds;
 * `faults` reports it. System calls on such pages fail with EFAULT and raise no signal.
 *
 * The handler reads the table without the lock: an entry is complete before `live` is set, and is removed by the
 * finalizer of its ArrayBuffer only, when nothing can access the memory.
 */
#include "mapping.h"
#include "syscalls.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

enum { MAPPINGS_MAX = 16384 };

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

/* mmap(2) of a part of a file, shared. Returns the index of the mapping. */
int64_t sys_map(const struct call *c) {
  int64_t at = offset_of(c->wide[0]), bytes = offset_of(c->wide[1]);
  if (at < 0 || bytes < 0) return -EINVAL;
  int flags = MAP_SHARED | MAP_NORESERVE;
  char *start = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, flags, c->number[0], at);
  if (start == MAP_FAILED) return -(int64_t)errno;
  madvise(start, (size_t)bytes, MADV_DONTDUMP);
  int64_t index = add_mapping(start, (size_t)bytes);
  if (index < 0) munmap(start, (size_t)bytes);
  return index;
}

char *mapping_start(int index) {
  bool known = index >= 0 && index < atomic_load(&mappings_used) && atomic_load(&mappings[index].live);
  return known ? mappings[index].start : NULL;
}

/* Replaces a mapping with anonymous memory, which releases the guest's memory although views of it still exist. */
int64_t sys_detach(const struct call *c) {
  int index = c->number[0];
  if (!mapping_start(index)) return -EINVAL;
  return replace(&mappings[index]) ? 0 : -(int64_t)errno;
}

/* 1 if SIGBUS has replaced the mapping, else 0; for -1, how many were replaced so far. */
int64_t sys_faults(const struct call *c) {
  int index = c->number[0];
  if (index < 0) return atomic_load(&faults_seen) & INT32_MAX;
  return mapping_start(index) ? atomic_load(&mappings[index].faulted) : -EINVAL;
}

void mapping_end(int index) {
  pthread_mutex_lock(&mutex);
  atomic_store(&mappings[index].live, false);
  munmap(mappings[index].start, mappings[index].bytes);
  pthread_mutex_unlock(&mutex);
}
