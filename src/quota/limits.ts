/**
 * The limits of every resource that a guest can hold. A guest that reaches one gets an error; others are not affected. First
 * the fixed limits, from the protocol and Linux; then the configurable ones (`Limits`).
 */

/** Largest configurable msize. Linux asks for at most 1 MiB over TCP and 512,000 bytes over virtio. */
export const msizeBytesMax = 4 * 1024 * 1024;
/** Default of the largest msize that the server agrees to: the most that Linux asks for. */
export const msizeBytesDefault = 1024 * 1024;
/** Smallest msize: the Linux client refuses to mount below it (net/9p/client.c). */
export const msizeBytesMin = 4096;
/** Largest frame before Tversion, when only a small Tversion is legal. */
export const unversionedFrameBytesMax = 8192;
/** P9_IOHDRSZ (include/net/9p/9p.h): the part of msize that the client reserves for the head of a read or write. */
export const ioHeaderBytes = 24;
/** MAXWELEM of walk(5). */
export const walkStepsMax = 16;
/** XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h. */
export const xattrValueBytesMax = 65536;
/** XATTR_NAME_MAX of linux/limits.h. */
export const xattrNameBytesMax = 255;
/** PATH_MAX − 1: the longest target of a symlink. */
export const symlinkTargetBytesMax = 4095;
/** Bytes of a lock's client_id that are stored and returned; Rgetlock must fit the client's 4 KiB reply buffer. */
export const lockClientIdBytesMax = 255;

/** Worker processes of one server. More than the machine has processors are of no use. */
export const workersMax = 256;

/**
 * Configurable limits: `--limit NAME=VALUE` and `ServerOptions.limits`. docs/limits.md has the error of each.
 *
 * Held resources have a limit for each session and one for all sessions of an export. When the latter is reached, a session
 * below an even share still gets more (quota/session-quota.ts), so no session can take everything.
 */
export interface Limits {
  /** Open connections of a server. Each costs a descriptor and some memory. */
  readonly connections: number;
  /** Guests with a worker process of their own at a time (`--isolation guest`). */
  readonly guests: number;
  /** Seconds for which such a worker stays without a connection. */
  readonly workerIdleSeconds: number;
  /** Open connections of one peer (`peerKey`); by default half of `sessionsPerExport`, so that other peers can attach. */
  readonly connectionsPerPeer: number;
  /** Seconds that a connection may be without a version. */
  readonly versionSeconds: number;
  /** Seconds that a connection may be without an attach since it connected or agreed to a new version. */
  readonly attachSeconds: number;
  /** Sessions whose first attach was to this export. */
  readonly sessionsPerExport: number;
  /** Linux keeps a fid for each cached dentry and user. */
  readonly fidsPerSession: number;
  readonly fidsPerExport: number;
  /** Open files and directories. */
  readonly opensPerSession: number;
  readonly opensPerExport: number;
  /** Running requests; at the limit the transport stops reading. Divided evenly when there are many sessions. */
  readonly requestsPerSession: number;
  readonly requestsInAll: number;
  /** Bytes of payloads and replies of running requests; enforced and divided in the same way. */
  readonly bytesPerSession: number;
  readonly bytesInAll: number;
  /** Bytes of replies that a peer has not read; enforced and divided in the same way. */
  readonly unreadBytesPerSession: number;
  readonly unreadBytesInAll: number;
  /** Bytes of xattr values held by fids: read (Txattrwalk) or being written (Txattrcreate). */
  readonly xattrBytesPerSession: number;
  readonly xattrBytesPerExport: number;
  /** Locks held and lock requests not yet answered. */
  readonly locksPerSession: number;
  readonly locksPerExport: number;
  /** Locks of one session on one file: each lock request on the file checks all of them. */
  readonly locksPerFile: number;
  readonly waitingLocksPerSession: number;
}

const mebibyte = 1024 * 1024;

export const defaultLimits: Limits = {
  connections: 1024,
  guests: 256,
  workerIdleSeconds: 60,
  connectionsPerPeer: 512,
  versionSeconds: 10,
  attachSeconds: 30,
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

/** Validates limits; returns one text for each problem. */
export function limitFaults(limits: Partial<Limits>): string[] {
  return Object.entries(limits).flatMap(([name, value]) => {
    if (!Object.hasOwn(defaultLimits, name))
      return [`there is no limit "${name}": see docs/limits.md for the names`];
    return Number.isSafeInteger(value) && value >= 1
      ? []
      : [`the limit ${name} must be a positive integer, not ${value}`];
  });
}

/**
 * Pool threads of one file system. A file system that hangs blocks its own threads only. A thread costs about 20 KiB and ends
 * when idle.
 */
export const poolThreadsPerVolumeMax = 256;
/** Pool threads of one file system that one session may use at a time (fsync and locks count separately); further calls wait. */
export const poolCallsPerSessionMax = 16;
