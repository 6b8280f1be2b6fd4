/*
 * What glibc 2.28 lacks and the addon calls: getdents64 is of 2.30. Until 2.33 the stat family and mknodat were inline functions of
 * the headers. <stdlib.h> of 2.38 and later takes __isoc23_strtol for strtol. Used where old-glibc.mjs links.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* The structures of both 64-bit architectures are the kernel's. */
HIDDEN int fstatat(int fd, const char *restrict name, struct stat *restrict st, int flags) {
  return (int)syscall(SYS_newfstatat, fd, name, st, flags);
}

HIDDEN int fstat(int fd, struct stat *st) {
  return (int)syscall(SYS_fstat, fd, st);
}

HIDDEN int stat(const char *restrict name, struct stat *restrict st) {
  return fstatat(AT_FDCWD, name, st, 0);
}

/* The lower half of a dev_t is the kernel's, as in glibc's own mknodat. */
HIDDEN int mknodat(int fd, const char *name, mode_t mode, dev_t device) {
  return (int)syscall(SYS_mknodat, fd, name, mode, (unsigned int)device);
}

HIDDEN ssize_t getdents64(int fd, void *into, size_t bytes) {
  return syscall(SYS_getdents64, fd, into, bytes);
}

extern long old_strtol(const char *restrict text, char **restrict end, int base) __asm__("strtol");
long __isoc23_strtol(const char *restrict text, char **restrict end, int base);

HIDDEN long __isoc23_strtol(const char *restrict text, char **restrict end, int base) {
  return old_strtol(text, end, base);
}
