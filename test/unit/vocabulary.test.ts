import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Names that were replaced by the field's own (docs/glossary.md), and what to say instead. */
const replaced: Readonly<Record<string, string>> = {
  Answer: 'MaybePromise',
  attempt: 'onError',
  lastly: 'andFinally',
  inOrder: 'series',
  Door: 'SessionPort',
  Line: 'TransportPort',
  byHand: 'fast path',
  byTable: 'generic path',
  LockWish: 'LockRequest',
  LockPlace: 'FileLockTable',
  LockInTheWay: 'BlockingLock',
  HostTrouble: 'HostErrorLog',
  tellOfHost: 'reportHostError',
  letGoOfAll: 'teardown',
  partyOf: 'peerKey',
  SparingLog: 'RateLimitedLog',
  Holdings: 'SessionQuota',
  Shares: 'ServerShare',
  finderFor: 'exportsFor',
  Reach: 'Audience',
  stayAwake: 'busyPoll',
  VhostUserFace: 'VhostUserListener',
  hush: 'disableKicks',
  Strain: 'Contention',
  Caller: 'Credentials',
  serverCaller: 'serverCreds',
  runsAs: 'credsFor',
  makesAs: 'credsForCreate',
  Actor: 'CallContext',
  Maker: 'Creator',
  Leftovers: 'Orphans',
  EntryTypes: 'DTypeCache',
  asItIs: 'raw',
  putOff: 'defer',
  ownPrefix: 'reservedPrefix',
  ownRoot: 'privateRoot',
  StartFaults: 'ConfigError',
  Inbox: 'FrameBuffer',
  Outbox: 'SendQueue',
  noUser: 'noId',
};

/** Names that were replaced in tests, scripts and benchmarks. */
const replacedInTests: Readonly<Record<string, string>> = {
  Stage: 'ServerHarness',
  dialog: 'client',
  silentWire: 'unversionedConnection',
  BackEnd: 'Backend',
  backEnd: 'backend',
  Bench: 'GuestFixture',
  BenchMaker: 'FixtureFactory',
  effort: 'scale',
  Way: 'GuestTransport',
  WayMaker: 'OpenTransport',
  Speaker: 'FuzzClient',
  speaker: 'client',
  Talker: 'RequestSender',
  talker: 'sender',
  Manner: 'ModelOptions',
  manner: 'modelOptions',
  Lane: 'TempExport',
  lane: 'export',
  Thing: 'ModelNode',
  things: 'nodes',
  Conversation: 'ModelSession',
  conversation: 'modelSession',
  Intruder: 'RaceClient',
  intruder: 'client',
  Jostler: 'ChaosClient',
  jostler: 'chaos client',
  troubles: 'faults',
  talkNonsense: 'sendGarbage',
  wish: 'lock request',
  mustEqual: 'assertEqual',
  byHand: 'fast path',
  eventDescriptor: 'eventfd',
};

/** Names that were replaced in native-shims. */
const replacedInShims: Readonly<Record<string, string>> = {
  places: 'pools',
  apart: 'child, or slow',
  carrier: 'creds thread',
  making: 'private_root',
  sever: 'detach',
  keeper: 'supervisor',
  stranger: 'peer',
};

/** Calls with a name that is no term. */
const replacedCalls: Readonly<Record<string, string>> = { must: 'assert' };

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap(entry => {
    const path = join(directory, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

const sources = filesBelow(join(root, 'src')).filter(path => path.endsWith('.ts'));
const tests = ['test', 'scripts', 'bench']
  .flatMap(name => filesBelow(join(root, name)))
  .filter(path => /\.(ts|mjs|cjs|c|h)$/.test(path) && !/\/(node_modules|corpus|results)\//.test(path))
  .filter(path => path !== fileURLToPath(import.meta.url));

function used(paths: readonly string[], names: Readonly<Record<string, string>>, pattern: RegExp): string[] {
  return paths.flatMap(path => {
    const words = new Set(Array.from(readFileSync(path, 'utf8').matchAll(pattern), found => found[1]));
    return Object.entries(names)
      .filter(([old]) => words.has(old))
      .map(([old, now]) => `${relative(root, path)}: ${old}, say ${now}`);
  });
}

it('uses no name that was replaced', () => {
  expect(used(sources, replaced, /\b([A-Za-z]+)\b/g)).toEqual([]);
});

it('uses no name that was replaced in tests, scripts and benchmarks', () => {
  // An attempt to break out of the sandbox is one.
  const { attempt: _, ...names } = { ...replaced, ...replacedInTests };
  expect(used(tests, names, /\b([A-Za-z]+)\b/g)).toEqual([]);
  expect(used(tests, replacedCalls, /(?<!\.)\b([a-z]+)\(/g)).toEqual([]);
});

it('uses no name that was replaced in native-shims', () => {
  const shims = filesBelow(join(root, 'native-shims')).filter(path => /\.[ch]$/.test(path));
  expect(used(shims, replacedInShims, /\b(\w+)\b/g)).toEqual([]);
});

it('gives no file of tests, scripts and benchmarks a name that was replaced', () => {
  const old =
    /(^|[-/])(stage|dialog|way|speaker|talker|manners?|lane|things|conversation|intruder|jostler?|troubles|bench|by-hand)[.-]/;
  const kept = ['bench/bench.mjs'];
  const names = tests.map(path => relative(root, path)).filter(path => !kept.includes(path));
  expect(names.filter(name => old.test(name))).toEqual([]);
});

it('declares every exported type once', () => {
  const declared = new Map<string, string[]>();
  for (const path of sources) {
    for (const [, name] of readFileSync(path, 'utf8').matchAll(
      /^export (?:abstract )?(?:class|interface|type) (\w+)/gm,
    ))
      declared.set(name!, [...(declared.get(name!) ?? []), relative(root, path)]);
  }
  expect([...declared].filter(([, paths]) => paths.length > 1)).toEqual([]);
});
