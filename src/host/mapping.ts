import {
  beginCall,
  commonThreads,
  expectCount,
  expectVoid,
  onThreads,
  runInline,
  shimOf,
  wide,
} from './control-block.ts';
import { noSession, serverCreds } from './syscalls.ts';

const op = {
  map: shimOf('map'),
  detach: shimOf('detach'),
  faults: shimOf('faults'),
  bytesToAlignment: shimOf('bytesToAlignment'),
};
const onPool = onThreads(commonThreads, noSession);

/** How many mappings of this process have lost their file so far. */
export function mappingFaults(): number {
  beginCall(op.faults, serverCreds, -1);
  return runInline(expectCount) as number;
}

/** Lacking in the library of ES2023; in Node since 20. */
type GrowableSharedArrayBuffer = new (bytes: number, options: { maxByteLength: number }) => SharedArrayBuffer;

const pageBytes = 4096;

/**
 * Memory that a part of a file can be mapped over, again and again. It is a SharedArrayBuffer, which V8 keeps mapped as long as
 * there is a view of it, so that memory that is not mapped cannot be reached; and which V8 does not count as memory of its
 * heap: with ArrayBuffers, each GiB costs a collection of garbage (14 ms). That it could grow makes V8 take whole pages for it.
 * A file that its owner truncates costs the contents and not the process.
 */
export class Mapping {
  readonly buffer: SharedArrayBuffer;
  /** Where in the buffer a mapping begins: at a multiple of `alignment`. */
  readonly start: number;
  /** The largest that a mapping may be. */
  readonly bytesMax: number;
  readonly alignment: number;
  #index = -1;

  /** Both arguments in bytes, multiples of a page. Throws RangeError when there is no room for it in the address space. */
  constructor(bytesMax: number, alignment: number) {
    const bytes = bytesMax + (alignment > pageBytes ? alignment : 0);
    const Growable = SharedArrayBuffer as unknown as GrowableSharedArrayBuffer;
    this.buffer = new Growable(bytes, { maxByteLength: bytes });
    this.bytesMax = bytesMax;
    this.alignment = alignment;
    beginCall(op.bytesToAlignment, serverCreds, alignment);
    this.start = runInline(expectCount, new Uint8Array(this.buffer)) as number;
  }

  /**
   * Maps a part of a file, shared: a multiple of `alignment`. Throws the Errno of mmap(2): EACCES for a descriptor that does not
   * allow writing, EINVAL for an odd offset, ENOSPC when there are too many mappings.
   */
  map(fd: number, offset: number, bytes: number): void {
    beginCall(op.map, serverCreds, fd);
    wide[0] = offset;
    this.#index = runInline(expectCount, new Uint8Array(this.buffer, this.start, bytes)) as number;
  }

  /**
   * Parts it from its file, on a thread of the pool, since the file's memory may be freed by that: some 25 ms for each GiB. Views
   * find other memory there then, which is nobody's, and so do system calls that run. Rejects with an Errno (ENOMEM); it stays
   * mapped then.
   */
  async detach(): Promise<void> {
    beginCall(op.detach, serverCreds, this.#index);
    await onPool(expectVoid);
    this.#index = -1;
  }

  /** Whether an access found no file behind it, and got memory that is nobody's. */
  faulted(): boolean {
    if (this.#index < 0) return false;
    beginCall(op.faults, serverCreds, this.#index);
    return runInline(expectCount) !== 0;
  }
}
