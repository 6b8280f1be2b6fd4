import { EEXIST, EINVAL, ENAMETOOLONG, ENOENT, type Errno } from './errno.ts';

/** Bytes in a string, one per character (latin1). Linux names are bytes; as UTF-8 some files would be unreachable. */
export type Bytes = string;

declare const checked: unique symbol;

/** A checked path component: 1…255 bytes, not `.` or `..`, without `/` and NUL. Bytes as latin1. */
export type Name = Bytes & { readonly [checked]: 'name' };

export type Step = Name | (Bytes & { readonly [checked]: 'step' });

export const nameBytesMax = 255;

/** The Errno for bytes that are no name; undefined for a name. `dots` is the Errno for `.` and `..`; undefined allows `..`. */
function problem(bytes: Bytes, dots: Errno | undefined): Errno | undefined {
  if (bytes.length === 0) return ENOENT;
  if (bytes.length > nameBytesMax) return ENAMETOOLONG;
  if (bytes.includes('/') || bytes.includes('\0')) return ENOENT;
  if (bytes === '.') return dots ?? EINVAL;
  if (bytes === '..') return dots;
  return undefined;
}

/** Checks a name. Throws ENOENT, ENAMETOOLONG, or `dots` for `.` and `..`. */
export function nameOf(bytes: Bytes, dots: Errno = EEXIST): Name {
  const wrong = problem(bytes, dots);
  if (wrong) throw wrong;
  return bytes as Name;
}

/** Checks a walk step: a name or `..`. EINVAL for `.`, which Linux never sends. */
export function stepOf(bytes: Bytes): Step {
  const wrong = problem(bytes, undefined);
  if (wrong) throw wrong;
  return bytes as Step;
}
