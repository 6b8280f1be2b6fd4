import { resolve } from 'node:path';
import { checkedRoot } from './export-checks.ts';
import { inline, pool } from './host/linux.ts';
import { descriptorLimit, groupsOf } from './host/process.ts';
import { connectionsMax } from './limits.ts';
import type { Logger } from './log.ts';
import type { Bytes } from './name.ts';
import { mapped } from './security/mapped.ts';
import type { SecurityModel } from './security/model.ts';
import { passthrough } from './security/passthrough.ts';
import { StartFaults } from './start-faults.ts';
import { Descriptors } from './tree/descriptors.ts';
import { LocalTree } from './tree/local-tree.ts';
import type { Tree } from './tree/tree.ts';

export type SecurityModelName = 'mapped' | 'passthrough';

/** A directory of the host for guests to mount. */
export interface ExportOptions {
  /** The directory; a relative path is taken from the working directory. */
  readonly path: string;
  /** What a guest calls it (aname); its path when left out. */
  readonly name?: string;
  /** `mapped` when left out. */
  readonly securityModel?: SecurityModelName;
  readonly readonly?: boolean;
  /** Permission bits of files on the host; `mapped` only, 0600 when left out. */
  readonly fmode?: number;
  /** Permission bits of directories on the host; `mapped` only, 0700 when left out. */
  readonly dmode?: number;
}

/** An export as sessions see it. */
export interface Export {
  readonly name: string;
  readonly path: string;
  readonly model: string;
  readonly readonly: boolean;
  readonly tree: Tree;
}

/**
 * Descriptors that are not for the trees: connections, listeners, the event loop, and what a request holds for a moment.
 */
const descriptorsKept = connectionsMax + 256;

/** The exports of a server, in their order: the first is the one that a guest gets which asks for none. */
export class Exports {
  readonly #list: readonly Export[];
  readonly #byName = new Map<Bytes, Export>();

  private constructor(list: readonly Export[]) {
    this.#list = list;
    // A name wins over a path, and the first of two exports of one path over the second.
    for (const of of ['name', 'path'] as const) {
      for (const one of list) {
        const key = asBytes(one[of]);
        if (!this.#byName.has(key)) this.#byName.set(key, one);
      }
    }
  }

  /** Opens every directory. Throws `StartFaults` with all that is wrong with any of them, and then holds nothing. */
  static async open(options: readonly ExportOptions[], log: Logger): Promise<Exports> {
    const faults = await exportFaults(options);
    if (options.length === 0) faults.push('there is nothing to export: name a directory');
    if (faults.length > 0) throw new StartFaults(faults);
    const limit = descriptorLimit();
    const descriptors = new Descriptors(Math.max(limit - descriptorsKept, limit >> 1));
    const list: Export[] = [];
    try {
      for (const one of options) {
        const path = resolve(one.path);
        const name = one.name ?? path;
        const model = modelOf(one, name, log);
        const tree = await LocalTree.open(path, { inline, pool, descriptors, model });
        list.push({ name, path, model: model.name, readonly: one.readonly ?? false, tree });
      }
      return new Exports(list);
    } catch (error) {
      // Gone between the check and now.
      for (const { tree } of list) tree.close();
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

  /** Lets go of every directory. No session may use one any more. */
  close(): void {
    for (const { tree } of this.#list) tree.close();
  }
}

/** What a session is given to find exports by. */
export type Finder = Pick<Exports, 'find'>;

/** The same for one connection: says once of each export that it is used, and once that one is asked for in vain. */
export function announcing(exports: Finder, say: (text: string) => void): Finder {
  const said = new Set<Export | undefined>();
  return {
    find: aname => {
      const found = exports.find(aname);
      if (said.has(found)) return found;
      said.add(found);
      if (found) say(`uses ${found.name} (${found.model}${found.readonly ? ', read-only' : ''})`);
      // The client's bytes, made fit for a log.
      else say(`asks for ${JSON.stringify(aname.slice(0, 64))}, which is no export`);
      return found;
    },
  };
}

function modelOf(options: ExportOptions, name: string, log: Logger): SecurityModel {
  if (options.securityModel === 'passthrough') return passthrough(groupsOf);
  const { fmode = 0o600, dmode = 0o700 } = options;
  return mapped({ fmode, dmode }, text => log.warn(`${name}: ${text}`));
}

/** The wire knows bytes only. */
function asBytes(text: string): Bytes {
  return Buffer.from(text).toString('latin1');
}

/** Everything that keeps these exports from being served; opens and leaves nothing. */
export async function exportFaults(options: readonly ExportOptions[]): Promise<string[]> {
  const faults: string[] = [];
  const seen = new Map<string, string>();
  for (const [index, one] of options.entries()) {
    const path = resolve(one.path);
    const name = one.name ?? path;
    const about = (text: string) => faults.push(`export ${one.path}: ${text}`);
    for (const fault of nameFaults(one, name, index)) about(fault);
    const twin = seen.get(name);
    if (twin !== undefined)
      about(`it has the same name as export ${twin}, "${name}": give one of them another with name=`);
    seen.set(name, one.path);
    if (one.securityModel === 'passthrough' && (one.fmode ?? one.dmode) !== undefined) {
      about(
        'fmode and dmode are for security_model=mapped: with passthrough the guest decides, so leave them out',
      );
    }
    for (const fault of await checkedRoot(path, one.securityModel ?? 'mapped', one.readonly ?? false))
      about(fault);
  }
  return faults;
}

function nameFaults(options: ExportOptions, name: string, index: number): string[] {
  if (options.name === '') return ['its name is empty: give it one, or leave name= out'];
  if (options.name === '/') return ['the name "/" is that of the first export: choose another'];
  // The options of mount(8) are cut at commas, whatever is in them.
  if (name.includes(',') && (options.name !== undefined || index > 0)) {
    return [`no guest can ask for the name "${name}", since it has a comma: give it another with name=`];
  }
  return [];
}
