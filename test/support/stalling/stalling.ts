import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const source = fileURLToPath(new URL('stalling.c', import.meta.url));

/** Runs a command of the host that must succeed. */
export function command(name: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(name, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${error?.message ?? stderr}`);
  return stdout.trim();
}

/** A mount of `stalling.c`, in a process of its own. */
export class Stalling {
  readonly directory: string;
  readonly #child: ChildProcess;
  readonly #place: string;

  private constructor(directory: string, child: ChildProcess, place: string) {
    this.directory = directory;
    this.#child = child;
    this.#place = place;
  }

  /** Mounts on an empty directory; `disk` makes it a slow one. */
  static async mount(directory: string, disk?: { bytes: number; delayMs: number }): Promise<Stalling> {
    const place = mkdtempSync(join(tmpdir(), 'ninepd-stalling-'));
    const program = join(place, 'stalling');
    const flags = ['-std=c11', '-D_GNU_SOURCE', '-O1', '-Wall', '-Wextra', '-Werror'];
    command(process.env.CC ?? 'cc', ...flags, '-o', program, source);
    const args = disk ? [directory, 'disk', String(disk.bytes), String(disk.delayMs)] : [directory];
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const [said] = await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
    if (!String(said).startsWith('mounted'))
      throw new Error('the file system for the tests could not be mounted');
    return new Stalling(directory, child, place);
  }

  /** Whether the disk takes its time. */
  slow(on: boolean): void {
    this.#child.kill(on ? 'SIGUSR1' : 'SIGUSR2');
  }

  /** Unmounts; what hangs in it fails. */
  async end(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.stdin!.end();
      await once(this.#child, 'exit');
    }
    rmSync(this.#place, { recursive: true });
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
