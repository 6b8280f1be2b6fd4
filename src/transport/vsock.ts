import { existsSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import type { Peer } from '#base/peer.ts';
import { dupCloexec } from '#host/fd.ts';
import { bindVsock, type VsockAddress, vsockName, vsockPeer } from '#host/vsock.ts';
import { vsockAudience } from './audience.ts';
import type { BoundEndpoint, Endpoint } from './endpoint.ts';
import { handleOf } from './handle.ts';
import { type Accept, ListenError, type Listener } from './listener.ts';
import type { Source } from './stream.ts';
import { anyCid, anyPort, hostCid, localCid, vsockUri } from './vsock-address.ts';

/** The part of libuv's stream handle that Node's own modules use. Methods return 0 or −errno. */
interface StreamHandle {
  readonly fd: number;
  open(fd: number): number;
  listen(backlog: number): number;
  close(): void;
  onconnection: (status: number, client: StreamHandle) => void;
}

const role = { socket: 0, server: 1 };
/** The backlog that Node uses for its own servers. */
const backlog = 511;

let cachedClass: (new (role: number) => StreamHandle) | undefined;

/**
 * The class of libuv's handle for Unix sockets. Node refuses descriptors of socket families that it does not know, but this
 * handle accepts any stream. Node does not export the class; a socket that tries to connect has an instance.
 */
function handleClass(): new (role: number) => StreamHandle {
  if (cachedClass) return cachedClass;
  const socket = new Socket();
  socket.on('error', () => undefined);
  // Fails at once, since / is not a socket.
  socket.connect({ path: '/' });
  const handle = handleOf(socket);
  socket.destroy();
  cachedClass = handle!.constructor as new (role: number) => StreamHandle;
  return cachedClass;
}

/** Looks the class up while the seccomp filter still allows socket(2). */
export function readyForVsock(): void {
  handleClass();
}

/** Makes a handle that owns the descriptor. */
function handleFor(fd: number, as: keyof typeof role): StreamHandle {
  const handle = new (handleClass())(role[as]);
  const result = handle.open(fd);
  if (result === 0) return handle;
  handle.close();
  throw new ListenError(`descriptor ${fd} cannot be used: ${getSystemErrorName(result)}`);
}

/** The peer of a connection. It is identified by its CID, which only the host can assign. */
export function vsockPeerOf(fd: number): Peer {
  const peer = vsockPeer(fd);
  // Already disconnected, and its address with it.
  if (!peer) return { label: 'vsock peer that has gone' };
  return { label: `vsock cid ${peer.cid} port ${peer.port}`, origin: { kind: 'vsock', ...peer } };
}

export function listenVsock(
  endpoint: Endpoint & { kind: 'vsock' },
  accept: Accept,
  warn: (text: string) => void,
): Listener {
  const { cid } = endpoint;
  const fd = bindVsock({ cid, port: endpoint.port === 0 ? anyPort : endpoint.port });
  if (fd < 0) throw new ListenError(bindError(-fd, endpoint));
  const { port } = vsockName(fd)!;
  const uri = vsockUri({ cid, port });
  const audience = vsockAudience(cid);
  const close = acceptFrom(fd, accept, warn);
  const detach = (): BoundEndpoint => {
    const duplicate = dupCloexec(fd);
    close();
    return { kind: 'bound', fd: duplicate, as: endpoint, uri, audience };
  };
  if (cid === anyCid && !transportFiles.some(existsSync)) {
    warn(
      `${uri}: no guest of this machine can connect, since its kernel has no vhost_vsock: modprobe vhost_vsock`,
    );
  }
  return { endpoint, uri, single: false, audience, close, detach };
}

/** bind(2) to any CID succeeds without a transport. One of these exists where there is one. */
const transportFiles = ['/dev/vhost-vsock', '/sys/module/vhost_vsock', '/sys/module/vsock_loopback'];

/** Whether a descriptor is an AF_VSOCK socket. */
export function isVsock(fd: number): boolean {
  return vsockName(fd) !== undefined;
}

/** Accepts connections from a bound AF_VSOCK socket, and owns it. Returns a function that closes it. */
export function acceptFrom(fd: number, accept: Accept, warn: (text: string) => void): () => void {
  const handle = handleFor(fd, 'server');
  handle.onconnection = (status, client) => {
    if (status === 0) accept({ handle: client }, vsockPeerOf(client.fd));
    else warn(`a connection could not be accepted: ${getSystemErrorName(status)}`);
  };
  const result = handle.listen(backlog);
  if (result === 0) return () => handle.close();
  handle.close();
  throw new ListenError(`descriptor ${fd} cannot be listened on: ${getSystemErrorName(result)}`);
}

/** Takes over a connected AF_VSOCK socket. */
export function connectedVsock(fd: number): Source {
  return { handle: handleFor(fd, 'socket') };
}

/** Why this machine has no such CID, and what to do about it. */
function cidAdvice(cid: number): string {
  if (cid === hostCid) return 'it has no guests to be the host of: modprobe vhost_vsock';
  if (cid === localCid) return 'its kernel has no loop: modprobe vsock_loopback';
  return 'its own CID is what its monitor gave it; any is right nearly always';
}

function bindError(errno: number, { cid, port }: VsockAddress): string {
  switch (errno) {
    case constants.errno.EAFNOSUPPORT:
      return 'this kernel has no vsock: modprobe vhost_vsock (CONFIG_VHOST_VSOCK)';
    case constants.errno.EADDRNOTAVAIL:
      return `this machine has no CID ${cid}: ${cidAdvice(cid)}`;
    case constants.errno.EADDRINUSE:
      return `port ${port} is in use: stop what listens there (ss --vsock -lp shows it), or choose another port`;
    case constants.errno.EACCES:
      return `port ${port} is privileged: choose one from 1024 on, or give the program CAP_NET_BIND_SERVICE`;
    default:
      return getSystemErrorName(-errno);
  }
}
