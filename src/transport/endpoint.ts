import type { Reach } from './reach.ts';
import { tagFault } from './vhost-user/tag.ts';
import { vsockAddress, vsockUri } from './vsock-address.ts';

/** Where to listen. `group`, a name or number, may connect besides the socket's owner. */
export type Endpoint =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string; readonly group?: string }
  /** AF_VSOCK: a CID of this machine, or `anyCid`; port 0 lets the system choose. */
  | { readonly kind: 'vsock'; readonly cid: number; readonly port: number }
  /** The guest's virtio-9p device itself; `exportName` is the one export that it reaches, all of them when left out. */
  | {
      readonly kind: 'vhost-user';
      readonly path: string;
      readonly tag: string;
      readonly exportName: string | undefined;
      readonly group?: string;
      /** Microseconds for which the virtqueue is looked at before the guest has to kick; 0 for none. */
      readonly busyPoll: number;
    }
  /** A descriptor that the process was started with: a listening socket, or a stream that is connected already. */
  | { readonly kind: 'fd'; readonly fd: number }
  /** One that the service manager gave a name (FileDescriptorName= of systemd.socket(5)). */
  | { readonly kind: 'named-fd'; readonly name: string }
  | BoundEndpoint;

/** A listening socket that was made by an earlier program of this process, which had more rights. */
export interface BoundEndpoint {
  readonly kind: 'bound';
  readonly fd: number;
  /** What it was made for, and its URI. */
  readonly as: Exclude<Endpoint, BoundEndpoint>;
  readonly uri: string;
  /** Who can connect to it. */
  readonly reach?: Reach;
  /** The name of a Unix socket, to be removed at the end. */
  readonly file?: SocketFile;
}

export interface SocketFile {
  readonly path: string;
  readonly ino: number;
  readonly dev: number;
}

/** The forms of a URI, for texts that say what is possible. */
export const endpointForms =
  'tcp://HOST:PORT, unix:///PATH[?group=GROUP], vsock://CID:PORT, vhost-user:///PATH?tag=TAG[&export=NAME][&busy-poll=US][&group=GROUP], fd://NUMBER';

/** sockaddr_un holds 108 bytes with the NUL, unix(7). */
export const socketPathBytesMax = 107;

/** Ten milliseconds: who waits for longer is idle. */
const busyPollMax = 10_000;

/** Descriptors are ints. */
const descriptorMax = 0x7fff_ffff;

/** Reads a URI; a string says what is wrong with it. */
export function endpointOf(uri: string): Endpoint | string {
  const [, scheme, rest] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/i.exec(uri) ?? [];
  if (scheme === undefined || rest === undefined) return `it is no URI: the forms are ${endpointForms}`;
  if (scheme === 'tcp') return tcpEndpoint(rest);
  if (scheme === 'unix') return unixEndpoint(rest);
  if (scheme === 'vsock') return vsockEndpoint(rest);
  if (scheme === 'vhost-user') return vhostUserEndpoint(rest);
  if (scheme === 'fd') return fdEndpoint(rest);
  return `nothing can be listened on by "${scheme}": the forms are ${endpointForms}`;
}

function tcpEndpoint(rest: string): Endpoint | string {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-f:.%a-z]+)\]|([^:[\]/?#]+)):([0-9]+)$/i.exec(rest) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  if (host === undefined) {
    return 'host and port are needed, as in tcp://127.0.0.1:5640, tcp://[::1]:5640, or tcp://0.0.0.0:5640 for every IPv4 address';
  }
  if (port > 65535) return `there is no port ${digits}: the highest is 65535`;
  return { kind: 'tcp', host, port };
}

function unixEndpoint(rest: string): Endpoint | string {
  const [path, parameters] = pathAndParameters(rest);
  const fault = pathFault(path, 'unix:///run/ninepd.sock') ?? parameterFault(parameters, ['group']);
  return fault ?? { kind: 'unix', path, ...groupIn(parameters) };
}

/** A `?` cannot be a part of the path. */
function pathAndParameters(rest: string): [path: string, parameters: URLSearchParams] {
  const [, path = '', query = ''] = /^([^?]*)(?:\?(.*))?$/s.exec(rest) ?? [];
  return [path, new URLSearchParams(query)];
}

function parameterFault(parameters: URLSearchParams, known: readonly string[]): string | undefined {
  for (const name of parameters.keys()) {
    if (!known.includes(name)) return `"${name}" is no parameter of it, but ${known.join(', ')}`;
    if (parameters.getAll(name).length > 1) return `${name} is given twice`;
  }
  return parameters.get('group') === '' ? 'group= is the name or number of a group, such as kvm' : undefined;
}

function groupIn(parameters: URLSearchParams): { group?: string } {
  const group = parameters.get('group');
  return group === null ? {} : { group };
}

function vsockEndpoint(rest: string): Endpoint | string {
  const address = vsockAddress(rest);
  return typeof address === 'string' ? address : { kind: 'vsock', ...address };
}

function pathFault(path: string, example: string): string | undefined {
  if (!path.startsWith('/')) return `the path must be absolute, with three slashes, as in ${example}`;
  if (path.endsWith('/') || path.includes('\0')) return `the path must be that of a file, as in ${example}`;
  if (Buffer.byteLength(path) > socketPathBytesMax) {
    return `the path is longer than a socket's can be (${socketPathBytesMax} bytes): choose a shorter one`;
  }
  return undefined;
}

function vhostUserEndpoint(rest: string): Endpoint | string {
  const [path, parameters] = pathAndParameters(rest);
  const tag = parameters.get('tag') ?? '';
  const poll = parameters.get('busy-poll') ?? '0';
  const fault =
    pathFault(path, 'vhost-user:///run/vm1.sock?tag=share') ??
    parameterFault(parameters, ['tag', 'export', 'busy-poll', 'group']) ??
    tagFault(tag) ??
    pollFault(poll);
  const exportName = parameters.get('export') ?? undefined;
  return (
    fault ?? { kind: 'vhost-user', path, tag, exportName, busyPoll: Number(poll), ...groupIn(parameters) }
  );
}

function pollFault(text: string): string | undefined {
  if (/^[0-9]{1,5}$/.test(text) && Number(text) <= busyPollMax) return undefined;
  return `busy-poll=${text}: a number of microseconds up to ${busyPollMax} is needed, such as 50`;
}

function vhostUserUri({ path, tag, exportName, busyPoll, group }: Endpoint & { kind: 'vhost-user' }): string {
  const parameters = {
    tag,
    ...(exportName === undefined ? {} : { export: exportName }),
    ...(busyPoll === 0 ? {} : { 'busy-poll': `${busyPoll}` }),
    ...(group === undefined ? {} : { group }),
  };
  const query = Object.entries(parameters).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  return `vhost-user://${path}?${query.join('&')}`;
}

function fdEndpoint(rest: string): Endpoint | string {
  if (/^[0-9]+$/.test(rest)) {
    const fd = Number(rest);
    if (fd < 3)
      return 'descriptors 0, 1 and 2 are standard input, output and error: pass a socket as 3 or above';
    if (fd > descriptorMax) return `there is no descriptor ${rest}: the highest is ${descriptorMax}`;
    return { kind: 'fd', fd };
  }
  return /^[^/:]+$/.test(rest)
    ? { kind: 'named-fd', name: rest }
    : 'the number of a descriptor is needed, as in fd://3';
}

/** What a socket is for, however it came to be. */
export function purposeOf(endpoint: Endpoint): Exclude<Endpoint, BoundEndpoint> {
  return endpoint.kind === 'bound' ? endpoint.as : endpoint;
}

/** The URI of any endpoint. */
export function uriOf(endpoint: Endpoint): string {
  switch (endpoint.kind) {
    case 'tcp':
      return `tcp://${endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host}:${endpoint.port}`;
    case 'unix':
      return `unix://${endpoint.path}${endpoint.group === undefined ? '' : `?group=${encodeURIComponent(endpoint.group)}`}`;
    case 'vsock':
      return vsockUri(endpoint);
    case 'vhost-user':
      return vhostUserUri(endpoint);
    case 'fd':
      return `fd://${endpoint.fd}`;
    case 'named-fd':
      return `fd://${endpoint.name}`;
    case 'bound':
      return endpoint.uri;
  }
}
