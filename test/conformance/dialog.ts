import { Errno } from '../../src/errno.ts';

/** P9_DOTL open flags, the wire's values. */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  NOACCESS: 3,
  CREATE: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DSYNC: 0o10000,
  FASYNC: 0o20000,
  DIRECT: 0o40000,
  LARGEFILE: 0o100000,
  DIRECTORY: 0o200000,
  NOFOLLOW: 0o400000,
  NOATIME: 0o1000000,
  CLOEXEC: 0o2000000,
  SYNC: 0o4000000,
} as const;

/** Tsetattr.valid. */
export const SET = {
  MODE: 1,
  UID: 2,
  GID: 4,
  SIZE: 8,
  ATIME: 0x10,
  MTIME: 0x20,
  CTIME: 0x40,
  ATIME_SET: 0x80,
  MTIME_SET: 0x100,
} as const;

export const AT_REMOVEDIR = 0x200;
export const NOFID = 0xffff_ffff;
export const NONUNAME = 0xffff_ffff;

/** The errno a request was refused with, by name; `none` when it was not. */
export async function errnoOf(answer: Promise<unknown>): Promise<string> {
  try {
    await answer;
    return 'none';
  } catch (error) {
    if (error instanceof Errno) return error.name;
    throw error;
  }
}
