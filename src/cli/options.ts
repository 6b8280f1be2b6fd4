import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { didYouMean } from '#base/did-you-mean.ts';
import type { ExportOptions } from '#exports/exports.ts';
import { isTreeModule } from '#exports/tree-module.ts';
import { type Limits, msizeBytesDefault, msizeBytesMax, msizeBytesMin, workersMax } from '#quota/limits.ts';
import { modelNames, type SecurityModelName } from '#security/models.ts';
import { type Endpoint, endpointOf } from '#transport/endpoint.ts';
import { parseExport } from './export-option.ts';
import { parseLimits } from './limit-option.ts';
import { wholeNumber } from './number-option.ts';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
const onOff = ['on', 'off'] as const;
export type LogLevel = (typeof logLevels)[number];

/** Options of `serve`, with defaults. */
export interface ServeOptions {
  /** In order. Empty: ./share, which is created if missing. */
  readonly exports: readonly ExportOptions[];
  /** The model of exports that name none. */
  readonly securityModel: SecurityModelName;
  /** Empty: the sockets passed by the service manager, otherwise `defaultListen`. */
  readonly listen: readonly Endpoint[];
  readonly msizeMax: number;
  /** Whether each guest has a worker process of its own, or all share one, or `workers`. */
  readonly isolation: 'guest' | 'none';
  /** Number of processes of isolation `none`; 1 starts no worker. */
  readonly workers: number;
  /** Neither --export nor --security-model was given: a user who is not root may be a developer who serves a directory of its own. */
  readonly quickStart: boolean;
  /** Only those that were given. */
  readonly limits: Partial<Limits>;
  readonly sandbox: boolean;
  /** The user that root becomes. */
  readonly user: string | undefined;
  /** Whether the sandbox leaves CAP_SYS_ADMIN to models whose trusted.* xattrs are the host's. */
  readonly trustedXattrs: boolean;
  /** Whether `passthrough` may listen where every user of the host can connect. */
  readonly insecureLoopback: boolean;
  readonly logLevel: LogLevel;
}

type CommandLine =
  | { readonly command: 'help' | 'version' }
  | { readonly command: 'serve'; readonly options: ServeOptions; readonly problems: readonly string[] };

const options = {
  export: { type: 'string', multiple: true },
  'security-model': { type: 'string' },
  listen: { type: 'string', multiple: true },
  port: { type: 'string' },
  'msize-max': { type: 'string' },
  isolation: { type: 'string' },
  workers: { type: 'string' },
  limit: { type: 'string', multiple: true },
  sandbox: { type: 'string' },
  user: { type: 'string' },
  'trusted-xattrs': { type: 'string' },
  'insecure-loopback': { type: 'boolean' },
  'log-level': { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
} as const;
type OptionName = keyof typeof options;

const commands = ['serve', 'help', 'version'];

/**
 * Parses the arguments after the program's name, without accessing files of the host. `problems` lists everything that is wrong;
 * `options` has the rest.
 */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const problems: string[] = [];
  const { given, words } = readTokens(args, problems);
  const command = isPath(words[0]) ? 'serve' : (words.shift() ?? 'serve');
  if (given.has('help') || command === 'help') return { command: 'help' };
  if (given.has('version') || command === 'version') return { command: 'version' };
  if (command !== 'serve') {
    problems.push(
      `there is no command "${command}"${didYouMean(command, commands)}: the commands are ${commands.join(', ')}; ` +
        `to serve a directory of that name: ./${command}`,
    );
  }
  const [directory, ...rest] = words;
  if (directory === '') problems.push('the directory to serve is an empty name: serve DIR, such as serve .');
  for (const word of rest) problems.push(`"${word}" is a second directory: give further ones with --export`);
  return { command: 'serve', options: serveOptions(given, directory, problems), problems };
}

/** Whether the first word is a directory and no command. */
function isPath(word: string | undefined): boolean {
  return word !== undefined && (word.includes('/') || word.startsWith('.'));
}

type Given = ReadonlyMap<OptionName, readonly string[]>;

function readTokens(args: readonly string[], problems: string[]): { given: Given; words: string[] } {
  const { tokens } = parseArgs({
    args: [...args],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const given = new Map<OptionName, string[]>();
  const words: string[] = [];
  // The word after an unknown option is most likely its value.
  let valueOfUnknown = -1;
  for (const token of tokens) {
    if (token.kind === 'option-terminator') continue;
    if (token.kind === 'positional') {
      if (token.index !== valueOfUnknown) words.push(token.value);
      continue;
    }
    const name = token.name as OptionName;
    if (!Object.hasOwn(options, token.name)) {
      problems.push(
        `there is no option ${token.rawName}${likeOption(token.rawName)}: --help shows those there are`,
      );
      if (token.inlineValue === undefined) valueOfUnknown = token.index + 1;
      continue;
    }
    const problem = tokenProblem(name, token, given);
    if (problem) problems.push(problem);
    else given.set(name, [...(given.get(name) ?? []), token.value ?? '']);
  }
  return { given, words };
}

const written = Object.keys(options).map(name => `--${name}`);
const likeOption = (name: string) => (name.startsWith('--') ? didYouMean(name, written) : '');

function tokenProblem(
  name: OptionName,
  token: { value: string | undefined; inlineValue: boolean | undefined },
  given: Given,
): string | undefined {
  const option = options[name];
  if (option.type === 'boolean') return token.value === undefined ? undefined : `--${name} takes no value`;
  if (
    token.value === undefined ||
    token.value === '' ||
    (!token.inlineValue && token.value.startsWith('--'))
  ) {
    return `--${name} needs a value: --help shows which`;
  }
  return given.has(name) && !('multiple' in option) ? `--${name} is given twice: give it once` : undefined;
}

function serveOptions(given: Given, directory: string | undefined, problems: string[]): ServeOptions {
  const problem = (text: string) => void problems.push(text);
  const one = (name: OptionName) => given.get(name)?.[0];
  const securityModel = choice('security-model', one('security-model'), modelNames, 'mapped', problem);
  const exports = directory ? [{ path: directory }] : [];
  for (const text of given.get('export') ?? []) exports.push(...[parseExport(text, problem) ?? []].flat());
  return {
    exports: exports.map(one => (isTreeModule(one) ? one : { securityModel, ...one })),
    securityModel,
    listen: [
      ...(given.get('listen') ?? []).flatMap(uri => endpoint('listen', uri, problem)),
      ...(given.get('port') ?? []).flatMap(port => endpoint('port', port, problem)),
    ],
    quickStart: !given.has('export') && !given.has('security-model'),
    msizeMax: msizeOf(one('msize-max'), problem),
    isolation: isolationOf(one('isolation'), one('workers'), problem),
    workers: workersOf(one('workers'), problem),
    limits: parseLimits(given.get('limit') ?? [], problem),
    sandbox: choice('sandbox', one('sandbox'), onOff, 'on', problem) === 'on',
    user: one('user'),
    trustedXattrs: choice('trusted-xattrs', one('trusted-xattrs'), onOff, 'off', problem) === 'on',
    insecureLoopback: given.has('insecure-loopback'),
    logLevel: choice('log-level', one('log-level'), logLevels, 'info', problem),
  };
}

function endpoint(name: 'listen' | 'port', value: string, problem: (text: string) => void): Endpoint[] {
  const isPort = /^[0-9]+$/.test(value);
  const found = name === 'listen' || isPort ? endpointOf(value) : 'a number is needed, as in --port 5640';
  if (typeof found !== 'string') return [found];
  problem(`--${name} ${value}: ${found}`);
  return [];
}

function choice<T extends string>(
  name: OptionName,
  value: string | undefined,
  allowed: readonly T[],
  otherwise: T,
  problem: (text: string) => void,
): T {
  if (value === undefined || allowed.includes(value as T)) return (value as T | undefined) ?? otherwise;
  problem(
    `--${name} ${value} is not possible${didYouMean(value, allowed)}: use one of ${allowed.join(', ')}`,
  );
  return otherwise;
}

function msizeOf(value: string | undefined, problem: (text: string) => void): number {
  if (value === undefined) return msizeBytesDefault;
  const bytes = wholeNumber(value) ?? Number.NaN;
  if (bytes >= msizeBytesMin && bytes <= msizeBytesMax) return bytes;
  problem(
    `--msize-max ${value} is not possible: give a number of bytes from ${msizeBytesMin} to ${msizeBytesMax}, such as 1M`,
  );
  return msizeBytesDefault;
}

/** A number of workers is for guests that share them. */
function isolationOf(
  value: string | undefined,
  workers: string | undefined,
  problem: (text: string) => void,
): 'guest' | 'none' {
  const isolation = choice('isolation', value, ['guest', 'none'], 'none', problem);
  if (isolation === 'guest' && workers !== undefined)
    problem(`--workers ${workers} is for --isolation none: with guest, each guest has a worker`);
  return isolation;
}

function workersOf(value: string | undefined, problem: (text: string) => void): number {
  if (value === undefined) return 1;
  if (value === 'auto') return Math.min(availableParallelism(), workersMax);
  const count = /^[0-9]+$/.test(value) ? Number(value) : Number.NaN;
  if (count >= 1 && count <= workersMax) return count;
  problem(`--workers ${value} is not possible: give a number of processes from 1 to ${workersMax}, or auto`);
  return 1;
}
