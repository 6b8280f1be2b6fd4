import type { HostErrorLog } from '#base/host-error-log.ts';
import type { SecurityModel } from './model.ts';
import { parseOwner, serverOwner } from './owner.ts';
import type { GroupsOf } from './passthrough.ts';
import type { IdOptions } from './squash.ts';

/** Options of an export that belong to its security model. */
export interface ModelOptions extends IdOptions {
  /** Permission bits of files on the host. Default: 0600. */
  readonly fmode?: number;
  /** Permission bits of directories on the host. Default: 0700. */
  readonly dmode?: number;
  /**
   * `UID:GID`: the owner that guests see; with `mapped` only of objects without a record. `caller`, with `none`: each user sees itself
   * as the owner. Default: the server's uid and gid with `none`, the host's with `mapped`.
   */
  readonly owner?: string;
  /** Permission bits that guests see of regular files and directories without a record. Default: the host's. */
  readonly fileMode?: number;
  readonly dirMode?: number;
  /** Records besides those of QEMU that are read: Podman's and libkrun's user.containers.override_stat. */
  readonly records?: 'override_stat';
  /** What a guest's chown does: succeed without effect (the default), or fail with EPERM. */
  readonly chown?: 'ignore' | 'refuse';
}

/** What a server gives to the models of its exports. */
export interface ModelServices {
  readonly hostErrors: HostErrorLog;
  readonly groupsOf: GroupsOf;
}

/** What a model needs of the process and of the directory that it serves. */
export interface ModelNeeds {
  /** Effective capabilities, without which nothing is served: capabilities(7). */
  readonly capabilities: readonly string[];
  /** Capabilities that the sandbox leaves to root besides; without them single requests fail. */
  readonly furtherCapabilities: readonly string[];
  /** Host calls run with the ids and groups of the guest's users: the server must stay root. */
  readonly guestCreds: boolean;
  /** Permission bits are the host's: the server calls chmod(2), which the seccomp filter refuses otherwise. */
  readonly modes: boolean;
  /** A guest's trusted.* xattrs are the host's, for which `--trusted-xattrs on` keeps CAP_SYS_ADMIN: xattr(7). */
  readonly trustedXattrs: boolean;
  /** A file system with user.* xattrs: xattr(7). */
  readonly userXattrs: boolean;
}

/** A security model that an export can choose. */
export interface ModelEntry {
  readonly name: string;
  readonly aliases: readonly string[];
  /** Lines for `--help`, of at most 75 characters. */
  readonly summary: readonly string[];
  /** The options that it takes; all others are refused. */
  readonly options: readonly (keyof ModelOptions)[];
  readonly needs: ModelNeeds;
  /** What is wrong with values of its options, each with what to do. */
  readonly problems?: (options: ModelOptions) => string[] | Promise<string[]>;
  /** Imports the implementation, which needs the addon; `--help` works without. */
  readonly create: (options: ModelOptions, services: ModelServices) => Promise<SecurityModel>;
}

const needsNothing: ModelNeeds = {
  capabilities: [],
  furtherCapabilities: [],
  guestCreds: false,
  modes: false,
  trustedXattrs: false,
  userXattrs: false,
};

export const recordKinds = ['override_stat'] as const;
export const chowns = ['ignore', 'refuse'] as const;
const idOptions = ['squash', 'anonuid', 'anongid', 'map'] as const;

const ownerProblems = ({ owner }: ModelOptions): string[] =>
  owner === undefined || parseOwner(owner)
    ? []
    : [`owner=${owner} is no owner: write owner=UID:GID, as in owner=1000:1000`];

/** The registry of security models. The first is the default. */
export const models = [
  {
    name: 'mapped',
    aliases: ['mapped-xattr'],
    summary: [
      'files belong to the user that runs ninepd; owner, mode and type as',
      'guests see them are kept in extended attributes. Needs no privilege.',
    ],
    options: ['fmode', 'dmode', 'owner', 'fileMode', 'dirMode', 'records'],
    needs: { ...needsNothing, userXattrs: true },
    problems: ({ owner, records }) => [
      ...ownerProblems({ owner }),
      ...(records === undefined || recordKinds.includes(records)
        ? []
        : [`records=${records} is not possible: use records=override_stat`]),
    ],
    create: async (
      { fmode = 0o600, dmode = 0o700, owner = '', records, fileMode, dirMode },
      { hostErrors },
    ) => {
      const { mapped } = await import('./mapped.ts');
      const shown = { owner: parseOwner(owner), fileMode, dirMode, overrideStat: records !== undefined };
      return mapped({ fmode, dmode, ...shown }, text => hostErrors.badRecord(text));
    },
  },
  {
    name: 'mapped-file',
    aliases: [],
    summary: [
      'the same in files of hidden .virtfs_metadata directories, for file',
      'systems without extended attributes. Slower than mapped.',
    ],
    options: ['fmode', 'dmode', 'owner', 'fileMode', 'dirMode'],
    needs: needsNothing,
    problems: ownerProblems,
    create: async ({ fmode = 0o600, dmode = 0o700, owner = '', fileMode, dirMode }, { hostErrors }) => {
      const { mappedFile } = await import('./mapped-file.ts');
      const shown = { owner: parseOwner(owner), fileMode, dirMode };
      return mappedFile({ fmode, dmode, ...shown }, text => hostErrors.badRecord(text));
    },
  },
  {
    name: 'passthrough',
    aliases: [],
    summary: ["files belong to the guest's users and groups. Needs root."],
    options: [...idOptions, 'check'],
    needs: {
      ...needsNothing,
      capabilities: ['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_SETGID', 'CAP_SETUID'],
      furtherCapabilities: ['CAP_MKNOD', 'CAP_SETFCAP'],
      guestCreds: true,
      modes: true,
      trustedXattrs: true,
    },
    problems: idProblems,
    create: async (options, { hostErrors, groupsOf }) => {
      const { passthrough } = await import('./passthrough.ts');
      const { checkOf, guestsObjects } = await import('./squash.ts');
      const check = checkOf(options);
      const model = passthrough(groupsOf, { check, over: guestsObjects(options), log: hostErrors });
      return mappingIds(model, options);
    },
  },
  {
    name: 'none',
    aliases: [],
    summary: [
      'files belong to the user that runs ninepd, and are what the guest makes:',
      'exec bits and symlinks are real. For guests that you trust like programs',
      'of your own. Needs no privilege.',
    ],
    options: ['owner', 'chown'],
    needs: { ...needsNothing, modes: true },
    problems: ({ owner, chown }) => [
      ...(owner === undefined || owner === 'caller' || parseOwner(owner)
        ? []
        : [`owner=${owner} is no owner: write owner=UID:GID, as in owner=1000:1000, or owner=caller`]),
      ...(chown === undefined || chowns.includes(chown)
        ? []
        : [`chown=${chown} is not possible: use chown=ignore or chown=refuse`]),
    ],
    create: async ({ owner = '', chown = 'ignore' }) => {
      const { none } = await import('./none.ts');
      const { effectiveCapabilities } = await import('#host/process.ts');
      return none({
        owner: owner === 'caller' ? owner : (parseOwner(owner) ?? serverOwner()),
        chown,
        clearsSetIds: effectiveCapabilities().has('CAP_FSETID'),
      });
    },
  },
] as const satisfies readonly ModelEntry[];

export type SecurityModelName = (typeof models)[number]['name'] | (typeof models)[number]['aliases'][number];

/** All names and aliases. */
export const modelNames = models.flatMap(({ name, aliases }) => [name, ...aliases]) as SecurityModelName[];

/** The entry of a model's name or of a model of the caller's own. Undefined for an unknown name. */
export function modelEntry(model: SecurityModelName | SecurityModel = 'mapped'): ModelEntry | undefined {
  if (typeof model === 'string')
    return models.find((one: ModelEntry) => one.name === model || one.aliases.includes(model));
  const create = (options: ModelOptions) => mappingIds(model, options);
  return {
    ...{ name: model.name, aliases: [], summary: [], options: idOptions },
    ...{ needs: needsNothing, problems: idProblems, create },
  };
}

async function idProblems(options: IdOptions): Promise<string[]> {
  const squash = await import('./squash.ts');
  return squash.idProblems(options);
}

async function mappingIds(model: SecurityModel, options: IdOptions): Promise<SecurityModel> {
  const { withIds } = await import('./squash.ts');
  return withIds(model, options);
}

/** The names of the models whose entries fulfil `test`, as in "mapped or passthrough". */
export function modelsWhere(test: (entry: ModelEntry) => boolean): string {
  return (models as readonly ModelEntry[])
    .filter(test)
    .map(({ name }) => name)
    .join(' or ');
}

/** The problems of values, and of options that the model does not take: one for each set of models that do. */
export async function optionProblems(entry: ModelEntry, options: ModelOptions): Promise<string[]> {
  const all = [...new Set((models as readonly ModelEntry[]).flatMap(one => one.options))];
  const refused = all.filter(key => hasEffect(options[key]) && !entry.options.includes(key));
  const takenBy = (key: keyof ModelOptions) => modelsWhere(one => one.options.includes(key));
  const foreign = [...new Set(refused.map(takenBy))].map(takers => {
    const keys = refused.filter(key => takenBy(key) === takers).map(keyOf);
    const [are, them] = keys.length > 1 ? ['are', 'them'] : ['is', 'it'];
    return (
      `${keys.join(' and ')} ${are} for security_model=${takers}, but this export has ` +
      `security_model=${entry.name}: leave ${them} out, or choose another model`
    );
  });
  return [...foreign, ...((await entry.problems?.(options)) ?? [])];
}

/** The key of an option on the command line. */
function keyOf(option: keyof ModelOptions): string {
  return option.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`);
}

/** False for an absent option, `squash=none` and an empty `map`. */
function hasEffect(value: ModelOptions[keyof ModelOptions]): boolean {
  return value !== undefined && value !== 'none' && !(Array.isArray(value) && value.length === 0);
}
