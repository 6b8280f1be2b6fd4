import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MemoryNode } from '#backend/memory/memory-node.ts';
import { MemoryTree } from '#backend/memory/memory-tree.ts';
import type { Tree } from '#backend/tree.ts';
import { Attr, S_IFDIR } from '#base/attr.ts';
import type { Logger } from '#base/log.ts';
import { nameOf } from '#base/name.ts';
import { parseDirents } from '#protocol/dirent.ts';
import { Server } from '#server.ts';
import type { TransportPort } from '#session/exchange.ts';
import { Session } from '#session/session.ts';
import { endpointOf } from '#transport/endpoint.ts';
import { listen } from '#transport/listen.ts';
import { Stream } from '#transport/stream.ts';
import { Ninepd } from './ninepd.ts';

export const memoryBytesMax = 64 * 1024 * 1024;

/** A server in this process, on a Unix socket. Its exports: `main`, and the same tree again as `readonly`. */
export interface Serving {
  readonly socket: string;
  /** The exported directory of the host; undefined for a tree in memory. */
  readonly directory: string | undefined;
  /** The processes that serve. */
  readonly processes: readonly number[];
  /** Connections that are open on the server's side. */
  connections(): number;
  /** What was logged as an error: a bug of the server. */
  readonly errors: readonly string[];
  /** What sessions hold that should be gone; checked where it can be seen. */
  remains(): string[];
  close(): Promise<void>;
}

export interface BackEnd {
  readonly name: string;
  /** Its files can be seen on the host. */
  readonly host: boolean;
  /** The server itself checks permissions. */
  readonly permissions: boolean;
  serve(): Promise<Serving>;
}

function listeningLog(errors: string[]): Logger {
  const nothing = () => undefined;
  return {
    trace: nothing,
    debug: nothing,
    info: nothing,
    warn: nothing,
    error: text => void errors.push(text),
    isLevelEnabled: () => false,
  };
}

function place(): { top: string; socket: string; directory: string } {
  const top = mkdtempSync(join(tmpdir(), 'ninepd-conformance-'));
  chmodSync(top, 0o755);
  const directory = join(top, 'export');
  mkdirSync(directory, { mode: 0o755 });
  chmodSync(directory, 0o755);
  return { top, socket: join(top, 'socket'), directory };
}

async function serveLocal(securityModel: 'mapped' | 'passthrough'): Promise<Serving> {
  const { top, socket, directory } = place();
  const errors: string[] = [];
  const server = await Server.open({
    exports: [
      { path: directory, name: 'main', securityModel },
      { path: directory, name: 'readonly', securityModel, readonly: true },
    ],
    log: listeningLog(errors),
  });
  await server.listen(`unix://${socket}`);
  return {
    socket,
    directory,
    processes: [process.pid],
    errors,
    connections: () => server.connections,
    remains: () => [],
    async close() {
      if (!(await server.close())) throw new Error('the server did not end in time');
      rmSync(top, { recursive: true });
    },
  };
}

/** As systemd does for the whole machine: what is mounted in it later shows in the server's mount namespace, if it has one. */
function shared(directory: string): () => void {
  if (process.getuid!() !== 0) return () => undefined;
  execFileSync('mount', ['--bind', directory, directory]);
  execFileSync('mount', ['--make-shared', directory]);
  return () => execFileSync('umount', [directory]);
}

/** The real program, in its sandbox. */
async function serveProgram(securityModel: 'mapped' | 'passthrough', ...args: string[]): Promise<Serving> {
  const { top, socket, directory } = place();
  const unshare = shared(directory);
  const exported = { path: directory, securityModel };
  const server = await Ninepd.start({
    exports: [
      { ...exported, name: 'main' },
      { ...exported, name: 'readonly', readonly: true },
    ],
    listen: [`unix://${socket}`],
    // Otherwise it counts the connections of a busy peer instead of naming each.
    args: ['--log-level', 'debug', ...args],
  });
  const children = readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'latin1').match(/\d+/g);
  const workers = args.includes('--workers') ? (children ?? []).map(Number) : undefined;
  const lines = (pattern: RegExp) => server.log().match(pattern) ?? [];
  return {
    socket,
    directory,
    processes: workers ?? [server.pid],
    connections: () => lines(/: connected$/gm).length - lines(/: closed$/gm).length,
    get errors() {
      return lines(/^.*(ERROR|FATAL).*$/gm);
    },
    remains: () => [],
    async close() {
      if ((await server.stop()) !== 0)
        throw new Error(`the server did not end as it should:\n${server.log()}`);
      unshare();
      rmSync(top, { recursive: true });
    },
  };
}

async function serveMemory(): Promise<Serving> {
  const tree = new MemoryTree({ bytesMax: memoryBytesMax });
  const serving = await serveTree(tree);
  return { ...serving, remains: () => [...serving.remains(), ...heldIn(tree)] };
}

/** Serves any tree, and closes it: sessions and streams as the server makes them, where they can be looked at. */
export async function serveTree(tree: Tree & { close(): void }): Promise<Serving> {
  const { top, socket } = place();
  const errors: string[] = [];
  const found = [
    { name: 'main', readonly: false, tree },
    { name: 'readonly', readonly: true, tree },
  ];
  const exports = {
    find: (aname: string) =>
      aname === '' || aname === '/' ? found[0] : found.find(one => one.name === aname),
  };
  const streams = new Set<Stream>();
  const sessions: Session[] = [];
  const log = listeningLog(errors);
  const open = (line: TransportPort) => {
    const session = new Session({ exports, transport: line, log });
    sessions.push(session);
    return session;
  };
  const endpoint = endpointOf(`unix://${socket}`);
  if (typeof endpoint === 'string') throw new Error(endpoint);
  const listener = await listen(
    endpoint,
    (source, peer) => {
      const stream = new Stream(source, peer, open, () => undefined);
      streams.add(stream);
      void stream.closed.then(() => streams.delete(stream));
    },
    text => void errors.push(text),
  );
  return {
    socket,
    directory: undefined,
    processes: [process.pid],
    errors,
    connections: () => streams.size,
    remains: () =>
      sessions.flatMap(session => {
        const counts = session.counts();
        return Object.values(counts).some(count => count > 0) ? [JSON.stringify(counts)] : [];
      }),
    async close() {
      listener.close();
      for (const stream of streams) stream.destroy();
      tree.close();
      rmSync(top, { recursive: true });
    },
  };
}

/** What somebody still holds of a tree, which is emptied for that: everything but the root should be free then. */
export function heldIn(tree: MemoryTree): string[] {
  const attr = new Attr();
  const actor = {
    creds: { uid: 0, gid: 0, groups: [] },
    observer: { before: () => undefined, after: () => undefined },
  };
  const empty = (dir: MemoryNode) => {
    const open = tree.openDir(actor, dir);
    const bytes = Buffer.alloc(65_536);
    for (let count = tree.readdir(open, 0, 0, bytes); count > 51; count = tree.readdir(open, 0, 0, bytes)) {
      for (const { name } of parseDirents(bytes.subarray(0, count)).slice(2)) {
        const child = tree.walk(actor.creds, dir, nameOf(name), attr) as MemoryNode;
        if (child.type === S_IFDIR) empty(child);
        tree.unlink(actor, dir, nameOf(name), child.type === S_IFDIR ? 'directory' : 'file');
        tree.release(child);
      }
    }
    tree.closeDir(open);
  };
  empty(tree.root);
  const statfs = Buffer.alloc(64);
  tree.statfs(tree.root, statfs);
  const held = Number(statfs.readBigUInt64LE(32) - statfs.readBigUInt64LE(40)) - 1;
  return [
    ...(held === 0 ? [] : [`space of ${held} objects is not free`]),
    ...(tree.root.refs === 1 ? [] : [`the root is held ${tree.root.refs} times`]),
  ];
}

const host = { host: true, permissions: false };

/** Other than the usual ones, each for a command of its own: `npm run test:workers`, `npm run test:sandbox`. */
const others: Readonly<Record<string, readonly BackEnd[]>> = {
  // Either serves every other connection, so that what a test does with two is seen by both.
  workers: [{ ...host, name: 'two workers', serve: () => serveProgram('mapped', '--workers', '2') }],
  sandbox: [
    { ...host, name: 'mapped, sandboxed', serve: () => serveProgram('mapped') },
    {
      ...{ ...host, permissions: true, name: 'passthrough, sandboxed' },
      serve: () => serveProgram('passthrough', '--trusted-xattrs', 'on'),
    },
  ],
};

export const backEnds: readonly BackEnd[] = others[process.env.NINEPD_CONFORMANCE ?? ''] ?? [
  { ...host, name: 'mapped', serve: () => serveLocal('mapped') },
  { ...host, permissions: true, name: 'passthrough', serve: () => serveLocal('passthrough') },
  { ...host, host: false, name: 'memory', serve: serveMemory },
];

/** How many descriptors this process has. */
export function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
