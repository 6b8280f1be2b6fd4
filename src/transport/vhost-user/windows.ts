import { Errno } from '#base/errno.ts';
import { Mapping } from '#host/mapping.ts';
import { VhostUserError } from './messages.ts';

/** Windows that one device may have mapped: 1 TiB of memory, and the 509 regions that QEMU cuts it into at most. */
const windowsMax = 1024 + 512;
const mebibyte = 2 ** 20;
/** Node 20 has no typed array above 4 GiB. */
export const windowBytesMax = 1024 * mebibyte;
/** Of the address space that a window takes: with few sizes, one that is free fits the next region. */
const sizes = [2 * mebibyte, 64 * mebibyte, windowBytesMax];

/**
 * The windows of one device through which it sees its guest's memory. A window that is free is used again, for this device
 * only: the views of a window that somebody still has show memory of the same guest or nobody's. So a monitor that changes its
 * memory table again and again uses up neither address space nor mappings (vm.max_map_count).
 */
export class Windows {
  readonly #free: Mapping[] = [];
  #used = 0;

  /** Maps a part of a file. `alignment`: the size of its pages. Throws VhostUserError. */
  map(fd: number, offset: number, bytes: number, alignment: number): Mapping {
    if (this.#used === windowsMax)
      throw new VhostUserError(
        `more than ${windowsMax} windows of 1 GiB for the memory that the monitor shares`,
      );
    const length = Math.ceil(bytes / alignment) * alignment;
    const mapping = this.#take(Math.max(length, sizes.find(size => size >= length) ?? length), alignment);
    try {
      mapping.map(fd, offset, length);
    } catch (error) {
      this.#free.push(mapping);
      if (error instanceof Errno) throw new VhostUserError(`guest memory cannot be mapped: ${error}`);
      throw error;
    }
    this.#used++;
    return mapping;
  }

  #take(bytes: number, alignment: number): Mapping {
    const at = this.#free.findIndex(one => one.bytesMax === bytes && one.alignment === alignment);
    if (at >= 0) return this.#free.splice(at, 1)[0]!;
    try {
      return new Mapping(bytes, alignment);
    } catch (error) {
      if (error instanceof RangeError)
        throw new VhostUserError('guest memory cannot be mapped: there is no room in the address space');
      throw error;
    }
  }

  /** Returns a window's memory to the host. Must be called only while no system call uses it. */
  async detach(mapping: Mapping): Promise<void> {
    try {
      await mapping.detach();
    } catch (error) {
      // Without memory for the replacement the mapping stays, and counts.
      if (error instanceof Errno) return;
      throw error;
    }
    this.#used--;
    this.#free.push(mapping);
  }
}
