import type { ModelName } from '../serve.ts';
import { btrfs, ext4, type FileSystem, fuse, fuseWithBirths, overlay, tmpfs, xfs } from './file-systems.ts';
import type { LocalConditions } from './local-server.ts';

/** Differences between environments that a client can see. Everything else is equal. */
export interface Differences {
  /**
   * Requests may wait: until the reply, requests with its newfid fail, and a flush may withdraw it without effect.
   */
  readonly requests?: 'may wait';
  /** An open file may have no descriptor between two requests. */
  readonly openFiles?: 'without descriptor';
  /**
   * An object that is not open may have no descriptor, and is ESTALE after a program of the host, or an independent export or
   * server, has removed its last name (docs/limits.md, docs/scaling.md).
   */
  readonly removedElsewhere?: 'ESTALE';
  /** It is found again by its name, and ESTALE after a rename there (SECURITY.md). */
  readonly renamedElsewhere?: 'ESTALE';
  /** Two connections may be served by independent servers. */
  readonly sessions?: 'apart';
  /** Tgetlock does not name owners of other connections' locks, as for a program of the host. */
  readonly lockOwners?: 'unknown';
  /** In a mount below the export, `..` is listed with that file system's inode number, as by getdents(2). */
  readonly mounts?: 'below';
  /** nlink of a directory does not count subdirectories (btrfs). */
  readonly directoryLinks?: 'one';
  /** The longest symlink target of the file system. */
  readonly targetBytesMax?: number;
  /** The largest device numbers of the file system. */
  readonly devicesMax?: { readonly major: number; readonly minor: number };
  /** Errno of a rename over a non-empty directory; elsewhere ENOTEMPTY. rename(2) allows both. */
  readonly renameOver?: 'EEXIST';
  /** XATTR_CREATE together with XATTR_REPLACE: the latter is ignored (xfs); elsewhere the call always fails. */
  readonly xattrFlags?: 'create wins';
  /** A set-gid bit without group execute survives a write by others than members (fuse_setattr of fs/fuse/dir.c). */
  readonly setGid?: 'kept';
  /** The server has the rights of the owner's permission bits, and no more: guest root gets EACCES without them. */
  readonly rights?: 'of the owner';
  /** The model offers no xattrs (mapped-file). */
  readonly xattrs?: 'none';
  /** Listings have no types of regular files of the host, which may have records (mapped-file). */
  readonly listedTypes?: 'directories';
  /** A character device 0, 0 cannot be created: it is a whiteout (overlayfs). */
  readonly whiteouts?: 'refused';
}

/** Conditions under which a server runs. Its replies are the same in all of them, except for `differs`. */
export interface Environment {
  readonly name: string;
  readonly models: readonly ModelName[];
  /** File system mounted on the exported directory; default: none. */
  readonly fileSystem?: FileSystem;
  /** Each test directory is a mount below the export, of a directory of this file system. */
  readonly below?: FileSystem;
  /** Runs the program with these options instead of a server in this process. */
  readonly program?: readonly string[];
  readonly conditions: LocalConditions;
  /** Factor for numbers of repetitions; below 1 in slow environments. */
  readonly scale: number;
  readonly differs: Differences;
}

type Part = Partial<Omit<Environment, 'name' | 'models'>> & { readonly models?: readonly ModelName[] };

const allModels: readonly ModelName[] = ['mapped', 'passthrough', 'none'];

/** Combines environments. */
function environment(name: string, ...parts: readonly Part[]): Environment {
  return {
    ...Object.assign({ name, models: allModels, scale: 1 }, ...parts),
    conditions: Object.assign({}, ...parts.map(({ conditions }) => conditions)),
    differs: Object.assign({}, ...parts.map(({ differs }) => differs)),
  };
}

const disk: Part = { differs: { requests: 'may wait' } };
const mappedOnly: Part = { models: ['mapped'] };
const passthroughOnly: Part = { models: ['passthrough'] };

/** A server without privileges, as for a developer. */
const asUser: Part = { models: ['none'], differs: { requests: 'may wait', rights: 'of the owner' } };

const onTmpfs: Part = { fileSystem: tmpfs };
const onXfs: Part = {
  fileSystem: xfs,
  differs: {
    requests: 'may wait',
    targetBytesMax: 1023,
    devicesMax: { major: 511, minor: 0x3ffff },
    renameOver: 'EEXIST',
    xattrFlags: 'create wins',
  },
};
const onBtrfs: Part = { fileSystem: btrfs, differs: { requests: 'may wait', directoryLinks: 'one' } };
/** Has no file handles. */
const onOverlay: Part = {
  fileSystem: overlay,
  differs: { requests: 'may wait', whiteouts: 'refused' },
};
/** Has no file handles and no unnamed files; all calls are on the pool. */
const onFuse: Part = {
  fileSystem: fuse,
  scale: 0.1,
  differs: { requests: 'may wait', setGid: 'kept' },
};
const mountBelow: Part = { below: ext4, differs: { requests: 'may wait', mounts: 'below' } };
const overlayBelow: Part = {
  below: overlay,
  differs: { requests: 'may wait', mounts: 'below', whiteouts: 'refused' },
};

const shortOfDescriptors: Part = {
  conditions: { descriptors: 'short' },
  differs: { requests: 'may wait', openFiles: 'without descriptor', removedElsewhere: 'ESTALE' },
};
const contendedDescriptors: Part = { ...shortOfDescriptors, conditions: { descriptors: 'contended' } };
const withoutHandles: Part = { differs: { renamedElsewhere: 'ESTALE' } };
const strained: Part = { ...disk, conditions: { calls: 'strained' } };
const straining: Part = { ...disk, conditions: { calls: 'straining' } };
const otherUsers: Part = { ...disk, ...passthroughOnly, conditions: { otherUsers: true } };
const servedApart = { requests: 'may wait', sessions: 'apart', lockOwners: 'unknown' } as const;
const twoTrees: Part = { conditions: { trees: 2 }, differs: servedApart };
const twoWorkers: Part = { program: ['--workers', '2'], differs: servedApart };

export const environments: readonly Environment[] = [
  environment('plenty', disk),
  environment('tmpfs', onTmpfs),
  environment('xfs', onXfs),
  environment('btrfs', onBtrfs),
  environment('overlay', onOverlay),
  environment('fuse', onFuse),
  environment('mount-below', mountBelow),
  environment('strained', strained),
  environment('straining', straining),
  environment('short-fds', shortOfDescriptors),
  environment('contended-fds', contendedDescriptors),
  environment('short-fds-overlay', onOverlay, shortOfDescriptors, withoutHandles),
  environment('short-fds-fuse', onFuse, { fileSystem: fuseWithBirths }, shortOfDescriptors, withoutHandles),
  environment('short-fds-below', overlayBelow, shortOfDescriptors, withoutHandles),
  environment('short-fds-straining', straining, shortOfDescriptors),
  environment('users', otherUsers),
  environment('users-strained', otherUsers, strained, passthroughOnly),
  environment('two-trees', twoTrees),
  environment('two-trees-short-fds', twoTrees, shortOfDescriptors),
  environment('two-trees-short-fds-overlay', onOverlay, twoTrees, shortOfDescriptors, withoutHandles),
  environment('workers', twoWorkers, mappedOnly),
  environment('sandbox', disk, mappedOnly, { program: [] }),
  environment('sandbox-none', asUser, { program: ['--user', 'nobody'] }),
  environment('workers-none', asUser, twoWorkers, { program: ['--workers', '2', '--user', 'nobody'] }),
  environment('sandbox-passthrough', disk, passthroughOnly, { program: ['--trusted-xattrs', 'on'] }),
];

/** Environments by comma-separated names; `all` means all. */
export function environmentsNamed(names: string): readonly Environment[] {
  if (names === 'all') return environments;
  return names.split(',').map(name => {
    const found = environments.find(one => one.name === name);
    if (found) return found;
    const known = environments.map(one => one.name).join(', ');
    throw new Error(`there is no environment ${name}: they are ${known}`);
  });
}
