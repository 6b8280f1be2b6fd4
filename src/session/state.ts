import type { Node } from '#backend/tree.ts';
import { stampOf } from '#backend/tree.ts';
import type { Attr } from '#base/attr.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import { dataReplyHeadBytes, P9_STATS_BASIC } from '#protocol/constants.ts';
import type { Qid } from '#protocol/kinds.ts';
import { ioHeaderBytes, type Limits } from '#quota/limits.ts';
import { SessionQuota } from '#quota/session-quota.ts';
import type { ExportEntry, ExportLookup } from './attachment.ts';
import { Fids } from './fids.ts';
import { LockClient } from './locks/lock-client.ts';
import { Versions } from './versions.ts';

/** The unit of the client's page cache; its requests shall be multiples of it. */
const pageBytes = 4096;

/** What a session keeps between requests, and what handlers may ask of it. */
export abstract class SessionState {
  readonly exports: ExportLookup;
  /** The largest msize to agree to. */
  readonly msizeMax: number;
  readonly quota: SessionQuota;
  readonly fids: Fids;
  readonly versions = new Versions();
  readonly locks: LockClient;
  /** 0 before a version was agreed on. */
  msize = 0;

  constructor(exports: ExportLookup, msizeMax: number, limits: Limits) {
    this.exports = exports;
    this.msizeMax = msizeMax;
    this.quota = new SessionQuota(limits);
    this.fids = new Fids(this.quota);
    this.locks = new LockClient(this.quota);
  }

  /** fs/9p before 6.1 refuses a reply as large as msize. */
  get replyBytesMax(): number {
    return this.msize - 1;
  }

  get dataBytesMax(): number {
    return this.replyBytesMax - dataReplyHeadBytes;
  }

  /** Whole pages, so that the client's pieces are; 0 lets the client choose. */
  get iounit(): number {
    const bytes = this.msize - ioHeaderBytes;
    return bytes - (bytes % pageBytes);
  }

  /** Completes attributes that a tree has filled. */
  finishAttr(node: Node, attr: Attr): Attr {
    attr.qidVersion = this.versionOf(node, attr);
    attr.bytes[0] = P9_STATS_BASIC & 0xff; // What is in `valid` is true, whatever was asked for.
    attr.bytes[1] = attr.bytes[1]! | (P9_STATS_BASIC >> 8);
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

  /** The client has attached to an export. */
  abstract attached(to: ExportEntry, uname: string, uid: number): void;
  /** What Tflush does; resolves when Rflush may be sent, or is undefined when that is now. */
  abstract flush(oldtag: number): Promise<Record<string, never>> | undefined;
  /**
   * Forgets everything, for Tversion: what still runs is not answered any more. Resolves when nothing of it can have an effect any
   * more; to false when another Tversion has come meanwhile. A write that hangs is waited for: it might land in what the next
   * session does. Locks that cannot be released and files that cannot be closed only keep others out.
   */
  abstract reset(): MaybePromise<boolean>;
}
