/* What musl 1.2.5 lacks of what the addon uses. Included before every file when it is compiled for musl. */
#define statx musl_statx
#define statx_timestamp musl_statx_timestamp
#include <sys/stat.h>
#undef statx
#undef statx_timestamp

#include <dirent.h>
#include <linux/stat.h> /* struct statx with stx_mnt_id */
#include <sys/syscall.h>
#include <unistd.h>

#define statx(fd, name, flags, mask, into) syscall(SYS_statx, fd, name, flags, mask, into)
/* Its struct dirent is the kernel's linux_dirent64. */
#define dirent64 dirent
#define getdents64(fd, into, bytes) syscall(SYS_getdents64, fd, into, bytes)
