import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  rmSync,
  truncateSync,
} from 'node:fs';
import { join } from 'node:path';

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

const inUseMsMax = 5000;

/** An ext4 on a loop device that can fail on demand. Needs root. */
export class SmallDisk {
  /** The mount point. */
  readonly path: string;
  readonly #image: string;
  readonly #bytes: number;
  readonly #device: string;

  constructor(top: string, name: string, mebibytes: number, inodes: number) {
    if (process.getuid!() !== 0)
      throw new Error('loop devices and mounts need root: sudo npm test -- stress');
    this.path = join(top, name);
    this.#image = join(top, `${name}.ext4`);
    this.#bytes = mebibytes << 20;
    const fd = openSync(this.#image, 'w');
    ftruncateSync(fd, this.#bytes);
    closeSync(fd);
    // No blocks reserved for root, no lazy initialization.
    const options = [
      '-q',
      '-b',
      '4096',
      '-m',
      '0',
      '-N',
      String(inodes),
      '-E',
      'lazy_itable_init=0,lazy_journal_init=0',
    ];
    run('mkfs.ext4', ...options, this.#image);
    this.#device = run('losetup', '--find', '--show', this.#image);
    mkdirSync(this.path);
    this.mount();
    chmodSync(this.path, 0o755);
  }

  mount(): void {
    run('mount', '-t', 'ext4', '-o', 'errors=remount-ro', this.#device, this.path);
  }

  remount(how: 'ro' | 'rw'): void {
    run('mount', '-o', `remount,${how}`, this.path);
  }

  unmount(...options: string[]): void {
    run('umount', ...options, this.path);
  }

  /** Drops a file from the page cache. */
  forget(name: string): void {
    run(
      'dd',
      `of=${join(this.path, name)}`,
      'oflag=nocache',
      'conv=notrunc,fdatasync',
      'count=0',
      'status=none',
    );
  }

  /** Makes the device fail with EIO, except for its first bytes. */
  breakDown(): void {
    copyFileSync(this.#image, `${this.#image}.whole`);
    truncateSync(this.#image, 4096);
    run('losetup', '--set-capacity', this.#device);
  }

  /** Makes the device work again; the file system must then be checked and mounted. */
  repair(): void {
    const whole = `${this.#image}.whole`;
    run('dd', `if=${whole}`, `of=${this.#image}`, 'conv=notrunc,sparse', 'bs=64K', 'status=none');
    truncateSync(this.#image, this.#bytes);
    run('losetup', '--set-capacity', this.#device);
    this.#check();
    rmSync(whole);
  }

  /**
   * e2fsck(8): status 1 means that errors were corrected, 8 that the device is in use: a server of another test that starts at the
   * moment has a copy of all mounts until it is in its private root.
   */
  #check(): void {
    for (const end = Date.now() + inUseMsMax; ; ) {
      const { status, stdout, stderr } = spawnSync('e2fsck', ['-p', this.#device], { encoding: 'utf8' });
      if (status === 0 || status === 1) return;
      if (status !== 8 || Date.now() > end)
        throw new Error(`e2fsck ended with status ${status}: ${stdout}${stderr}`);
    }
  }

  remove(): void {
    try {
      this.unmount('--lazy');
    } catch {
      // It is not mounted.
    }
    run('losetup', '--detach', this.#device);
    rmSync(this.#image);
  }
}
