import { chmodSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command } from '../compiled.ts';
import { UserSpaceMount } from '../user-space-mount.ts';

/** A file system that tests can create and mount. */
export interface FileSystem {
  /** Its name in /proc/filesystems. */
  readonly type: string;
  /** The program that creates it, and its Debian package. */
  readonly maker?: { readonly program: string; readonly package: string };
  /**
   * Mounts an empty one on `directory`, with a root readable for everybody. `scratch` is an empty directory for its image or
   * layers. Resolves to a function that unmounts it.
   */
  mount(directory: string, scratch: string): Promise<() => Promise<void>>;
}

const MiB = 1024 * 1024;
const unmountMsMax = 5000;
const passing = fileURLToPath(new URL('../passing/passing.c', import.meta.url));

/**
 * Unmounts it and the mounts below. Not lazily: without clients a server must not keep a file system busy, except while a
 * thread closes a descriptor.
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

/** On a loop device with a sparse file of this size. */
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

/** Over an empty layer on the file system of `scratch`. */
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

/** FUSE, over a directory on the file system of `scratch`. One call in four takes up to a millisecond. */
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
/** File systems on which a new object differs from an earlier one with its inode number. */
export const fuseWithBirths = passingOn('births');
