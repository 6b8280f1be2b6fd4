import { resolve } from 'node:path';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { Tree } from '#backend/tree.ts';
import { ConfigError } from '#base/config-error.ts';
import { didYouMean } from '#base/did-you-mean.ts';
import { HostErrorLog } from '#base/host-error-log.ts';
import { type Logger, silent } from '#base/log.ts';
import type { Bytes } from '#base/name.ts';
import type { Peer } from '#base/peer.ts';
import { descriptorLimit, groupsOf as groupsOfHost } from '#host/process.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { defaultLimits, type Limits } from '#quota/limits.ts';
import type { SecurityModel } from '#security/model.ts';
import {
  type ModelOptions,
  modelEntry,
  modelNames,
  optionProblems,
  type SecurityModelName,
} from '#security/models.ts';
import type { GroupsOf } from '#security/passthrough.ts';
import { Access, type AccessOptions, accessProblems } from './access.ts';
import { isTreeModule, openTreeModule, type TreeModuleOptions, treeModuleProblems } from './tree-module.ts';
import { checkedRoot } from './validate.ts';

/** Options of every export, whatever its backend. */
export interface GuestOptions extends AccessOptions {
  readonly readonly?: boolean;
}

/** A directory of the host for guests to mount, or a module that makes a tree. */
export interface ExportOptions extends GuestOptions, ModelOptions, TreeModuleOptions {
  /**
   * The directory; a relative path starts at the working directory. A path that ends in .mjs is a module, whose default export
   * is a `MakeTree`.
   */
  readonly path: string;
  /** Its aname; default: its path. */
  readonly name?: string;
  /** Default: `mapped`. An object is a model of the caller's own. */
  readonly securityModel?: SecurityModelName | SecurityModel;
  /** Its file systems are frozen now and then (FIFREEZE): whatever changes them, nobody else has to wait for that. */
  readonly freezable?: boolean;
  /**
   * Of a `readonly` export: whether guests' locks keep programs of the host out. Default: true. With false they hold between the
   * guests of one process alone.
   */
  readonly hostLocks?: boolean;
  /** What is mounted below the directory: `remap`, served with inode numbers of its own (the default), or `forbid`, refused. */
  readonly multidevs?: 'remap' | 'forbid';
}

export function exportName({ name, path }: ExportOptions): string {
  return name ?? resolve(path);
}

/** A backend of the caller's own. The server does not close it. */
export interface TreeExport extends GuestOptions {
  readonly name: string;
  readonly tree: Tree;
}

/** An opened export. */
export interface Export {
  readonly name: string;
  /** The directory of the host; for a `TreeExport`, the name. */
  readonly path: string;
  readonly model: string;
  readonly readonly: boolean;
  readonly tree: Tree;
  readonly access: Access;
  readonly hostErrors?: HostErrorLog;
}

/**
 * Descriptors reserved for other uses than trees and connections: listeners, the event loop, those that a request opens
 * briefly.
 */
const descriptorsReserved = 256;

interface OpenOptions {
  readonly log?: Logger | undefined;
  readonly limits?: Partial<Limits> | undefined;
  readonly groupsOf?: GroupsOf | undefined;
}

/** The exports of a server, in order. The first is the default, for an empty aname. */
export class Exports {
  readonly #list: readonly Export[];
  /** Trees that were opened here, to be closed here. */
  readonly #own: readonly Tree[];
  readonly #byName = new Map<Bytes, Export>();

  private constructor(list: readonly Export[], own: readonly Tree[]) {
    this.#list = list;
    this.#own = own;
    // A name takes precedence over a path, and the first of two exports of one path over the second.
    for (const of of ['name', 'path'] as const) {
      for (const one of list) {
        const key = asBytes(one[of]);
        if (!this.#byName.has(key)) this.#byName.set(key, one);
      }
    }
  }

  /** Opens every directory. Rejects with a `ConfigError` that lists all problems of all exports; then nothing stays open. */
  static async open(
    options: readonly (ExportOptions | TreeExport)[],
    { log = silent, limits = {}, groupsOf = groupsOfHost }: OpenOptions,
  ): Promise<Exports> {
    const problems = await exportProblems(options);
    if (options.length === 0) problems.push('there is nothing to export: name a directory');
    if (problems.length > 0) throw new ConfigError(problems);
    const limit = descriptorLimit();
    const { connections } = { ...defaultLimits, ...limits };
    const descriptors = new FdBudget(Math.max(limit - connections - descriptorsReserved, limit >> 1));
    const own: Tree[] = [];
    const list: Export[] = [];
    try {
      for (const one of options) {
        if ('tree' in one) {
          const { name, tree, readonly = false } = one;
          const access = new Access(one);
          list.push({ name, path: name, model: 'a backend of its own', readonly, tree, access });
          continue;
        }
        const path = resolve(one.path);
        const name = exportName(one);
        if (isTreeModule(one)) {
          const tree = await openTreeModule(one, name, text => log.warn(`${name}: ${text}`));
          own.push(tree);
          const { readonly = false } = one;
          list.push({ name, path, model: 'a tree of its own', readonly, tree, access: new Access(one) });
          continue;
        }
        const ownModel = typeof one.securityModel === 'object' ? one.securityModel.name : undefined;
        const hostErrors = new HostErrorLog(text => log.warn(`${name}: ${text}`), ownModel);
        const model = await modelEntry(one.securityModel)!.create(one, { hostErrors, groupsOf });
        const readonly = one.readonly ?? false;
        const { freezable = false } = one;
        const oneMount = one.multidevs === 'forbid';
        const { hostLocks = true } = one;
        const tree = await LocalTree.open(path, {
          ...{ descriptors, model, readonly, freezable, oneMount, hostLocks },
        });
        own.push(tree);
        const access = new Access(one);
        list.push({ name, path, model: model.name, readonly, tree, access, hostErrors });
      }
      return new Exports(list, own);
    } catch (error) {
      // A directory was removed since the check.
      for (const tree of own) tree.close();
      throw error;
    }
  }

  [Symbol.iterator](): Iterator<Export> {
    return this.#list[Symbol.iterator]();
  }

  /** Why no export, or not `only`, is for the peer; undefined if one is. For the host's log. */
  refusal(peer: Peer, only?: Export): string | undefined {
    const refusals = (only ? [only] : this.#list).map(({ access }) => access.refusal(peer));
    return refusals.includes(undefined) ? undefined : refusals[0];
  }

  /** The export of an attach: the first for an empty aname and for `/`, otherwise by name or path. */
  find(aname: Bytes): Export | undefined {
    return aname === '' || aname === '/' ? this.#list[0] : this.#byName.get(aname);
  }

  /** Closes the directories that were opened here. No session may use them any more. */
  close(): void {
    for (const tree of this.#own) tree.close();
  }
}

/** UTF-8 bytes of a string, as in messages. */
function asBytes(text: string): Bytes {
  return Buffer.from(text).toString('latin1');
}

/** All problems that keep the exports from being served. Leaves nothing open or changed. */
export async function exportProblems(options: readonly (ExportOptions | TreeExport)[]): Promise<string[]> {
  const problems: string[] = [];
  const seen = new Map<string, string>();
  for (const [index, one] of options.entries()) {
    const what = 'tree' in one ? one.name : one.path;
    const name = 'tree' in one ? one.name : exportName(one);
    const report = (text: string) => problems.push(`export ${what}: ${text}`);
    for (const problem of [...nameProblems(one.name, name, index), ...accessProblems(one)]) report(problem);
    const twin = seen.get(name);
    if (twin !== undefined)
      report(`it has the same name as export ${twin}, "${name}": give one of them another with name=`);
    seen.set(name, what);
    if (!('tree' in one)) for (const problem of await directoryProblems(one)) report(problem);
  }
  return problems;
}

async function directoryProblems(one: ExportOptions): Promise<string[]> {
  if (isTreeModule(one)) return treeModuleProblems(one);
  const { path, securityModel, readonly = false, hostLocks = true } = one;
  if (one.source !== undefined) return ['source= is for a module that makes a tree, PATH.mjs: leave it out'];
  const entry = modelEntry(securityModel);
  if (!entry)
    return [
      `there is no security model "${securityModel as string}"${didYouMean(`${securityModel}`, modelNames)}: ` +
        `choose ${modelNames.join(' or ')}`,
    ];
  const problems = [
    ...(await optionProblems(entry, one)),
    ...(await checkedRoot(resolve(path), entry, readonly)),
  ];
  if (!hostLocks && !readonly)
    problems.push('hostlocks=off is for readonly=on: where guests write, their locks must hold on the host');
  return problems;
}

function nameProblems(given: string | undefined, name: string, index: number): string[] {
  if (given === '') return ['its name is empty: give it one, or leave name= out'];
  if (given === '/') return ['the name "/" is that of the first export: choose another'];
  // mount(8) splits its options at commas, and has no escape.
  if (name.includes(',') && (given !== undefined || index > 0)) {
    return [`no guest can ask for the name "${name}", since it has a comma: give it another with name=`];
  }
  return [];
}
