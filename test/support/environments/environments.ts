import type { ModelName } from '../serve.ts';
import { btrfs, ext4, type FileSystem, fuse, fuseWithBirths, overlay, tmpfs, xfs } from './file-systems.ts';
import type { LocalConditions } from './local-server.ts';

/** What a client sees in one environment and not in another. All the rest is the same in all of them. */
export interface Differences {
  /**
   * A call may have to wait, and then its request is not answered in its turn: another that uses a fid which that one makes is
   * refused before it is answered, and a flush may withdraw it with nothing done.
   */
  readonly requests?: 'may wait';
  /** An open file need not have a descriptor between two requests. */
  readonly openFiles?: 'without descriptor';
  /**
   * What is not open need not have a descriptor, and is ESTALE when its last name was taken by a program of the host, or through an
   * export or a server that knows nothing of this one (docs/limits.md, docs/scaling.md).
   */
  readonly removedElsewhere?: 'ESTALE';
  /** It is found again by its name, and ESTALE when it has another that was given to it there (SECURITY.md). */
  readonly renamedElsewhere?: 'ESTALE';
  /** Any two connections may be served by servers that know nothing of each other. */
  readonly sessions?: 'apart';
  /** Two connections do not know each other's locks by their owners: Tgetlock names none, as of a program of the host. */
  readonly lockOwners?: 'unknown';
  /** Of `..` in what is mounted below the export a listing has the inode number of that file system, as getdents(2) gives it. */
  readonly mounts?: 'below';
  /** A directory's nlink does not count the directories in it (btrfs). */
  readonly directoryLinks?: 'one';
  /** The longest target that the file system keeps of a symlink. */
  readonly targetBytesMax?: number;
  /** The largest numbers of devices that the file system keeps. */
  readonly devicesMax?: { readonly major: number; readonly minor: number };
  /** A rename over a directory that is not empty fails with this, and elsewhere with ENOTEMPTY; rename(2) has both. */
  readonly renameOver?: 'EEXIST';
  /** Of an xattr that is to be created and to be replaced at once, the second is ignored (xfs); elsewhere it always fails. */
  readonly xattrFlags?: 'create wins';
  /** A set-gid bit without the right to execute stays when others than the group's members write (fuse_setattr of fs/fuse/dir.c). */
  readonly setGid?: 'kept';
  /** A character device 0, 0 cannot be made: it stands for something that is not there (overlayfs). */
  readonly whiteouts?: 'refused';
}

/** Conditions that a server works under. What must hold of its answers is the same in all of them, but for what differs. */
export interface Environment {
  readonly name: string;
  readonly models: readonly ModelName[];
  /** What is mounted on the exported directory; nothing when left out. */
  readonly fileSystem?: FileSystem;
  /** Each directory that tests work in is a mount below the export: of a directory of this file system. */
  readonly below?: FileSystem;
  /** The real program with these options, instead of a server in this process. */
  readonly program?: readonly string[];
  readonly conditions: LocalConditions;
  /** The share that a slow one does of what is repeated a thousand times and more. */
  readonly scale: number;
  readonly differs: Differences;
}

type Part = Partial<Omit<Environment, 'name' | 'models'>> & { readonly models?: readonly ModelName[] };

const bothModels: readonly ModelName[] = ['mapped', 'passthrough'];

/** An environment in which all of the parts hold. */
function environment(name: string, ...parts: readonly Part[]): Environment {
  return {
    ...Object.assign({ name, models: bothModels, scale: 1 }, ...parts),
    conditions: Object.assign({}, ...parts.map(({ conditions }) => conditions)),
    differs: Object.assign({}, ...parts.map(({ differs }) => differs)),
  };
}

const disk: Part = { differs: { requests: 'may wait' } };
const mappedOnly: Part = { models: ['mapped'] };
const passthroughOnly: Part = { models: ['passthrough'] };

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
/** Has no file handles and no unnamed files, and waits for others: all calls are on the pool. */
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
  environment('sandbox-passthrough', disk, passthroughOnly, { program: ['--trusted-xattrs', 'on'] }),
];

/** The environments of these comma-separated names; `all` names all. */
export function environmentsNamed(names: string): readonly Environment[] {
  if (names === 'all') return environments;
  return names.split(',').map(name => {
    const found = environments.find(one => one.name === name);
    if (found) return found;
    const known = environments.map(one => one.name).join(', ');
    throw new Error(`there is no environment ${name}: they are ${known}`);
  });
}
