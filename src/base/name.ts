import { EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, type Errno } from './errno.ts';

/**
 * Bytes carried in a string: each character is one byte (latin1). Names on Linux are bytes, not text, and decoding them
 * as UTF-8 would make some files unreachable.
 */
export type Bytes = string;

declare const checked: unique symbol;

/** One path component that was checked: 1…255 bytes, not `.` or `..`, no `/` and no NUL. Bytes as latin1. */
export type Name = Bytes & { readonly [checked]: 'name' };

/** A step of a walk: a `Name`, or `..`. */
export type Step = Name | (Bytes & { readonly [checked]: 'step' });

export const nameBytesMax = 255;

/** Why these bytes are no name, or undefined when they are one. `.` and `..` are judged by the caller's `dots`. */
function problem(bytes: Bytes, dots: Errno | undefined): Errno | undefined {
  if (bytes.length === 0) return ENOENT;
  if (bytes.length > nameBytesMax) return ENAMETOOLONG;
  if (bytes.includes('/') || bytes.includes('\0')) return ENOENT;
  if (bytes === '.') return dots ?? EINVAL;
  if (bytes === '..') return dots;
  return undefined;
}

/** Checks a name; throws the Errno that says what was wrong. */
export function nameOf(bytes: Bytes, dots: Errno = EEXIST): Name {
  const wrong = problem(bytes, dots);
  if (wrong) throw wrong;
  return bytes as Name;
}

/** Checks a step of a walk: as a name, but `..` is allowed. `.` is refused: Linux never sends it. */
export function stepOf(bytes: Bytes): Step {
  const wrong = problem(bytes, undefined);
  if (wrong) throw wrong;
  return bytes as Step;
}

/** `.` or `..` at the ends of a rename: EISDIR, as QEMU's 9pfs answers. */
export const renameDots = EISDIR;
