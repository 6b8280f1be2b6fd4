/**
 * Every resource a guest can hold has its bound here; reaching it is a clean error to that guest alone. First those that the
 * protocol or Linux gives, whose names end in Max or Min with the unit before; then those that can be set.
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

/** Processes of one server; more than a machine has processors help nobody. */
export const workersMax = 256;

/**
 * What guests may hold and do, where the one who serves may have other needs: `--limit NAME=VALUE` and `ServerOptions.limits`
 * take each by its name. docs/limits.md says what a guest sees that reaches one.
 *
 * What sessions hold has a bound for each and one for all sessions of an export. When all is taken, a session that has less than
 * an even share still gets more (quota/session-quota.ts), so that nobody can take everything.
 */
export interface Limits {
  /** Connections a server serves at a time. Each holds a descriptor and some memory of its own. */
  readonly connections: number;
  /** Of those, from one machine, address or user; fewer than an export has places, so that others find one. */
  readonly connectionsPerPeer: number;
  /** Seconds a connection may be without a version. */
  readonly versionSeconds: number;
  /** Sessions whose first attach was to this export. */
  readonly sessionsPerExport: number;
  /** Linux keeps a fid per cached dentry per user. */
  readonly fidsPerSession: number;
  readonly fidsPerExport: number;
  /** Files and directories that are open. */
  readonly opensPerSession: number;
  readonly opensPerExport: number;
  /** Requests that run; beyond it the transport stops reading until some are answered. Shared out evenly when there are many. */
  readonly requestsPerSession: number;
  readonly requestsInAll: number;
  /** Bytes of payloads and replies of requests that run, in the same way. */
  readonly bytesPerSession: number;
  readonly bytesInAll: number;
  /** Bytes of replies that a peer leaves unread; beyond it the transport stops reading. Shared out in the same way. */
  readonly unreadBytesPerSession: number;
  readonly unreadBytesInAll: number;
  /** Bytes of xattr values that were read or are being written. */
  readonly xattrBytesPerSession: number;
  readonly xattrBytesPerExport: number;
  /** Locks that are held or waited for. */
  readonly locksPerSession: number;
  readonly locksPerExport: number;
  /** Of one session on one file: each request on the file looks at all of them. */
  readonly locksPerFile: number;
  /** Requests of one session for locks that wait until somebody lets go. */
  readonly waitingLocksPerSession: number;
}

const mebibyte = 1024 * 1024;

export const defaultLimits: Limits = {
  connections: 1024,
  connectionsPerPeer: 512,
  versionSeconds: 10,
  sessionsPerExport: 1024,
  fidsPerSession: 4_000_000,
  fidsPerExport: 16_000_000,
  opensPerSession: 262_144,
  opensPerExport: 1_048_576,
  requestsPerSession: 4096,
  requestsInAll: 65_536,
  bytesPerSession: 32 * mebibyte,
  bytesInAll: 512 * mebibyte,
  unreadBytesPerSession: 4 * mebibyte,
  unreadBytesInAll: 256 * mebibyte,
  xattrBytesPerSession: 16 * mebibyte,
  xattrBytesPerExport: 128 * mebibyte,
  locksPerSession: 100_000,
  locksPerExport: 400_000,
  locksPerFile: 4096,
  waitingLocksPerSession: 4096,
};

/** What is wrong with these limits: each fault with what to do. */
export function limitFaults(limits: Partial<Limits>): string[] {
  return Object.entries(limits).flatMap(([name, value]) => {
    if (!Object.hasOwn(defaultLimits, name))
      return [`there is no limit "${name}": docs/limits.md has their names`];
    return Number.isSafeInteger(value) && value >= 1
      ? []
      : [`the limit ${name} is a whole number from 1 on, not ${value}`];
  });
}

/**
 * Threads that may wait for one file system. One that hangs keeps all of its own and none of another's; each costs some 20
 * KiB, and a thread that has nothing to do ends.
 */
export const poolThreadsPerVolumeMax = 256;
/** Of those, how many one session's calls may keep at a time (fsync and locks count apart); its further calls wait. */
export const poolCallsPerSessionMax = 16;
