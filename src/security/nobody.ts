/** NONUNAME of attach: no user was named. */
export const noUser = 0xffff_ffff;
/** The overflow ids of the kernel (/proc/sys/kernel/overflowuid): nobody. */
export const nobody = 65534;
