import { resolve } from 'node:path';
import { LocalTree } from '#backend/local/local-tree.ts';
import type { Tree } from '#backend/tree.ts';
import { ConfigError } from '#base/config-error.ts';
import { HostErrorLog } from '#base/host-error-log.ts';
import { type Logger, silent } from '#base/log.ts';
import type { Bytes } from '#base/name.ts';
import { descriptorLimit, groupsOf as groupsOfHost } from '#host/process.ts';
import { FdBudget } from '#quota/fd-budget.ts';
import { defaultLimits, type Limits } from '#quota/limits.ts';
import { mapped } from '#security/mapped.ts';
import type { SecurityModel } from '#security/model.ts';
import { type GroupsOf, passthrough } from '#security/passthrough.ts';
import { type IdOptions, idProblems, withIds } from '#security/squash.ts';
import { Access, type AccessOptions, accessProblems } from './access.ts';
import { checkedRoot } from './validate.ts';

export type SecurityModelName = 'mapped' | 'passthrough';

/** What holds of an export whatever is behind it. */
export interface GuestOptions extends AccessOptions {
  readonly readonly?: boolean;
}

/** A directory of the host for guests to mount. */
export interface ExportOptions extends GuestOptions, IdOptions {
  /** The directory; a relative path is taken from the working directory. */
  readonly path: string;
  /** What a guest calls it (aname); its path when left out. */
  readonly name?: string;
  /** `mapped` when left out; or a model of one's own. */
  readonly securityModel?: SecurityModelName | SecurityModel;
  /** Permission bits of files on the host; `mapped` only, 0600 when left out. */
  readonly fmode?: number;
  /** Permission bits of directories on the host; `mapped` only, 0700 when left out. */
  readonly dmode?: number;
}

export function exportName({ name, path }: ExportOptions): string {
  return name ?? resolve(path);
}

/** A backend of the caller's own for guests to mount. It stays the caller's: the server does not close it. */
export interface TreeExport extends GuestOptions {
  readonly name: string;
  readonly tree: Tree;
}

/** An export as sessions see it. */
export interface Export {
  readonly name: string;
  /** The directory of the host; the name again for a backend of one's own. */
  readonly path: string;
  readonly model: string;
  readonly readonly: boolean;
  readonly tree: Tree;
  /** Who may attach. */
  readonly access: Access;
  readonly hostErrors?: HostErrorLog;
}

/** Descriptors that are not for the trees, besides connections: listeners, the event loop, what a request holds for a moment. */
const descriptorsKept = 256;

interface OpenOptions {
  readonly log?: Logger | undefined;
  readonly limits?: Partial<Limits> | undefined;
  readonly groupsOf?: GroupsOf | undefined;
}

/** The exports of a server, in their order: the first is the one that a guest gets which asks for none. */
export class Exports {
  readonly #list: readonly Export[];
  /** The trees that were opened here, and are closed here. */
  readonly #own: readonly Tree[];
  readonly #byName = new Map<Bytes, Export>();

  private constructor(list: readonly Export[], own: readonly Tree[]) {
    this.#list = list;
    this.#own = own;
    // A name wins over a path, and the first of two exports of one path over the second.
    for (const of of ['name', 'path'] as const) {
      for (const one of list) {
        const key = asBytes(one[of]);
        if (!this.#byName.has(key)) this.#byName.set(key, one);
      }
    }
  }

  /** Opens every directory. Throws `StartFaults` with all that is wrong with any of them, and then holds nothing. */
  static async open(
    options: readonly (ExportOptions | TreeExport)[],
    { log = silent, limits = {}, groupsOf = groupsOfHost }: OpenOptions,
  ): Promise<Exports> {
    const problems = await exportProblems(options);
    if (options.length === 0) problems.push('there is nothing to export: name a directory');
    if (problems.length > 0) throw new ConfigError(problems);
    const limit = descriptorLimit();
    const { connections } = { ...defaultLimits, ...limits };
    const descriptors = new FdBudget(Math.max(limit - connections - descriptorsKept, limit >> 1));
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
        const hostErrors = new HostErrorLog(text => log.warn(`${name}: ${text}`));
        const model = modelOf(one, hostErrors, groupsOf);
        const readonly = one.readonly ?? false;
        const tree = await LocalTree.open(path, { descriptors, model, readonly });
        own.push(tree);
        const access = new Access(one);
        list.push({ name, path, model: model.name, readonly, tree, access, hostErrors: hostErrors });
      }
      return new Exports(list, own);
    } catch (error) {
      // Gone between the check and now.
      for (const tree of own) tree.close();
      throw error;
    }
  }

  [Symbol.iterator](): Iterator<Export> {
    return this.#list[Symbol.iterator]();
  }

  /** The export that an attach asks for: the first for an empty aname and `/`, otherwise by name or path. */
  find(aname: Bytes): Export | undefined {
    return aname === '' || aname === '/' ? this.#list[0] : this.#byName.get(aname);
  }

  /** Lets go of every directory that was opened here. No session may use one any more. */
  close(): void {
    for (const tree of this.#own) tree.close();
  }
}

function modelOf(options: ExportOptions, hostErrors: HostErrorLog, groupsOf: GroupsOf): SecurityModel {
  const { securityModel = 'mapped', fmode = 0o600, dmode = 0o700 } = options;
  if (typeof securityModel === 'object') return withIds(securityModel, options);
  if (securityModel === 'passthrough') return withIds(passthrough(groupsOf), options);
  return mapped({ fmode, dmode }, text => hostErrors.badRecord(text));
}

/** The wire knows bytes only. */
function asBytes(text: string): Bytes {
  return Buffer.from(text).toString('latin1');
}

/** Everything that keeps these exports from being served; opens and leaves nothing. */
export async function exportProblems(options: readonly (ExportOptions | TreeExport)[]): Promise<string[]> {
  const problems: string[] = [];
  const seen = new Map<string, string>();
  for (const [index, one] of options.entries()) {
    const what = 'tree' in one ? one.name : one.path;
    const name = 'tree' in one ? one.name : exportName(one);
    const about = (text: string) => problems.push(`export ${what}: ${text}`);
    for (const problem of [...nameFaults(one.name, name, index), ...accessProblems(one)]) about(problem);
    const twin = seen.get(name);
    if (twin !== undefined)
      about(`it has the same name as export ${twin}, "${name}": give one of them another with name=`);
    seen.set(name, what);
    if (!('tree' in one)) for (const problem of await directoryFaults(one)) about(problem);
  }
  return problems;
}

async function directoryFaults(one: ExportOptions): Promise<string[]> {
  const { path, securityModel = 'mapped', readonly = false, fmode, dmode } = one;
  const needs = typeof securityModel === 'object' ? undefined : securityModel;
  const problems = [
    ...idProblems(one, needs !== 'mapped'),
    ...(await checkedRoot(resolve(path), needs, readonly)),
  ];
  if (needs !== 'passthrough' || (fmode ?? dmode) === undefined) return problems;
  return [
    'fmode and dmode are for security_model=mapped: with passthrough the guest decides, so leave them out',
    ...problems,
  ];
}

function nameFaults(given: string | undefined, name: string, index: number): string[] {
  if (given === '') return ['its name is empty: give it one, or leave name= out'];
  if (given === '/') return ['the name "/" is that of the first export: choose another'];
  // The options of mount(8) are cut at commas, whatever is in them.
  if (name.includes(',') && (given !== undefined || index > 0)) {
    return [`no guest can ask for the name "${name}", since it has a comma: give it another with name=`];
  }
  return [];
}
