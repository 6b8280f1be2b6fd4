import { chmodSync, closeSync, ftruncateSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { command } from './compiled.ts';

/** An ext4 on a loop device. Needs root. */
export class LoopDisk {
  /** The mount point. */
  readonly path: string;
  readonly #image: string;
  readonly #device: string;

  /** `features` are options of mkfs.ext4, `options` of mount(8). */
  constructor(
    top: string,
    name: string,
    mebibytes: number,
    features: readonly string[],
    options = 'defaults',
  ) {
    this.path = join(top, name);
    this.#image = join(top, `${name}.ext4`);
    const fd = openSync(this.#image, 'w');
    ftruncateSync(fd, mebibytes << 20);
    closeSync(fd);
    command('mkfs.ext4', '-q', '-E', 'nodiscard', ...features, this.#image);
    this.#device = command('losetup', '--find', '--show', this.#image);
    mkdirSync(this.path);
    command('mount', '-t', 'ext4', '-o', options, this.#device, this.path);
    chmodSync(this.path, 0o755);
  }

  /** FIFREEZE: changes wait, uninterruptibly, until `thaw`. */
  freeze(): void {
    command('fsfreeze', '--freeze', this.path);
  }

  thaw(): void {
    command('fsfreeze', '--unfreeze', this.path);
  }

  remove(): void {
    command('umount', '--lazy', this.path);
    command('losetup', '--detach', this.#device);
    rmSync(this.#image);
  }
}
