import { fstatSync } from 'node:fs';
import { addon } from './addon.ts';
import { beginCall, expectCount, expectVoid, runInline, shimOf, wide } from './control-block.ts';
import { serverCreds } from './syscalls.ts';

const op = { map: shimOf('map'), detach: shimOf('detach'), faults: shimOf('faults') };

/** How many mappings of this process have lost their file so far. */
export function mappingFaults(): number {
  beginCall(op.faults, serverCreds, -1);
  return runInline(expectCount) as number;
}

/**
 * A part of a file, mapped shared. It stays mapped as long as a view of the buffer exists. If the owner truncates the file,
 * an access finds anonymous memory instead of raising SIGBUS.
 */
export class Mapping {
  readonly buffer: ArrayBuffer;
  readonly #index: number;

  /** Throws the Errno of mmap(2): EACCES for a descriptor that is not writable, EINVAL for an offset that is not page-aligned. */
  constructor(fd: number, offset: number, bytes: number) {
    // The length must be a multiple of the page size, which on hugetlbfs is the block size.
    const block = Math.max(4096, fstatSync(fd).blksize);
    beginCall(op.map, serverCreds, fd);
    wide[0] = offset;
    wide[1] = Math.ceil(bytes / block) * block;
    this.#index = runInline(expectCount) as number;
    const buffer = addon.memory(this.#index, bytes);
    if (buffer === undefined) throw new RangeError(`There is no memory for a buffer of ${bytes} bytes.`);
    this.buffer = buffer;
  }

  /**
   * Replaces the mapping with anonymous memory: the file's memory is released, and views of the buffer stay valid, as do
   * system calls that use them at the moment.
   */
  detach(): void {
    beginCall(op.detach, serverCreds, this.#index);
    runInline(expectVoid);
  }

  /** Whether an access has found the file truncated, and the mapping was replaced with anonymous memory. */
  faulted(): boolean {
    beginCall(op.faults, serverCreds, this.#index);
    return runInline(expectCount) !== 0;
  }
}
