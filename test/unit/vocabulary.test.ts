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
};

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap(entry => {
    const path = join(directory, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

const sources = filesBelow(join(root, 'src')).filter(path => path.endsWith('.ts'));

it('uses no name that was replaced', () => {
  const found = sources.flatMap(path => {
    const words = new Set(readFileSync(path, 'utf8').match(/\b[A-Za-z]+\b/g));
    return Object.entries(replaced)
      .filter(([old]) => words.has(old))
      .map(([old, now]) => `${relative(root, path)}: ${old}, say ${now}`);
  });
  expect(found).toEqual([]);
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
