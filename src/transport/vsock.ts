import { existsSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import type { Peer } from '#base/peer.ts';
import { dupCloexec } from '#host/vhost.ts';
import { bindVsock, type VsockAddress, vsockName, vsockPeer } from '#host/vsock.ts';
import { vsockAudience } from './audience.ts';
import type { BoundEndpoint, Endpoint } from './endpoint.ts';
import { type Accept, ListenError, type Listener } from './listener.ts';
import type { Source } from './stream.ts';
import { anyCid, anyPort, hostCid, localCid, vsockUri } from './vsock-address.ts';

/** libuv's handle of a stream, as far as Node's own modules use it; methods return 0 or −errno. */
interface StreamHandle {
  readonly fd: number;
  open(fd: number): number;
  listen(backlog: number): number;
  close(): void;
  onconnection: (status: number, client: StreamHandle) => void;
}

const role = { socket: 0, server: 1 };
/** What Node asks for, for its own servers. */
const backlog = 511;

let knownClass: (new (role: number) => StreamHandle) | undefined;

/**
 * Node looks at the family of a descriptor and refuses one that it does not know, while libuv's handle for Unix sockets
 * takes any stream. Node keeps the class of that handle to itself; a socket that tries to connect has one.
 */
function handleClass(): new (role: number) => StreamHandle {
  if (knownClass) return knownClass;
  const socket = new Socket();
  socket.on('error', () => undefined);
  // Refused at once: a directory is no socket.
  socket.connect({ path: '/' });
  const { _handle: handle } = socket as unknown as { _handle: object };
  socket.destroy();
  knownClass = handle.constructor as new (role: number) => StreamHandle;
  return knownClass;
}

/** Finds the class while sockets can still be made. */
export function readyForVsock(): void {
  handleClass();
}

/** A handle that owns the descriptor. */
function handleFor(fd: number, as: keyof typeof role): StreamHandle {
  const handle = new (handleClass())(role[as]);
  const failed = handle.open(fd);
  if (failed === 0) return handle;
  handle.close();
  throw new ListenError(`descriptor ${fd} cannot be used: ${getSystemErrorName(failed)}`);
}

/** The other end of a connection; a guest is known by its CID, which only the host can give it. */
export function vsockPeerOf(fd: number): Peer {
  const peer = vsockPeer(fd);
  // Gone again already, and with it what it was.
  if (!peer) return { label: 'vsock peer that has gone' };
  return { label: `vsock cid ${peer.cid} port ${peer.port}`, origin: { kind: 'vsock', ...peer } };
}

export function listenVsock(
  endpoint: Endpoint & { kind: 'vsock' },
  accept: Accept,
  complain: (text: string) => void,
): Listener {
  const { cid } = endpoint;
  const fd = bindVsock({ cid, port: endpoint.port === 0 ? anyPort : endpoint.port });
  if (fd < 0) throw new ListenError(bindFault(-fd, endpoint));
  const { port } = vsockName(fd)!;
  const uri = vsockUri({ cid, port });
  const audience = vsockAudience(cid);
  const close = acceptFrom(fd, accept, complain);
  const detach = (): BoundEndpoint => {
    const kept = dupCloexec(fd);
    close();
    return { kind: 'bound', fd: kept, as: endpoint, uri, audience };
  };
  if (cid === anyCid && !signsOfTransport.some(existsSync)) {
    complain(
      `${uri}: no guest of this machine can connect, since its kernel has no vhost_vsock: modprobe vhost_vsock`,
    );
  }
  return { endpoint, uri, single: false, audience: audience, close, detach };
}

/** Binding to any CID succeeds where there is none to come from. One of these is there where there is. */
const signsOfTransport = ['/dev/vhost-vsock', '/sys/module/vhost_vsock', '/sys/module/vsock_loopback'];

/** Whether a descriptor is of this family at all. */
export function isVsock(fd: number): boolean {
  return vsockName(fd) !== undefined;
}

/** Takes connections from a socket that the process was started with. Returns what closes it. */
export function acceptFrom(fd: number, accept: Accept, complain: (text: string) => void): () => void {
  const handle = handleFor(fd, 'server');
  handle.onconnection = (status, client) => {
    if (status === 0) accept({ handle: client }, vsockPeerOf(client.fd));
    else complain(`a connection could not be accepted: ${getSystemErrorName(status)}`);
  };
  const failed = handle.listen(backlog);
  if (failed === 0) return () => handle.close();
  handle.close();
  throw new ListenError(`descriptor ${fd} cannot be listened on: ${getSystemErrorName(failed)}`);
}

/** A connected socket that came as a descriptor. */
export function connectedVsock(fd: number): Source {
  return { handle: handleFor(fd, 'socket') };
}

/** What is missing for a CID that is not this machine's. */
function missing(cid: number): string {
  if (cid === hostCid) return 'it has no guests to be the host of: modprobe vhost_vsock';
  if (cid === localCid) return 'its kernel has no loop: modprobe vsock_loopback';
  return 'its own CID is what its monitor gave it; any is right nearly always';
}

function bindFault(errno: number, { cid, port }: VsockAddress): string {
  switch (errno) {
    case constants.errno.EAFNOSUPPORT:
      return 'this kernel has no vsock: modprobe vhost_vsock (CONFIG_VHOST_VSOCK)';
    case constants.errno.EADDRNOTAVAIL:
      return `this machine has no CID ${cid}: ${missing(cid)}`;
    case constants.errno.EADDRINUSE:
      return `port ${port} is in use: stop what listens there (ss --vsock -lp shows it), or choose another port`;
    case constants.errno.EACCES:
      return `port ${port} is privileged: choose one from 1024 on, or give the program CAP_NET_BIND_SERVICE`;
    default:
      return getSystemErrorName(-errno);
  }
}
