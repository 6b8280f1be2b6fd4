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
import { msizeBytesMax } from '#quota/limits.ts';
import { Server } from '#server.ts';
import type { ExportEntry } from '#session/attachment.ts';
import type { SessionPort, TransportPort } from '#session/exchange.ts';
import { Session } from '#session/session.ts';
import { endpointOf } from '#transport/endpoint.ts';
import { listen } from '#transport/listen.ts';
import { Stream } from '#transport/stream.ts';
import { contextOf } from './context.ts';
import { Ninepd } from './ninepd.ts';

export const memoryBytesMax = 64 * 1024 * 1024;

export type ModelName = 'mapped' | 'mapped-file' | 'passthrough' | 'none';

/** A server on a Unix socket. Its exports: `main`, and the same tree again as `readonly`. */
export interface Serving {
  readonly socket: string;
  /** The exported directory of the host; undefined for a memory tree. */
  readonly directory: string | undefined;
  /** The serving processes. */
  readonly processes: readonly number[];
  /** Open connections of the server. */
  connections(): number;
  /** Lines logged at level error: bugs of the server. */
  readonly errors: readonly string[];
  /** Leaked resources of sessions, where visible. */
  remains(): string[];
  /** Called with the path of each test directory before its use. */
  prepare?(path: string): void;
  close(): Promise<void>;
}

/** Socket and directory of a server. */
export interface Place {
  readonly socket: string;
  readonly directory: string;
  /** Further exported directories in it, each by its name and, read-only, with `-readonly` appended. */
  readonly others: readonly string[];
  /** An empty directory for other files. */
  readonly scratch: string;
}

/** Serves a new directory, which is removed when the server is closed. */
export async function servedAtPlace(
  serve: (place: Place) => Promise<Serving>,
  others: readonly string[] = [],
): Promise<Serving> {
  const top = mkdtempSync(join(tmpdir(), 'ninepd-conformance-'));
  chmodSync(top, 0o755);
  const [directory, scratch] = [join(top, 'export'), join(top, 'scratch')] as const;
  for (const path of [directory, scratch]) {
    mkdirSync(path);
    chmodSync(path, 0o755);
  }
  const serving = await serve({ socket: join(top, 'socket'), directory, others, scratch });
  return closedBefore(serving, () => rmSync(top, { recursive: true }));
}

export interface Exported {
  readonly name: string;
  readonly path: string;
  readonly readonly: boolean;
}

/** The exports of a place. */
export function exportsOf({ directory, others }: Place): Exported[] {
  return [
    { name: 'main', path: directory, readonly: false },
    { name: 'readonly', path: directory, readonly: true },
    ...others.flatMap(name => {
      const path = join(directory, name);
      return [
        { name, path, readonly: false },
        { name: `${name}-readonly`, path, readonly: true },
      ];
    }),
  ];
}

/** Runs a function when the server is closed. Not a copy: some members change. */
export function closedBefore(serving: Serving, after: () => unknown): Serving {
  const closeServer = serving.close.bind(serving);
  serving.close = async () => {
    await closeServer();
    await after();
  };
  return serving;
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

/** With passthrough the host's kernel judges, for the tests of a server that checks permissions. */
const judging = (model: ModelName) => (model === 'passthrough' ? ({ check: 'host' } as const) : {});
const settingsOf = (model: ModelName) => (model === 'passthrough' ? ['check=host'] : []);

export async function serveDirectory(place: Place, securityModel: ModelName): Promise<Serving> {
  const { socket, directory } = place;
  const errors: string[] = [];
  const server = await Server.open({
    exports: exportsOf(place).map(one => ({ ...one, securityModel, ...judging(securityModel) })),
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
    },
  };
}

/** Makes the mount shared, as systemd does: later mounts propagate to the server's mount namespace. */
function shared(directory: string): () => void {
  if (process.getuid!() !== 0) return () => undefined;
  execFileSync('mount', ['--bind', directory, directory]);
  execFileSync('mount', ['--make-shared', directory]);
  return () => execFileSync('umount', [directory]);
}

/** The program in its sandbox. */
export async function serveProgram(
  place: Place,
  securityModel: ModelName,
  args: readonly string[],
): Promise<Serving> {
  const { socket, directory } = place;
  const unshare = shared(directory);
  if (args.includes('--user')) execFileSync('chown', ['-R', args[args.indexOf('--user') + 1]!, directory]);
  const server = await Ninepd.start({
    exports: exportsOf(place).map(one => ({ ...one, securityModel, settings: settingsOf(securityModel) })),
    listen: [`unix://${socket}`],
    // Otherwise the log summarizes connections of a busy peer.
    args: ['--log-level', 'debug', '--msize-max', String(msizeBytesMax), ...args],
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
    },
  };
}

export async function serveMemory(): Promise<Serving> {
  const tree = new MemoryTree({ bytesMax: memoryBytesMax });
  const serving = await serveTree(tree);
  const { remains } = serving;
  serving.remains = () => [...remains(), ...heldIn(tree)];
  return serving;
}

/** Serves any tree, and closes it. */
export async function serveTree(tree: Tree & { close(): void }): Promise<Serving> {
  const found = [
    { name: 'main', readonly: false, tree },
    { name: 'readonly', readonly: true, tree },
  ];
  const serving = await servedAtPlace(({ socket }) => serveSessions(socket, { exports: () => found }));
  return closedBefore(serving, () => tree.close());
}

export interface SessionParts {
  /** The exports of the next connection; the first is the default. */
  exports(): readonly ExportEntry[];
  /** Called with each new session. */
  watch?(session: SessionPort): void;
}

/** A server in this process whose sessions and streams are visible. */
export async function serveSessions(socket: string, { exports, watch }: SessionParts): Promise<Serving> {
  const errors: string[] = [];
  const streams = new Set<Stream>();
  const sessions: Session[] = [];
  const log = listeningLog(errors);
  const open = (transport: TransportPort) => {
    const list = exports();
    const find = (aname: string) =>
      aname === '' || aname === '/' ? list[0] : list.find(one => one.name === aname);
    const session = new Session({ exports: { find }, transport, log });
    sessions.push(session);
    watch?.(session);
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
      const closed = [...streams].map(stream => stream.closed);
      for (const stream of streams) stream.destroy();
      await Promise.all(closed);
    },
  };
}

/** Empties a tree and returns what is still held besides the root. */
export function heldIn(tree: MemoryTree): string[] {
  const attr = new Attr();
  const actor = contextOf({ uid: 0, gid: 0, groups: [] });
  const empty = (dir: MemoryNode) => {
    const open = tree.openDir(actor, dir);
    const bytes = Buffer.alloc(65_536);
    for (
      let count = tree.readdir(actor, open, 0, 0, bytes);
      count > 51;
      count = tree.readdir(actor, open, 0, 0, bytes)
    ) {
      for (const { name } of parseDirents(bytes.subarray(0, count)).slice(2)) {
        const child = tree.walk(actor, dir, nameOf(name), attr) as MemoryNode;
        if (child.type === S_IFDIR) empty(child);
        tree.unlink(actor, dir, nameOf(name), child.type === S_IFDIR ? 'directory' : 'file');
        tree.release(child);
      }
    }
    tree.closeDir(open);
  };
  empty(tree.root);
  const statfs = Buffer.alloc(64);
  tree.statfs(actor, tree.root, statfs);
  const held = Number(statfs.readBigUInt64LE(32) - statfs.readBigUInt64LE(40)) - 1;
  return [
    ...(held === 0 ? [] : [`space of ${held} objects is not free`]),
    ...(tree.root.refs === 1 ? [] : [`the root is held ${tree.root.refs} times`]),
  ];
}

/** Number of descriptors of this process. */
export function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
