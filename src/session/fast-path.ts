/**
 * Fast path of the six most frequent messages, without the objects of the generic path (codec and handler table).
 *
 * Each function handles the common case of a well-formed request and otherwise returns undefined without side effects: then
 * the generic path runs. test/unit/session/fast-path.test.ts compares the replies of both paths byte by byte.
 */

import type { Node } from '#backend/tree.ts';
import { Errno } from '#base/errno.ts';
import type { Name } from '#base/name.ts';
import { headerBytes, writeHeadBytes } from '#protocol/constants.ts';
import { lerror, type Op, operations, type RMessage } from '#protocol/operations.ts';
import type { Exchange } from './exchange.ts';
import { Fid, plain } from './fids.ts';
import * as files from './handlers/io.ts';
import { opening } from './handlers/open.ts';
import { walkLater } from './handlers/walk.ts';
import { stepAt } from './name-cache.ts';
import type { Request } from './request.ts';

/** The exchange was committed. */
export const answered = Symbol('answered');
type Reply = RMessage<Op> | Errno;
/** `answered`, a reply that is still to be encoded, or undefined: use the generic path. */
type FastReply = typeof answered | Reply | Promise<Reply> | undefined;

/** The number that makes `begin` write the type of Rlerror; there is no Tlerror. */
const Tlerror = lerror.type - 1;
const Tlopen = operations.lopen.type;
const Tgetattr = operations.getattr.type;
const Twalk = operations.walk.type;
const Tread = operations.read.type;
const Twrite = operations.write.type;
const Tclunk = operations.clunk.type;

/** High half of the first offset (2^53) that a number does not hold exactly. */
const highMax = 0x20_0000;

export function answerFast(request: Request): FastReply {
  switch (request.op) {
    case 'getattr':
      return getattr(request);
    case 'walk':
      return walk(request);
    case 'clunk':
      return clunk(request);
    case 'read':
      return read(request);
    case 'write':
      return write(request);
    case 'lopen':
      return lopen(request);
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

/** Writes size[4] type[1] tag[2] of the reply to message type `T`; returns the offset of its fields. */
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
function getattr(request: Request): FastReply {
  const { exchange: x, tag } = request;
  const { head, from } = x;
  if (x.to - from !== 19) return undefined;
  const fid = request.findFid(u32(head, from + 7));
  if (!fid?.isObject) return undefined;
  const attr = request.stat(fid.attachment, fid.node);
  if (attr instanceof Promise) return attr.then(({ bytes }) => ({ attr: bytes }));
  const bytes = headerBytes + attr.wire.length;
  x.out.set(attr.wire, begin(x, bytes, Tgetattr, tag));
  return commit(x, bytes);
}

/** size[4] Twalk tag[2] fid[4] newfid[4] nwname[2] nwname*(wname[s]), with at most one name. */
function walk(request: Request): FastReply {
  const { session, exchange: x } = request;
  const { head, from } = x;
  const { fids } = session;
  const bytes = x.to - from;
  if (bytes < 17) return undefined;
  const number = u32(head, from + 7);
  const newfid = u32(head, from + 11);
  const steps = u16(head, from + 15);
  if (newfid === number || !fids.isFree(newfid)) return undefined;
  const source = request.findFid(number);
  if (!source?.isObject) return undefined;
  if (steps === 0 && bytes === 17) return clone(request, source, newfid);
  if (steps !== 1 || bytes < 19) return undefined;
  const length = u16(head, from + 17);
  if (bytes !== 19 + length) return undefined;
  const name = stepAt(head, from + 19, length);
  return name === '..' ? undefined : walkOne(request, source, newfid, name as Name);
}

function clone(request: Request, source: Fid, newfid: number): FastReply {
  const { session, exchange: x, tag } = request;
  const { attachment, node, dir, name } = source;
  attachment.tree.hold(node);
  if (dir) attachment.tree.hold(dir);
  session.fids.put(newfid, new Fid(attachment, node, plain, dir, name));
  const at = begin(x, 9, Twalk, tag);
  x.out[at] = 0;
  x.out[at + 1] = 0;
  return commit(x, 9);
}

function walkOne(request: Request, source: Fid, newfid: number, name: Name): FastReply {
  const { session, exchange: x, tag } = request;
  const { attachment, node: dir } = source;
  const { tree } = attachment;
  const { attr } = request;
  const found = tree.walk(request.as(attachment), dir, name, attr);
  if (found instanceof Promise) return walkLater(request, source, newfid, name, found, attr);
  // Frequent: every failed lookup of a search along PATH.
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

/** size[4] Tclunk tag[2] fid[4], of a fid without locks or an xattr value. */
function clunk(request: Request): FastReply {
  const { exchange: x, tag } = request;
  const { fids } = request.session;
  const { head, from } = x;
  if (x.to - from !== 11) return undefined;
  const number = u32(head, from + 7);
  const use = request.findFid(number)?.use;
  if (use?.kind !== 'node' && use?.kind !== 'dir' && !(use?.kind === 'file' && !use.locked)) return undefined;
  fids.discard(request.take(number));
  begin(x, headerBytes, Tclunk, tag);
  return commit(x, headerBytes);
}

/** size[4] Tread tag[2] fid[4] offset[8] count[4] */
function read(request: Request): FastReply {
  const { exchange: x, tag } = request;
  const { head, from } = x;
  if (x.to - from !== 23) return undefined;
  const high = u32(head, from + 15);
  if (high >= highMax) return undefined;
  const offset = high * 0x1_0000_0000 + u32(head, from + 11);
  const fid = request.findFid(u32(head, from + 7));
  if (!fid) return undefined;
  const reply = files.read(request, fid, offset, u32(head, from + 19));
  if (reply instanceof Promise || reply.data.bytes) return reply;
  const { count } = reply.data;
  put32(x.out, begin(x, 11 + count, Tread, tag), count);
  return commit(x, 11, count);
}

/** size[4] Twrite tag[2] fid[4] offset[8] count[4] data[count] */
function write(request: Request): FastReply {
  const { exchange: x, tag } = request;
  const { head, from } = x;
  if (x.to - from !== writeHeadBytes) return undefined;
  const high = u32(head, from + 15);
  const count = u32(head, from + 19);
  if (high >= highMax || u32(head, from) !== writeHeadBytes + count) return undefined;
  const fid = request.findFid(u32(head, from + 7));
  if (fid?.attachment.readonly !== false) return undefined;
  const offset = high * 0x1_0000_0000 + u32(head, from + 11);
  const reply = files.write(request, fid, offset, count);
  if (reply instanceof Promise) return reply;
  put32(x.out, begin(x, 11, Twrite, tag), reply.count);
  return commit(x, 11);
}

/** size[4] Tlopen tag[2] fid[4] flags[4] */
function lopen(request: Request): FastReply {
  const { exchange: x, tag } = request;
  const { head, from } = x;
  if (x.to - from !== 15) return undefined;
  const number = u32(head, from + 7);
  const reply = opening.lopen(request, { fid: number, flags: u32(head, from + 11) });
  if (reply instanceof Promise || reply instanceof Errno) return reply;
  const { type, version } = reply.qid;
  const at = begin(x, 24, Tlopen, tag);
  put32(x.out, putQid(x.out, at, type, version, reply.qid), reply.iounit);
  return commit(x, 24);
}
