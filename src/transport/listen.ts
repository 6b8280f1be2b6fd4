import { chmodSync, chownSync, linkSync, lstatSync, mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import net from 'node:net';
import { dirname, join } from 'node:path';
import { ConfigError } from '#base/config-error.ts';
import { noId } from '#base/ids.ts';
import type { Peer } from '#base/peer.ts';
import { closeFd, dupCloexec } from '#host/fd.ts';
import { groupNamed, peerCredentials } from '#host/process.ts';
import { isListening } from '#host/sockets.ts';
import { inheritedAudience, tcpAudience } from './audience.ts';
import { type BoundEndpoint, type Endpoint, type SocketFile, socketPathBytesMax, uriOf } from './endpoint.ts';
import { fdOf, takeHandle } from './handle.ts';
import { type Accept, ListenError, type Listener } from './listener.ts';
import type { Source } from './stream.ts';
import { acceptFrom, connectedVsock, isVsock, listenVsock, vsockPeerOf } from './vsock.ts';

export { type Accept, ListenError, type Listener } from './listener.ts';

/** Starts to listen. Rejects with a `ListenError`. `warn` gets a line for each connection that could not be accepted. */
export async function listen(
  endpoint: Endpoint,
  accept: Accept,
  warn: (text: string) => void,
): Promise<Listener> {
  switch (endpoint.kind) {
    case 'tcp':
      return listenTcp(endpoint, accept, warn);
    case 'unix':
    case 'vhost-user':
      return listenUnix(endpoint, accept, warn);
    case 'vsock':
      return listenVsock(endpoint, accept, warn);
    case 'fd':
      return listenFd(endpoint, endpoint.fd, accept, warn);
    case 'named-fd':
      return listenFd(endpoint, namedFd(endpoint.name), accept, warn);
    case 'bound':
      return listenBound(endpoint, accept, warn);
  }
}

/** Listens on every endpoint. If any fails, closes the others and rejects with a `ConfigError` that lists every failure. */
export async function listenOnAll(
  endpoints: readonly Endpoint[],
  acceptFor: (index: number) => Accept,
  warn: (text: string) => void,
): Promise<Listener[]> {
  const listeners: Listener[] = [];
  const problems: string[] = [];
  for (const [index, endpoint] of endpoints.entries()) {
    try {
      listeners.push(await listen(endpoint, acceptFor(index), warn));
    } catch (error) {
      if (!(error instanceof ListenError)) throw error;
      problems.push(`${uriOf(endpoint)}: ${error.message}`);
    }
  }
  if (problems.length === 0) return listeners;
  for (const listener of listeners) listener.close();
  throw new ConfigError(problems);
}

/** Closes a connection that was accepted but is not served. */
export function closeSource(source: Source): void {
  if ('fd' in source) closeFd(source.fd);
  else (source.handle as { close(): void }).close();
}

/** The descriptor of an accepted connection, which stays the source's. */
export function descriptorOf(source: Source): number {
  return 'fd' in source ? source.fd : (source.handle as { readonly fd: number }).fd;
}

/** The source of a `Stream` for a connected descriptor. */
export function sourceOf(fd: number): Source {
  return isVsock(fd) ? connectedVsock(fd) : { fd };
}

/**
 * The sockets passed by a service manager (sd_listen_fds(3)); their descriptors start at 3. Empty unless LISTEN_PID is this
 * process.
 */
export function inheritedSockets(env: NodeJS.ProcessEnv): { fd: number; name: string | undefined }[] {
  if (Number(env.LISTEN_PID) !== process.pid) return [];
  const count = Number(env.LISTEN_FDS);
  if (!Number.isSafeInteger(count) || count < 1 || count > 1000) return [];
  const names = env.LISTEN_FDNAMES?.split(':') ?? [];
  return Array.from({ length: count }, (_, i) => ({ fd: 3 + i, name: names[i] }));
}

export function namedFd(name: string): number {
  const found = inheritedSockets(process.env).find(one => one.name === name);
  if (found) return found.fd;
  throw new ListenError(
    `the service manager passed no socket named "${name}": see FileDescriptorName= in systemd.socket(5)`,
  );
}

function serverFor(accept: Accept): net.Server {
  return net.createServer({ pauseOnConnect: true }, socket => {
    const peer = peerOf(socket);
    accept({ handle: takeHandle(socket) }, peer);
  });
}

function peerOf(socket: net.Socket): Peer {
  if (socket.remoteAddress !== undefined) {
    const { remoteAddress: address, remotePort: port } = socket;
    const label = `tcp ${address.includes(':') ? `[${address}]` : address}:${port}`;
    return { label, origin: { kind: 'tcp', address, port: port! } };
  }
  return fdPeer(fdOf(socket));
}

function fdPeer(fd: number): Peer {
  try {
    const { pid, uid, gid } = peerCredentials(fd);
    if (uid !== noId) return { label: `unix pid ${pid} uid ${uid}`, origin: { kind: 'unix', uid, gid } };
  } catch {
    // The socket's family has no peer credentials.
  }
  // A TCP connection whose peer has disconnected already.
  return { label: `fd ${fd}` };
}

/** Rejects when listening fails. A later error concerns one connection, and is logged. */
function bind(
  server: net.Server,
  options: net.ListenOptions | { fd: number },
  warn: (text: string) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(options, () => {
      server.off('error', reject);
      server.on('error', error => warn(`a connection could not be accepted: ${error.message}`));
      resolve();
    });
  });
}

async function listenTcp(
  endpoint: Endpoint & { kind: 'tcp' },
  accept: Accept,
  warn: (text: string) => void,
): Promise<Listener> {
  const { host, port } = endpoint;
  const server = serverFor(accept);
  try {
    await bind(server, { host, port }, warn);
  } catch (error) {
    throw new ListenError(tcpError(error as NodeJS.ErrnoException, host, port));
  }
  const bound = server.address() as net.AddressInfo;
  const shown = host.includes(':') ? `[${host}]` : host;
  const uri = `tcp://${shown}:${bound.port}`;
  const audience = tcpAudience(bound);
  const detach = (): BoundEndpoint => ({
    kind: 'bound',
    fd: detachSocket(server),
    as: endpoint,
    uri,
    audience,
  });
  return { endpoint, uri, single: false, audience, close: () => void server.close(), detach };
}

function tcpError(error: NodeJS.ErrnoException, host: string, port: number): string {
  switch (error.code) {
    case 'EADDRINUSE':
      return `port ${port} is in use: stop what listens there (ss -ltnp shows it), or choose another port`;
    case 'EACCES':
      return `port ${port} is privileged: choose one from 1024 on, or give the program CAP_NET_BIND_SERVICE`;
    case 'EADDRNOTAVAIL':
      return `this machine has no address ${host}: ip address shows those it has`;
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `the host name ${host} is not known: write an address`;
    default:
      return error.message;
  }
}

async function listenUnix(
  endpoint: Extract<Endpoint, { path: string }>,
  accept: Accept,
  warn: (text: string) => void,
): Promise<Listener> {
  const { path, group } = endpoint;
  const uri = uriOf(endpoint);
  const gid = group === undefined ? undefined : gidOf(group);
  await removeStaleSocket(path);
  const server = serverFor(accept);
  try {
    await bindUnix(server, path, gid, warn);
  } catch (error) {
    server.close();
    if (error instanceof ListenError) throw error;
    throw new ListenError(unixError(error as NodeJS.ErrnoException, path));
  }
  const { ino, dev } = lstatSync(path);
  const file = { path, ino, dev };
  const close = () => {
    server.close();
    removeSocket(file);
  };
  const detach = (): BoundEndpoint => ({ kind: 'bound', fd: detachSocket(server), as: endpoint, uri, file });
  return { endpoint, uri, single: false, audience: undefined, close, detach };
}

/** Unlinks a socket file of ours unless it was replaced. It stays in a directory where this user may not unlink. */
export function removeSocket({ path, ino, dev }: SocketFile): void {
  try {
    const now = lstatSync(path, { throwIfNoEntry: false });
    if (now?.ino === ino && now.dev === dev) unlinkSync(path);
  } catch (error) {
    if (!['EACCES', 'EPERM', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** Duplicates a server's socket and closes the server, in one callback, so that no connection is accepted and lost. */
function detachSocket(server: net.Server): number {
  const duplicate = dupCloexec(fdOf(server));
  server.close();
  return duplicate;
}

async function listenBound(
  endpoint: BoundEndpoint,
  accept: Accept,
  warn: (text: string) => void,
): Promise<Listener> {
  const { as, fd, uri, audience, file } = endpoint;
  const accepting = await acceptOn(fd, accept, warn);
  const close = () => {
    accepting.close();
    if (file) removeSocket(file);
  };
  return { endpoint: as, uri, single: false, audience, close, detach: () => endpoint };
}

/** Unlinks a socket that nobody listens on. Throws for any other file at the path. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return;
  if (!found.isSocket())
    throw new ListenError('there is a file of that name that is no socket: move it away');
  const code = await new Promise<string | undefined>(resolve => {
    const probe = net.connect({ path }, () => {
      probe.destroy();
      resolve(undefined);
    });
    probe.on('error', (error: NodeJS.ErrnoException) => resolve(error.code));
  });
  if (code === 'ECONNREFUSED') return unlinkSync(path);
  if (code === 'ENOENT') return;
  throw new ListenError('another server listens there: stop it (ss -lxp shows it), or choose another path');
}

/**
 * A socket file gets its permissions only after bind(2) has created it. So it is created in a directory of mode 0700 and
 * linked to its path when they are set. link(2) does not replace a file that was created there meanwhile.
 */
async function bindUnix(
  server: net.Server,
  path: string,
  gid: number | undefined,
  warn: (text: string) => void,
): Promise<void> {
  const directory = mkdtempSync(join(dirname(path), '.9p'));
  const made = join(directory, 's');
  try {
    if (Buffer.byteLength(made) > socketPathBytesMax) {
      throw new ListenError(
        `the path is too long for a socket: choose a shorter directory than ${dirname(path)}`,
      );
    }
    await bind(server, { path: made }, warn);
    chmodSync(made, 0o600);
    if (gid !== undefined) {
      chownToGroup(gid, made);
      chmodSync(made, 0o660);
    }
    linkSync(made, path);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function gidOf(group: string): number {
  // (gid_t) -1 means "unchanged" to chown(2).
  if (/^[0-9]{1,10}$/.test(group) && Number(group) < noId) return Number(group);
  const gid = groupInDatabase(group);
  if (gid === undefined) throw new ListenError(`this machine has no group ${group}: getent group lists them`);
  return gid;
}

function groupInDatabase(name: string): number | undefined {
  try {
    return groupNamed(name);
  } catch (error) {
    throw new ListenError(
      `the host's user database does not give the number of group ${name} (${error}): write the number`,
    );
  }
}

function chownToGroup(gid: number, path: string): void {
  try {
    chownSync(path, -1, gid);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    throw new ListenError(
      `only root and its members can give a socket to group ${gid}: become one, or leave group= out`,
    );
  }
}

function unixError(error: NodeJS.ErrnoException, path: string): string {
  switch (error.code) {
    case 'ENOENT':
      return `the directory ${dirname(path)} does not exist: make it`;
    case 'EACCES':
    case 'EROFS':
      return `this user may not make a socket in ${dirname(path)}: choose another directory`;
    case 'EEXIST':
      return 'another server has begun to listen there: choose another path';
    default:
      return error.message;
  }
}

async function listenFd(
  endpoint: Exclude<Endpoint, BoundEndpoint>,
  fd: number,
  accept: Accept,
  warn: (text: string) => void,
): Promise<Listener> {
  const uri = `fd://${fd}`;
  const listening = isListening(fd);
  if (listening === undefined) {
    throw new ListenError(
      `descriptor ${fd} is no stream socket that was passed to the program: check who starts it`,
    );
  }
  if (listening) {
    const { server, close } = await acceptOn(fd, accept, warn);
    const audience = inheritedAudience(fd, server);
    const detach = (): BoundEndpoint => {
      const duplicate = dupCloexec(fd);
      close();
      return { kind: 'bound', fd: duplicate, as: endpoint, uri, audience };
    };
    return { endpoint, uri, single: false, audience, close, detach };
  }
  if (isVsock(fd)) accept(sourceOf(fd), vsockPeerOf(fd));
  else {
    const socket = new net.Socket({ fd, readable: false, writable: false });
    const peer = peerOf(socket);
    accept({ handle: takeHandle(socket) }, peer);
  }
  const detach = (): Endpoint => endpoint;
  return { endpoint, uri, single: true, audience: undefined, close: () => undefined, detach };
}

/** Accepts connections from a listening descriptor. `server` is Node's, for the families that Node knows. */
async function acceptOn(
  fd: number,
  accept: Accept,
  warn: (text: string) => void,
): Promise<{ server?: net.Server; close: () => void }> {
  if (isVsock(fd)) return { close: acceptFrom(fd, accept, warn) };
  const server = serverFor(accept);
  try {
    await bind(server, { fd }, warn);
  } catch (error) {
    throw new ListenError(`descriptor ${fd} cannot be listened on: ${(error as Error).message}`);
  }
  return { server, close: () => void server.close() };
}
