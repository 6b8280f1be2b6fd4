import { accessSync, constants, existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { Tree } from '#backend/tree.ts';
import { ConfigError } from '#base/config-error.ts';
import type { MaybePromise } from '#base/maybe-promise.ts';
import type { ModelOptions } from '#security/models.ts';

/** What the default export of a module gets. */
export interface TreeModuleContext {
  /** The export's name. */
  readonly name: string;
  /** `source=` of the export: an absolute path or a URL. */
  readonly source: string | undefined;
  /** Writes a warning to the server's log. */
  readonly warn: (text: string) => void;
}

/** The default export of a module that is exported by its path. */
export type MakeTree = (context: TreeModuleContext) => MaybePromise<Tree>;

/** The options of an export that is a module. */
export interface TreeModuleOptions {
  /** The module; ends in .mjs. A relative path starts at the working directory. */
  readonly path: string;
  /** The file, directory or URL that the tree is made of. */
  readonly source?: string;
}

/** Options of exports that mean nothing to a tree of one's own. */
const ofDirectories = {
  securityModel: 'security_model',
  fmode: 'fmode',
  dmode: 'dmode',
  owner: 'owner',
  fileMode: 'file_mode',
  dirMode: 'dir_mode',
  records: 'records',
  chown: 'chown',
  squash: 'squash',
  anonuid: 'anonuid',
  anongid: 'anongid',
  map: 'map',
  check: 'check',
  freezable: 'freezable',
  hostLocks: 'hostlocks',
  multidevs: 'multidevs',
} as const satisfies Record<
  keyof ModelOptions | 'securityModel' | 'freezable' | 'hostLocks' | 'multidevs',
  string
>;

/** The methods without which no client can use a tree. */
const methods = [
  ...[
    'credentials',
    'hold',
    'release',
    'walk',
    'parent',
    'stat',
    'statfs',
    'change',
    'readlink',
    'open',
    'openDir',
  ],
  ...[
    'create',
    'make',
    'link',
    'rename',
    'unlink',
    'isEntry',
    'read',
    'write',
    'sync',
    'closeFile',
    'readdir',
  ],
  ...[
    'closeDir',
    'getXattr',
    'listXattr',
    'setXattr',
    'removeXattr',
    'lock',
    'testLock',
    'forgetLocks',
    'close',
  ],
] as const satisfies readonly (keyof Tree)[];

/** Whether an export is a module that makes a tree. A directory of such a name is exported with a slash at its end. */
export function isTreeModule({ path }: TreeModuleOptions): boolean {
  return path.endsWith('.mjs');
}

const isUrl = (source: string) => /^[a-z][a-z0-9+.-]*:\/\//i.test(source);

/** The file or directory of `source=`; undefined for a URL. */
function sourcePath({ source }: TreeModuleOptions): string | undefined {
  return source === undefined || isUrl(source) ? undefined : resolve(source);
}

/** Problems that keep the module from being loaded, each with what to do. Does not run it. */
export function treeModuleProblems(one: TreeModuleOptions): string[] {
  const problems = Object.entries(ofDirectories).flatMap(([option, key]) =>
    (one as unknown as Readonly<Record<string, unknown>>)[option] === undefined
      ? []
      : [`${key} is for directories, and this is a module that makes its own tree: leave it out`],
  );
  const path = resolve(one.path);
  const file = statSync(path, { throwIfNoEntry: false });
  if (!file) problems.push('the module does not exist: correct the path');
  else if (file.isDirectory())
    problems.push(`a path that ends in .mjs is a module's, and this is a directory: write ${one.path}/`);
  else if (!isReadable(path))
    problems.push('this user may not read the module: change its permissions, or run as another user');
  const source = sourcePath(one);
  if (one.source === '') problems.push('source= is empty: leave it out, or name a file, directory or URL');
  else if (source !== undefined && !isReadable(source))
    problems.push(
      `source=${one.source} does not exist or cannot be read by this user: correct the path (a URL has ://)`,
    );
  return problems;
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

/** Problems in the sandbox, where nothing can be connected to. */
export function treeModuleSandboxProblems(one: TreeModuleOptions): string[] {
  if (!isTreeModule(one) || one.source === undefined || !isUrl(one.source)) return [];
  return [
    `export ${one.path}: source=${one.source} is on a network, and the sandbox lets no module connect to anything: ` +
      'start with --sandbox off, or serve the tree from a program of your own (docs/backends.md)',
  ];
}

/**
 * What the module may read in the sandbox: its folder, the node_modules where Node looks for what it imports, and `source=`.
 */
export function treeModuleReads(one: TreeModuleOptions): string[] {
  const path = resolve(one.path);
  const folders = new Set([dirname(path), dirname(realpathSync(path))]);
  const packages = [...folders].flatMap(folder =>
    ancestors(folder).map(above => join(above, 'node_modules')),
  );
  const source = sourcePath(one);
  return [...folders, ...packages.filter(one => existsSync(one)), ...(source === undefined ? [] : [source])];
}

/** The folder itself and all above it. */
function ancestors(folder: string): string[] {
  const above = dirname(folder);
  return above === folder ? [folder] : [folder, ...ancestors(above)];
}

/** Imports the module and lets it make its tree. Rejects with a `ConfigError`. */
export async function openTreeModule(
  one: TreeModuleOptions,
  name: string,
  warn: (text: string) => void,
): Promise<Tree> {
  const refuse = (text: string) => new ConfigError([`export ${one.path}: ${text}`]);
  const path = resolve(one.path);
  const other = otherNinepd(dirname(realpathSync(path)));
  if (other !== undefined)
    throw refuse(
      `it imports the ninepd of ${other}, but that of ${ownPackage} runs, so that their errors differ: ` +
        'start the one that it imports (npx ninepd in its folder)',
    );
  const source = sourcePath(one) ?? one.source;
  let make: unknown;
  let tree: unknown;
  try {
    ({ default: make } = (await import(pathToFileURL(path).href)) as { default?: unknown });
    if (typeof make === 'function') tree = await (make as MakeTree)({ name, source, warn });
  } catch (error) {
    throw refuse(failureText(error, make !== undefined));
  }
  if (typeof make !== 'function')
    throw refuse(
      'its default export is no function that makes a tree: export default ({ source }) => new MyTree(source)',
    );
  const missing = typeof tree === 'object' && tree !== null ? missingFrom(tree) : ['everything'];
  if (missing.length === 0) return tree as Tree;
  throw refuse(
    `what its default export returns is no tree, since it lacks ${missing.join(', ')}: extend ReadOnlyTree, or implement Tree ` +
      '(docs/backends.md)',
  );
}

function missingFrom(tree: object): string[] {
  const lacking = methods.filter(name => typeof (tree as Record<string, unknown>)[name] !== 'function');
  return [...('root' in tree ? [] : ['root']), ...lacking];
}

function failureText(error: unknown, loaded: boolean): string {
  const { message, stack, code, cause } = (
    error instanceof Error ? error : { message: String(error) }
  ) as NodeJS.ErrnoException & { cause?: NodeJS.ErrnoException };
  const what = `${loaded ? 'its default export failed' : 'it cannot be loaded'}: ${message}${cause === undefined ? '' : ` (${cause})`}`;
  if (code === 'ERR_MODULE_NOT_FOUND' && /'ninepd'/.test(message))
    return `${what}; install ninepd in its folder and start that: npm install ninepd && npx ninepd serve …`;
  if (['EPERM', 'EACCES', 'ENOENT', 'ENOSYS', 'EROFS'].includes(code ?? cause?.code ?? ''))
    return (
      `${what}; in the sandbox a module may read its folder, node_modules and source=, write nothing, and connect to nothing: ` +
      'see docs/backends.md, or start with --sandbox off'
    );
  const place = stack?.split('\n').find(line => /^\s+at /.test(line));
  return place === undefined ? what : `${what}${place.replace(/^\s+/, ' ')}`;
}

/** The package that this file belongs to. */
const ownPackage = realpathSync(fileURLToPath(new URL('../..', import.meta.url)));

/** Where `import 'ninepd'` from a folder leads, if it is another copy, with other classes. Undefined too if it leads nowhere. */
function otherNinepd(folder: string): string | undefined {
  const found = ancestors(folder).flatMap(above => {
    const installed = join(above, 'node_modules', 'ninepd');
    return isNinepd(above) ? [above] : existsSync(installed) ? [installed] : [];
  })[0];
  return found === undefined || realpathSync(found) === ownPackage ? undefined : found;
}

/** A package can import itself by its name. */
function isNinepd(folder: string): boolean {
  try {
    return (
      (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { name?: string }).name === 'ninepd'
    );
  } catch {
    return false;
  }
}
