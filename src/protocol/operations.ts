import { walkStepsMax } from '#quota/limits.ts';
import {
  attr,
  bits,
  data,
  extent,
  extentLength,
  type Fields,
  fid,
  list,
  mode,
  name,
  nanoseconds,
  newfid,
  offset,
  optionalU32,
  qid,
  type Reading,
  readOffset,
  renameName,
  seconds,
  size64,
  statfs,
  step,
  str,
  tag,
  u8,
  u32,
  unlinkName,
  type Writing,
  wide,
  xattrName,
  xattrNameOrNone,
} from './kinds.ts';

interface Operation {
  /** Type of the T-message; the R-message has `type + 1`. */
  readonly type: number;
  /** The fields of the request in wire order. */
  readonly T: Fields;
  /** The fields of the reply in wire order. */
  readonly R: Fields;
  /** Modifies the export: EROFS if that is read-only. */
  readonly mutates?: true;
}

const ok = {} as const;

/**
 * The messages of 9P2000.L. Codec, types, name checks, the read-only check, trace output, the client and the hostile tests are
 * derived from this table. Field names are those of the manual.
 */
export const operations = {
  statfs: { type: 8, T: { fid }, R: { statfs } },
  lopen: { type: 12, T: { fid, flags: mode }, R: { qid, iounit: u32 } },
  lcreate: {
    type: 14,
    T: { fid, name, flags: mode, mode, gid: u32 },
    R: { qid, iounit: u32 },
    mutates: true,
  },
  symlink: { type: 16, T: { dfid: fid, name, symtgt: str, gid: u32 }, R: { qid }, mutates: true },
  mknod: {
    type: 18,
    T: { dfid: fid, name, mode, major: u32, minor: u32, gid: u32 },
    R: { qid },
    mutates: true,
  },
  rename: { type: 20, T: { fid, dfid: fid, name: renameName }, R: ok, mutates: true },
  readlink: { type: 22, T: { fid }, R: { target: str } },
  getattr: { type: 24, T: { fid, request_mask: wide }, R: { attr } },
  setattr: {
    type: 26,
    T: {
      fid,
      valid: bits,
      mode,
      uid: u32,
      gid: u32,
      size: wide,
      atime_sec: seconds,
      atime_nsec: nanoseconds,
      mtime_sec: seconds,
      mtime_nsec: nanoseconds,
    },
    R: ok,
    mutates: true,
  },
  xattrwalk: { type: 30, T: { fid, newfid, name: xattrNameOrNone }, R: { size: size64 } },
  xattrcreate: { type: 32, T: { fid, name: xattrName, attr_size: wide, flags: u32 }, R: ok, mutates: true },
  readdir: { type: 40, T: { fid, offset: wide, count: u32 }, R: { data } },
  fsync: { type: 50, T: { fid, datasync: optionalU32 }, R: ok },
  lock: {
    type: 52,
    T: { fid, type: u8, flags: u32, start: extent, length: extentLength, proc_id: u32, client_id: str },
    R: { status: u8 },
  },
  getlock: {
    type: 54,
    T: { fid, type: u8, start: extent, length: extentLength, proc_id: u32, client_id: str },
    R: { type: u8, start: extent, length: extentLength, proc_id: u32, client_id: str },
  },
  link: { type: 70, T: { dfid: fid, fid, name }, R: ok, mutates: true },
  mkdir: { type: 72, T: { dfid: fid, name, mode, gid: u32 }, R: { qid }, mutates: true },
  renameat: {
    type: 74,
    T: { olddirfid: fid, oldname: renameName, newdirfid: fid, newname: renameName },
    R: ok,
    mutates: true,
  },
  unlinkat: { type: 76, T: { dirfid: fid, name: unlinkName, flags: bits }, R: ok, mutates: true },
  version: { type: 100, T: { msize: u32, version: str }, R: { msize: u32, version: str } },
  auth: { type: 102, T: { afid: newfid, uname: str, aname: str, n_uname: u32 }, R: { aqid: qid } },
  attach: { type: 104, T: { fid: newfid, afid: u32, uname: str, aname: str, n_uname: u32 }, R: { qid } },
  flush: { type: 108, T: { oldtag: tag }, R: ok },
  walk: {
    type: 110,
    T: { fid, newfid, wname: list(step, walkStepsMax) },
    R: { wqid: list(qid, walkStepsMax) },
  },
  read: { type: 116, T: { fid, offset: readOffset, count: u32 }, R: { data } },
  write: { type: 118, T: { fid, offset, data }, R: { count: u32 }, mutates: true },
  clunk: { type: 120, T: { fid }, R: ok },
  remove: { type: 122, T: { fid }, R: ok, mutates: true },
} as const satisfies Record<string, Operation>;

/** Rlerror, the only R-message without a T-message. */
export const lerror = { type: 7, R: { ecode: u32 } } as const;

export type Op = keyof typeof operations;

type Row<O extends Op> = (typeof operations)[O];

/** A request as a server reads it, with checked names. */
export type TMessage<O extends Op> = Reading<Row<O>['T']>;
export type RMessage<O extends Op> = Reading<Row<O>['R']>;
/** A request as a client writes it: names are any bytes, and 64-bit values may be numbers. */
export type Draft<O extends Op> = Writing<Row<O>['T']>;

export const ops = Object.keys(operations) as Op[];
