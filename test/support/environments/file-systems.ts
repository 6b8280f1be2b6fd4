import { chmodSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command } from '../compiled.ts';
import { UserSpaceMount } from '../user-space-mount.ts';

/** A file system that tests can make and mount. */
export interface FileSystem {
  /** Its name in /proc/filesystems. */
  readonly type: string;
  /** The program that makes it, and the package of Debian that has the program. */
  readonly maker?: { readonly program: string; readonly package: string };
  /**
   * Mounts an empty one on `directory`, whose root everybody may look into. `scratch` is an empty directory for what it is made
   * of. Resolves to what unmounts it.
   */
  mount(directory: string, scratch: string): Promise<() => Promise<void>>;
}

const MiB = 1024 * 1024;
const unmountMsMax = 5000;
const passing = fileURLToPath(new URL('../passing/passing.c', import.meta.url));

/**
 * With what tests have mounted below. Not lazily: with its clients gone, a server keeps no file system busy, but for what a
 * thread of it is just closing.
 */
async function unmount(directory: string): Promise<void> {
  for (const end = performance.now() + unmountMsMax; ; ) {
    try {
      command('umount', '--recursive', directory);
      return;
    } catch (error) {
      if (performance.now() > end) throw error;
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  }
}

function mounted(directory: string, ...args: readonly string[]): () => Promise<void> {
  command('mount', ...args, directory);
  chmodSync(directory, 0o755);
  return () => unmount(directory);
}

/** On a loop device whose file has so many bytes, of which those count that are written. */
function onLoop(type: string, packageName: string, bytes: number, ...options: readonly string[]): FileSystem {
  const program = `mkfs.${type}`;
  return {
    type,
    maker: { program, package: packageName },
    async mount(directory, scratch) {
      const image = join(scratch, 'image');
      writeFileSync(image, '');
      truncateSync(image, bytes);
      command(program, ...options, image);
      return mounted(directory, '-o', 'loop', image);
    },
  };
}

export const ext4 = onLoop('ext4', 'e2fsprogs', 512 * MiB, '-q', '-F', '-E', 'nodiscard');
export const xfs = onLoop('xfs', 'xfsprogs', 512 * MiB, '-q', '-f');
export const btrfs = onLoop('btrfs', 'btrfs-progs', 512 * MiB, '-q', '-f');

export const tmpfs: FileSystem = {
  type: 'tmpfs',
  mount: async directory => mounted(directory, '-t', 'tmpfs', '-o', 'size=512m', 'tmpfs'),
};

/** Above an empty layer of the file system that `scratch` is on. */
export const overlay: FileSystem = {
  type: 'overlay',
  async mount(directory, scratch) {
    const [lower, upper, work] = ['lower', 'upper', 'work'].map(name => {
      mkdirSync(join(scratch, name));
      return join(scratch, name);
    });
    const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
    return mounted(directory, '-t', 'overlay', '-o', options, 'overlay');
  },
};

/** In user space, over a directory of the file system that `scratch` is on. One call in four takes up to a millisecond. */
function passingOn(...options: readonly string[]): FileSystem {
  return {
    type: 'fuse',
    async mount(directory, scratch) {
      chmodSync(scratch, 0o755);
      const served = await UserSpaceMount.start(passing, scratch, directory, '1000', ...options);
      return async () => {
        await unmount(directory);
        await served.end();
      };
    },
  };
}

export const fuse = passingOn();
/** Where an object that is new can be told from one that had its inode number before. */
export const fuseWithBirths = passingOn('births');
