/* Constants of the host's headers, and of capabilities(7). Those that older headers lack are defined here. */
#include "syscalls.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif
#ifndef EXFAT_SUPER_MAGIC
#define EXFAT_SUPER_MAGIC 0x2011BAB0
#endif
#ifndef RESOLVE_CACHED /* Linux 5.12; an older kernel answers EINVAL. */
#define RESOLVE_CACHED 0x20
#endif
#define ZFS_SUPER_MAGIC 0x2FC12FC1
#ifndef BCACHEFS_SUPER_MAGIC
#define BCACHEFS_SUPER_MAGIC 0xCA451A4E
#endif

#define ROW(name) {#name, (uint32_t)name},

const struct constant constants[] = {HOST_CONSTANTS};

const int constant_count = sizeof constants / sizeof *constants;
