/**
 * Every resource a guest can hold has its bound here; reaching it is a clean error to that guest alone.
 * Names end in Max or Min with the unit before.
 */

/** Largest msize the server agrees to. The kernel's TCP client asks for at most 1 MiB, virtio for 512,000. */
export const msizeBytesMax = 4 * 1024 * 1024;
/** The largest msize when nobody said otherwise: what Linux asks for at most, so that more would help nobody. */
export const msizeBytesDefault = 1024 * 1024;
/** Smallest msize: the Linux client refuses to mount below it (net/9p/client.c). */
export const msizeBytesMin = 4096;
/** Largest frame before a version was agreed on: only a small Tversion is legal there. */
export const unversionedFrameBytesMax = 8192;
/** P9_IOHDRSZ: what the client keeps free of msize for the head of a read or a write. */
export const ioHeaderBytes = 24;
/** MAXWELEM of walk(5). */
export const walkStepsMax = 16;
/** XATTR_SIZE_MAX and XATTR_LIST_MAX of limits.h. */
export const xattrValueBytesMax = 65536;
export const xattrNameBytesMax = 255;
/** PATH_MAX − 1: the longest target of a symlink. */
export const symlinkTargetBytesMax = 4095;
/** Bytes of a lock's client_id that are kept and echoed; Rgetlock must fit the client's 4 KiB reply buffer. */
export const lockClientIdBytesMax = 255;

/** Fids one session may hold. Linux keeps one per cached dentry per user. */
export const fidsPerSessionMax = 4_000_000;
/** Requests one session may have in flight; beyond it the transport stops reading until some are answered. */
export const requestsPerSessionMax = 4096;
/** Connections a server serves at a time. Each holds a descriptor and some memory of its own. */
export const connectionsMax = 1024;
/** Bytes of reads that wait for a slow file system; beyond it the transport stops reading, too. */
export const readBytesPerSessionMax = 32 * 1024 * 1024;
/** Locks one session may hold or wait for. */
export const locksPerSessionMax = 100_000;
/** Locks one session may hold or wait for on one file: each request on the file looks at all of them. */
export const locksPerFileMax = 4096;
/** Bytes of xattr values that one session may have being written at a time. */
export const xattrBytesPerSessionMax = 16 * 1024 * 1024;

/** Processes of one server; more than a machine has processors help nobody. */
export const workersMax = 256;
