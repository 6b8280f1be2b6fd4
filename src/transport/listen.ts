import { chmodSync, chownSync, linkSync, lstatSync, mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import net from 'node:net';
import { dirname, join } from 'node:path';
import { ConfigError } from '#base/config-error.ts';
import type { Peer } from '#base/peer.ts';
import { groupNamed, peerCredentials } from '#host/process.ts';
import { isListening } from '#host/sockets.ts';
import { closeFd, dupCloexec } from '#host/vhost.ts';
import { inheritedAudience, tcpAudience } from './audience.ts';
import { type BoundEndpoint, type Endpoint, type SocketFile, socketPathBytesMax, uriOf } from './endpoint.ts';
import { type Accept, ListenError, type Listener } from './listener.ts';
import type { Source } from './stream.ts';
import { acceptFrom, connectedVsock, isVsock, listenVsock, vsockPeerOf } from './vsock.ts';

export { type Accept, ListenError, type Listener } from './listener.ts';

/** Starts to listen. Rejects with a `ListenFault`. `complain` is told of connections that could not be taken. */
export async function listen(
  endpoint: Endpoint,
  accept: Accept,
  complain: (text: string) => void,
): Promise<Listener> {
  switch (endpoint.kind) {
    case 'tcp':
      return listenTcp(endpoint, accept, complain);
    case 'unix':
    case 'vhost-user':
      return listenUnix(endpoint, accept, complain);
    case 'vsock':
      return listenVsock(endpoint, accept, complain);
    case 'fd':
      return listenFd(endpoint, endpoint.fd, accept, complain);
    case 'named-fd':
      return listenFd(endpoint, namedFd(endpoint.name), accept, complain);
    case 'bound':
      return listenBound(endpoint, accept, complain);
  }
}

/** Listens on all of them, or on none: then rejects with `StartFaults` for all that failed. */
export async function listenOnAll(
  endpoints: readonly Endpoint[],
  acceptFor: (index: number) => Accept,
  complain: (text: string) => void,
): Promise<Listener[]> {
  const listeners: Listener[] = [];
  const problems: string[] = [];
  for (const [index, endpoint] of endpoints.entries()) {
    try {
      listeners.push(await listen(endpoint, acceptFor(index), complain));
    } catch (error) {
      if (!(error instanceof ListenError)) throw error;
      problems.push(`${uriOf(endpoint)}: ${error.message}`);
    }
  }
  if (problems.length === 0) return listeners;
  for (const listener of listeners) listener.close();
  throw new ConfigError(problems);
}

/** Ends a connection that nothing is to come of. */
export function closeSource(source: Source): void {
  if ('fd' in source) closeFd(source.fd);
  else (source.handle as { close(): void }).close();
}

/** What a descriptor of a connected socket is to a `Stream`. */
export function sourceOf(fd: number): Source {
  return isVsock(fd) ? connectedVsock(fd) : { fd };
}

/**
 * The sockets that a service manager has opened for this process: sd_listen_fds(3). They begin at 3. Empty unless the
 * message is for this very process.
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

/** The libuv handle of an accepted socket, taken away from it: only a new socket can be given a buffer to read into. */
function takeHandle(socket: net.Socket): object {
  const owner = socket as unknown as { _handle: object | null };
  const handle = owner._handle!;
  owner._handle = null;
  // Without its handle it only counts as closed, which the server waits for when it is closed itself.
  socket.destroy();
  return handle;
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
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  return fdPeer(fd);
}

function fdPeer(fd: number): Peer {
  try {
    const { pid, uid, gid } = peerCredentials(fd);
    if (uid !== noUid) return { label: `unix pid ${pid} uid ${uid}`, origin: { kind: 'unix', uid, gid } };
  } catch {
    // A socket of a family that knows no such thing.
  }
  // A TCP connection whose peer is gone again.
  return { label: `fd ${fd}` };
}

/** What SO_PEERCRED says of a socket that is of another family than AF_UNIX. */
const noUid = 0xffff_ffff;

/** Once it listens, what goes wrong goes wrong for one connection. */
function bind(
  server: net.Server,
  options: net.ListenOptions | { fd: number },
  complain: (text: string) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(options, () => {
      server.off('error', reject);
      server.on('error', error => complain(`a connection could not be accepted: ${error.message}`));
      resolve();
    });
  });
}

async function listenTcp(
  endpoint: Endpoint & { kind: 'tcp' },
  accept: Accept,
  complain: (text: string) => void,
): Promise<Listener> {
  const { host, port } = endpoint;
  const server = serverFor(accept);
  try {
    await bind(server, { host, port }, complain);
  } catch (error) {
    throw new ListenError(tcpFault(error as NodeJS.ErrnoException, host, port));
  }
  const bound = server.address() as net.AddressInfo;
  const shown = host.includes(':') ? `[${host}]` : host;
  const uri = `tcp://${shown}:${bound.port}`;
  const audience = tcpAudience(bound);
  const detach = (): BoundEndpoint => ({
    kind: 'bound',
    fd: takeSocket(server),
    as: endpoint,
    uri,
    audience,
  });
  return { endpoint, uri, single: false, audience, close: () => void server.close(), detach };
}

function tcpFault(error: NodeJS.ErrnoException, host: string, port: number): string {
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
  complain: (text: string) => void,
): Promise<Listener> {
  const { path, group } = endpoint;
  const uri = uriOf(endpoint);
  const gid = group === undefined ? undefined : gidOf(group);
  await makeWay(path);
  const server = serverFor(accept);
  try {
    await bindUnix(server, path, gid, complain);
  } catch (error) {
    server.close();
    if (error instanceof ListenError) throw error;
    throw new ListenError(unixFault(error as NodeJS.ErrnoException, path));
  }
  const { ino, dev } = lstatSync(path);
  const file = { path, ino, dev };
  const close = () => {
    server.close();
    removeSocket(file);
  };
  const detach = (): BoundEndpoint => ({ kind: 'bound', fd: takeSocket(server), as: endpoint, uri, file });
  return { endpoint, uri, single: false, audience: undefined, close, detach };
}

/** The name of a socket of ours, unless another has it now. It stays where this user may remove nothing. */
export function removeSocket({ path, ino, dev }: SocketFile): void {
  try {
    const now = lstatSync(path, { throwIfNoEntry: false });
    if (now?.ino === ino && now.dev === dev) unlinkSync(path);
  } catch (error) {
    if (!['EACCES', 'EPERM', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** The socket of a server, which ends. In one turn, so that nobody's connection is accepted and lost. */
function takeSocket(server: net.Server): number {
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
  const kept = dupCloexec(fd);
  server.close();
  return kept;
}

async function listenBound(
  endpoint: BoundEndpoint,
  accept: Accept,
  complain: (text: string) => void,
): Promise<Listener> {
  const { as, fd, uri, audience, file } = endpoint;
  const accepting = await acceptOn(fd, accept, complain);
  const close = () => {
    accepting.close();
    if (file) removeSocket(file);
  };
  return { endpoint: as, uri, single: false, audience, close, detach: () => endpoint };
}

/** Removes the socket of a server that is gone; whatever else is in the way stays. */
async function makeWay(path: string): Promise<void> {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (!there) return;
  if (!there.isSocket())
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
 * A socket gets its permissions only after bind(2) has made it, so it is made in a directory that nobody else can enter
 * and gets its name when it is right. link(2) does not replace what somebody else has put there meanwhile.
 */
async function bindUnix(
  server: net.Server,
  path: string,
  gid: number | undefined,
  complain: (text: string) => void,
): Promise<void> {
  const directory = mkdtempSync(join(dirname(path), '.9p'));
  const made = join(directory, 's');
  try {
    if (Buffer.byteLength(made) > socketPathBytesMax) {
      throw new ListenError(
        `the path is too long for a socket: choose a shorter directory than ${dirname(path)}`,
      );
    }
    await bind(server, { path: made }, complain);
    chmodSync(made, 0o600);
    if (gid !== undefined) {
      giveTo(gid, made);
      chmodSync(made, 0o660);
    }
    linkSync(made, path);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function gidOf(group: string): number {
  // (gid_t) -1 is nobody's: chown(2).
  if (/^[0-9]{1,10}$/.test(group) && Number(group) < 0xffff_ffff) return Number(group);
  const gid = groupInDatabase(group);
  if (gid === undefined) throw new ListenError(`this machine has no group ${group}: getent group lists them`);
  return gid;
}

function groupInDatabase(name: string): number | undefined {
  try {
    return groupNamed(name);
  } catch (error) {
    throw new ListenError(
      `the host's user database does not tell the number of group ${name} (${error}): write it`,
    );
  }
}

function giveTo(gid: number, path: string): void {
  try {
    chownSync(path, -1, gid);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    throw new ListenError(
      `only root and its members can give a socket to group ${gid}: become one, or leave group= out`,
    );
  }
}

function unixFault(error: NodeJS.ErrnoException, path: string): string {
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
  complain: (text: string) => void,
): Promise<Listener> {
  const uri = `fd://${fd}`;
  const listening = isListening(fd);
  if (listening === undefined) {
    throw new ListenError(
      `descriptor ${fd} is no stream socket that was passed to the program: check who starts it`,
    );
  }
  if (listening) {
    const { server, close } = await acceptOn(fd, accept, complain);
    const audience = inheritedAudience(fd, server);
    const detach = (): BoundEndpoint => {
      const kept = dupCloexec(fd);
      close();
      return { kind: 'bound', fd: kept, as: endpoint, uri, audience };
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

/** Takes connections from a descriptor that listens; `server` is Node's, where Node knows the family. */
async function acceptOn(
  fd: number,
  accept: Accept,
  complain: (text: string) => void,
): Promise<{ server?: net.Server; close: () => void }> {
  if (isVsock(fd)) return { close: acceptFrom(fd, accept, complain) };
  const server = serverFor(accept);
  try {
    await bind(server, { fd }, complain);
  } catch (error) {
    throw new ListenError(`descriptor ${fd} cannot be listened on: ${(error as Error).message}`);
  }
  return { server, close: () => void server.close() };
}
