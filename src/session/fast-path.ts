/**
 * The messages that a client sends most, read and answered by hand. By the table one of them costs two to three times as
 * much, most of it for objects that stand for a few bytes of the wire.
 *
 * Each function does what decoder, handler and encoder of its message do together, for a request that is well formed and
 * nothing special. For any other it returns undefined with nothing done, and the request goes by the table, which says what
 * is wrong with it. `test/unit/session/fast-path.test.ts` holds the two ways against each other.
 */

import type { Node } from '#backend/tree.ts';
import { Errno } from '#base/errno.ts';
import type { Name } from '#base/name.ts';
import { headerBytes, writeHeadBytes } from '#protocol/constants.ts';
import { lerror, type Op, operations, type RMessage } from '#protocol/operations.ts';
import type { Exchange } from './exchange.ts';
import { Fid, plain } from './fids.ts';
import { files } from './handlers/io.ts';
import { opening } from './handlers/open.ts';
import { walkLater } from './handlers/walk.ts';
import { stepAt } from './name-cache.ts';
import type { Session } from './session.ts';

/** The exchange was committed. */
export const answered = Symbol('answered');
type Reply = RMessage<Op> | Errno;
/** What is left to be done: nothing, to answer with a reply that is there or comes, or everything. */
export type FastReply = typeof answered | Reply | Promise<Reply> | undefined;

/** There is none, but Rlerror would be its reply. */
const Tlerror = lerror.type - 1;
const Tlopen = operations.lopen.type;
const Tgetattr = operations.getattr.type;
const Twalk = operations.walk.type;
const Tread = operations.read.type;
const Twrite = operations.write.type;
const Tclunk = operations.clunk.type;

/** Positions from here on are not exact as numbers, or no positions at all. */
const highMax = 0x20_0000;

export function answerFast(session: Session, x: Exchange, tag: number): FastReply {
  switch (x.head[x.from + 4]) {
    case Tgetattr:
      return getattr(session, x, tag);
    case Twalk:
      return walk(session, x, tag);
    case Tclunk:
      return clunk(session, x, tag);
    case Tread:
      return read(session, x, tag);
    case Twrite:
      return write(session, x, tag);
    case Tlopen:
      return lopen(session, x, tag);
    default:
      return undefined;
  }
}

function u16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

function u32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

function put32(bytes: Uint8Array, at: number, value: number): number {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
  return at + 4;
}

/** Writes size[4] type[1] tag[2] of a reply to a T-message; returns where its fields go. */
function begin({ out, at }: Exchange, size: number, T: number, tag: number): number {
  put32(out, at, size);
  out[at + 4] = T + 1;
  out[at + 5] = tag;
  out[at + 6] = tag >>> 8;
  return at + headerBytes;
}

function putQid(
  out: Uint8Array,
  at: number,
  type: number,
  version: number,
  { pathLow, pathHigh }: Node,
): number {
  out[at] = type;
  return put32(out, put32(out, put32(out, at + 1, version), pathLow), pathHigh);
}

function commit(x: Exchange, headBytes: number, dataBytes = 0): typeof answered {
  x.commit(headBytes, dataBytes);
  return answered;
}

/** size[4] Tgetattr tag[2] fid[4] request_mask[8] */
function getattr(session: Session, x: Exchange, tag: number): FastReply {
  const { head, from } = x;
  if (x.to - from !== 19) return undefined;
  const fid = session.fids.find(u32(head, from + 7));
  if (!fid?.isObject) return undefined;
  const attr = session.stat(fid.attachment.tree, fid.node);
  if (attr instanceof Promise) return attr.then(({ bytes }) => ({ attr: bytes }));
  const bytes = headerBytes + attr.wire.length;
  x.out.set(attr.wire, begin(x, bytes, Tgetattr, tag));
  return commit(x, bytes);
}

/** size[4] Twalk tag[2] fid[4] newfid[4] nwname[2] nwname*(wname[s]), of one name or none. */
function walk(session: Session, x: Exchange, tag: number): FastReply {
  const { head, from } = x;
  const { fids } = session;
  const bytes = x.to - from;
  if (bytes < 17) return undefined;
  const number = u32(head, from + 7);
  const newfid = u32(head, from + 11);
  const steps = u16(head, from + 15);
  if (newfid === number || !fids.isFree(newfid)) return undefined;
  const source = fids.find(number);
  if (!source?.isObject) return undefined;
  if (steps === 0 && bytes === 17) return clone(session, x, tag, source, newfid);
  if (steps !== 1 || bytes < 19) return undefined;
  const length = u16(head, from + 17);
  if (bytes !== 19 + length) return undefined;
  const name = stepAt(head, from + 19, length);
  return name === '..' ? undefined : walkOne(session, x, tag, source, newfid, name as Name);
}

function clone(session: Session, x: Exchange, tag: number, source: Fid, newfid: number): FastReply {
  const { attachment, node, dir, name } = source;
  attachment.tree.hold(node);
  if (dir) attachment.tree.hold(dir);
  session.fids.put(newfid, new Fid(attachment, node, plain, dir, name));
  const at = begin(x, 9, Twalk, tag);
  x.out[at] = 0;
  x.out[at + 1] = 0;
  return commit(x, 9);
}

function walkOne(
  session: Session,
  x: Exchange,
  tag: number,
  source: Fid,
  newfid: number,
  name: Name,
): FastReply {
  const { attachment, node: dir } = source;
  const { tree, actor } = attachment;
  const attr = session.lendAttr();
  const found = tree.walk(actor.creds, dir, name, attr);
  if (found instanceof Promise) return walkLater(session, source, newfid, name, found, attr);
  // Every search of a PATH ends here.
  if (found instanceof Errno) {
    put32(x.out, begin(x, 11, Tlerror, tag), found.code);
    return commit(x, 11);
  }
  tree.hold(dir);
  session.fids.put(newfid, new Fid(attachment, found, plain, dir, name));
  const at = begin(x, 22, Twalk, tag);
  x.out[at] = 1;
  x.out[at + 1] = 0;
  putQid(x.out, at + 2, attr.qidType, session.versionOf(found, attr), found);
  return commit(x, 22);
}

/** size[4] Tclunk tag[2] fid[4], of a fid that nothing is to be done for first. */
function clunk({ fids }: Session, x: Exchange, tag: number): FastReply {
  const { head, from } = x;
  if (x.to - from !== 11) return undefined;
  const number = u32(head, from + 7);
  const use = fids.find(number)?.use;
  if (use?.kind !== 'node' && use?.kind !== 'dir' && !(use?.kind === 'file' && !use.locked)) return undefined;
  fids.discard(fids.take(number));
  begin(x, headerBytes, Tclunk, tag);
  return commit(x, headerBytes);
}

/** size[4] Tread tag[2] fid[4] offset[8] count[4] */
function read(session: Session, x: Exchange, tag: number): FastReply {
  const { head, from } = x;
  if (x.to - from !== 23) return undefined;
  const high = u32(head, from + 15);
  if (high >= highMax) return undefined;
  const offset = high * 0x1_0000_0000 + u32(head, from + 11);
  const reply = files.read(session, { fid: u32(head, from + 7), offset, count: u32(head, from + 19) }, x);
  if (reply instanceof Promise || reply instanceof Errno || reply.data.bytes) return reply;
  const { count } = reply.data;
  put32(x.out, begin(x, 11 + count, Tread, tag), count);
  return commit(x, 11, count);
}

/** size[4] Twrite tag[2] fid[4] offset[8] count[4] data[count] */
function write(session: Session, x: Exchange, tag: number): FastReply {
  const { head, from } = x;
  if (x.to - from !== writeHeadBytes) return undefined;
  const number = u32(head, from + 7);
  const high = u32(head, from + 15);
  const count = u32(head, from + 19);
  if (high >= highMax || u32(head, from) !== writeHeadBytes + count) return undefined;
  if (session.fids.find(number)?.attachment.readonly !== false) return undefined;
  const offset = high * 0x1_0000_0000 + u32(head, from + 11);
  const reply = files.write(session, { fid: number, offset, data: { count } }, x);
  if (reply instanceof Promise || reply instanceof Errno) return reply;
  put32(x.out, begin(x, 11, Twrite, tag), reply.count);
  return commit(x, 11);
}

/** size[4] Tlopen tag[2] fid[4] flags[4] */
function lopen(session: Session, x: Exchange, tag: number): FastReply {
  const { head, from } = x;
  if (x.to - from !== 15) return undefined;
  const number = u32(head, from + 7);
  const reply = opening.lopen(session, { fid: number, flags: u32(head, from + 11) }, x);
  if (reply instanceof Promise || reply instanceof Errno) return reply;
  const { type, version } = reply.qid;
  const at = begin(x, 24, Tlopen, tag);
  put32(x.out, putQid(x.out, at, type, version, reply.qid), reply.iounit);
  return commit(x, 24);
}
