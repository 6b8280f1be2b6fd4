/**
 * (uid_t)-1 and (gid_t)-1: no id. NONUNAME in Tattach; the gid of a new object that follows its directory or user; "leave
 * unchanged" in chown(2); the uid in SO_PEERCRED of a socket that is not AF_UNIX.
 */
export const noId = 0xffff_ffff;
/** The kernel's overflow uid and gid (/proc/sys/kernel/overflowuid). */
export const nobody = 65534;
