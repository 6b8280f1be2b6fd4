/** NONUNAME: n_uname of a Tattach that names no user. */
export const noUser = 0xffff_ffff;
/** The kernel's overflow uid and gid (/proc/sys/kernel/overflowuid). */
export const nobody = 65534;
