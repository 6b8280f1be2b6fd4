import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command } from '../compiled.ts';
import { UserSpaceMount } from '../user-space-mount.ts';

const source = fileURLToPath(new URL('stalling.c', import.meta.url));

/** A mount of `stalling.c` in a separate process. */
export class Stalling {
  readonly directory: string;
  readonly #mount: UserSpaceMount;

  private constructor(directory: string, mount: UserSpaceMount) {
    this.directory = directory;
    this.#mount = mount;
  }

  /** Mounts on an empty directory; `disk` makes it slow. */
  static async mount(directory: string, disk?: { bytes: number; delayMs: number }): Promise<Stalling> {
    const args = disk ? ['disk', String(disk.bytes), String(disk.delayMs)] : [];
    return new Stalling(directory, await UserSpaceMount.start(source, directory, ...args));
  }

  /** Makes the disk slow or fast. */
  slow(on: boolean): void {
    this.#mount.signal(on ? 'SIGUSR1' : 'SIGUSR2');
  }

  /** Unmounts; hanging calls fail. */
  end(): Promise<void> {
    return this.#mount.end();
  }
}

/** ext4 on a loop device whose backing file is on a slow disk. */
export class SlowExt4 {
  readonly #disk: Stalling;
  readonly #device: string;
  readonly #directory: string;

  private constructor(disk: Stalling, device: string, directory: string) {
    this.#disk = disk;
    this.#device = device;
    this.#directory = directory;
  }

  /** `backing` and `directory` are empty directories; the file system is mounted on the second. */
  static async mount(backing: string, directory: string, delayMs: number): Promise<SlowExt4> {
    const disk = await Stalling.mount(backing, { bytes: 64 * 1024 * 1024, delayMs });
    const image = join(backing, 'disk');
    command('mkfs.ext4', '-q', '-F', '-E', 'nodiscard', '-J', 'size=4', image);
    const device = command('losetup', '--find', '--show', image);
    command('mount', device, directory);
    return new SlowExt4(disk, device, directory);
  }

  slow(on: boolean): void {
    this.#disk.slow(on);
  }

  async end(): Promise<void> {
    this.slow(false);
    command('umount', this.#directory);
    command('losetup', '--detach', this.#device);
    await this.#disk.end();
  }
}
