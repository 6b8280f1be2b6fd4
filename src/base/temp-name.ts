import { randomBytes } from 'node:crypto';
import { type Bytes, type Name, nameOf } from './name.ts';

/** Of a temporary name, after its prefix: random for the process, and counted in the last four. */
const randomBytesOfName = 12;
const random = randomBytes(randomBytesOfName - 4).toString('hex');
let count = 0;

/** A name after `prefix` that no other process and no other call gets. */
export function tempNameAfter(prefix: Bytes): Name {
  return nameOf(prefix + random + (count++ >>> 0).toString(16).padStart(8, '0'));
}

/** Whether a name has the form of those: somebody on the host may have chosen one that begins alike. */
export function isTempName(prefix: Bytes, name: Bytes): boolean {
  return (
    name.startsWith(prefix) &&
    name.length === prefix.length + 2 * randomBytesOfName &&
    /^[0-9a-f]*$/.test(name.slice(prefix.length))
  );
}

/**
 * What has a temporary name has it for far less than a millisecond. What is this old belongs to a server that has ended; if it
 * does not after all (a machine that was suspended, a clock of a network file system that is off), its maker finds it gone and
 * refuses that one request, and nothing that anybody has seen is lost.
 */
const ageSecondsMin = 30;

/** Whether an object with a temporary name was left by a server that has ended. `mtimeSec` is its mtime. */
export function isAbandoned(mtimeSec: number): boolean {
  return mtimeSec <= Date.now() / 1000 - ageSecondsMin;
}
