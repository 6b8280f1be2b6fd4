import type { Node, SessionContext } from '#backend/tree.ts';
import { type Attr, stampOf } from '#base/attr.ts';
import { P9_STATS_BASIC } from '#base/layout.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import { dataReplyHeadBytes } from '#protocol/constants.ts';
import type { Qid } from '#protocol/kinds.ts';
import { ioHeaderBytes, type Limits } from '#quota/limits.ts';
import { SessionQuota } from '#quota/session-quota.ts';
import type { ExportEntry, ExportLookup } from './attachment.ts';
import { Fids } from './fids.ts';
import { LockClient } from './locks/lock-client.ts';
import { Versions } from './versions.ts';

/** Page size of the client's page cache. */
const pageBytes = 4096;

/** Number of queues given out. */
let queues = 0;

/** State of a session between requests, and the operations that handlers may call. */
export abstract class SessionState {
  readonly exports: ExportLookup;
  /** The largest msize that Rversion offers. */
  readonly msizeMax: number;
  readonly quota: SessionQuota;
  readonly fids: Fids;
  readonly versions = new Versions();
  readonly locks: LockClient;
  readonly context: SessionContext;
  /** The negotiated msize in bytes; 0 without a version. */
  msize = 0;

  constructor(exports: ExportLookup, msizeMax: number, limits: Limits) {
    this.exports = exports;
    this.msizeMax = msizeMax;
    this.quota = new SessionQuota(limits);
    this.fids = new Fids(this.quota);
    this.locks = new LockClient(this.quota);
    this.context = { observer: this.versions, pins: this.quota.pinnedFds, queue: ++queues };
  }

  /** One less than msize: fs/9p before Linux 6.1 rejects a reply of exactly msize bytes. */
  get replyBytesMax(): number {
    return this.msize - 1;
  }

  get dataBytesMax(): number {
    return this.replyBytesMax - dataReplyHeadBytes;
  }

  /** Whole pages, so that the client splits I/O at pages. 0 lets the client choose. */
  get iounit(): number {
    const bytes = this.msize - ioHeaderBytes;
    return bytes - (bytes % pageBytes);
  }

  /** Sets qid.version, `valid` and blksize (a multiple of the host's that fits msize) after `Tree.stat`. */
  finishAttr(node: Node, attr: Attr): Attr {
    attr.qidVersion = this.versionOf(node, attr);
    attr.valid |= P9_STATS_BASIC; // Set whatever request_mask says: all basic fields are filled.
    const host = attr.blksize || pageBytes;
    const room = this.msize - ioHeaderBytes;
    attr.blksize = room < host ? host : room - (room % host);
    return attr;
  }

  versionOf(node: Node, attr: Attr): number {
    return this.versions.versionOf(node, stampOf(attr), attr.asked);
  }

  qidOf(node: Node, attr: Attr): Qid {
    return {
      type: attr.qidType,
      version: this.versionOf(node, attr),
      pathLow: node.pathLow,
      pathHigh: node.pathHigh,
    };
  }

  abstract attached(to: ExportEntry, uname: string, uid: number): void;
  /** Implements Tflush. Resolves when Rflush may be sent; undefined means now. */
  abstract flush(oldtag: number): Promise<Record<string, never>> | undefined;
  /**
   * Resets the session for Tversion: drops all requests, releases fids and locks. Resolves when no old request can have an
   * effect; to false if another Tversion arrived meanwhile. Waits without limit for a hanging write, which could change data
   * of the new session, but only `flushWaitMs` for locks and closes, which at worst block others.
   */
  abstract reset(): MaybePromise<boolean>;
}
