import { didYouMean } from '#base/did-you-mean.ts';
import type { Audience } from './audience.ts';
import { tagError } from './vhost-user/tag.ts';
import { vsockAddress, vsockUri } from './vsock-address.ts';

/**
 * Where to listen. `group` (name or number) may connect besides the socket's owner. `busyPoll` is how many microseconds after a
 * request the process polls for the next one before it sleeps.
 */
export type Endpoint =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly busyPoll?: number }
  | { readonly kind: 'unix'; readonly path: string; readonly group?: string; readonly busyPoll?: number }
  /** AF_VSOCK: a CID of this machine or `anyCid`; for port 0 the kernel chooses one. */
  | { readonly kind: 'vsock'; readonly cid: number; readonly port: number; readonly busyPoll?: number }
  /** The guest's virtio-9p device. `exportName` is the only export that it can attach; undefined allows all. */
  | {
      readonly kind: 'vhost-user';
      readonly path: string;
      readonly tag: string;
      readonly exportName: string | undefined;
      readonly group?: string;
      /** While the virtqueue is polled the guest need not kick. */
      readonly busyPoll?: number;
    }
  /** An inherited descriptor: a listening socket or a connected stream. */
  | { readonly kind: 'fd'; readonly fd: number }
  /** An inherited descriptor by its name: FileDescriptorName= of systemd.socket(5). */
  | { readonly kind: 'named-fd'; readonly name: string }
  | BoundEndpoint;

/** A socket that this process bound before it executed itself with fewer privileges. */
export interface BoundEndpoint {
  readonly kind: 'bound';
  readonly fd: number;
  /** The endpoint it was bound for, and its URI. */
  readonly as: Exclude<Endpoint, BoundEndpoint>;
  readonly uri: string;
  readonly audience?: Audience;
  /** The file of a Unix socket, removed on close. */
  readonly file?: SocketFile;
}

export interface SocketFile {
  readonly path: string;
  readonly ino: number;
  readonly dev: number;
}

/** The URI forms, for error texts. */
const endpointForms =
  'tcp://HOST:PORT, unix:///PATH, vsock://CID:PORT, vhost-user:///PATH?tag=TAG[&export=NAME], fd://NUMBER; all but the last take the parameter busy-poll=US, and those with a path group=GROUP';

/** sockaddr_un holds 108 bytes with the NUL, unix(7). */
export const socketPathBytesMax = 107;

/** Microseconds. A peer that sends nothing for longer is idle. */
const busyPollMax = 10_000;

/** Descriptors are ints. */
const descriptorMax = 0x7fff_ffff;

const schemes = ['tcp', 'unix', 'vsock', 'vhost-user', 'fd'];

/**
 * Parses a URI. A port alone is one of 127.0.0.1, and HOST:PORT is TCP. Returns a string that says what is wrong with it.
 */
export function endpointOf(uri: string): Endpoint | string {
  const [, scheme, rest] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/i.exec(uri) ?? [];
  if (scheme === undefined || rest === undefined) return shortEndpoint(uri);
  if (scheme === 'tcp') return tcpEndpoint(rest);
  if (scheme === 'unix') return unixEndpoint(rest);
  if (scheme === 'vsock') return vsockEndpoint(rest);
  if (scheme === 'vhost-user') return vhostUserEndpoint(rest);
  if (scheme === 'fd') return fdEndpoint(rest);
  return `unknown scheme "${scheme}"${didYouMean(scheme, schemes)}: the forms are ${endpointForms}`;
}

function shortEndpoint(text: string): Endpoint | string {
  if (/^[0-9]+$/.test(text)) return tcpEndpoint(`127.0.0.1:${text}`);
  const [, host] = /^(.*[^:]):[0-9]+$/.exec(text) ?? [];
  if (host === undefined || schemes.includes(host)) return `not a URI: the forms are ${endpointForms}`;
  return tcpEndpoint(text);
}

function tcpEndpoint(rest: string): Endpoint | string {
  const [address, parameters] = splitParameters(rest);
  const [, bracketed, plain, digits] =
    /^(?:\[([0-9a-f:.%a-z]+)\]|([^:[\]/?#]+)):([0-9]+)$/i.exec(address) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  if (host === undefined) {
    return 'host and port are needed, as in tcp://127.0.0.1:5640, tcp://[::1]:5640, or tcp://0.0.0.0:5640 for every IPv4 address';
  }
  if (port > 65535) return `there is no port ${digits}: the highest is 65535`;
  return parameterError(parameters, ['busy-poll']) ?? { kind: 'tcp', host, port, ...pollIn(parameters) };
}

function unixEndpoint(rest: string): Endpoint | string {
  const [path, parameters] = splitParameters(rest);
  const error =
    pathError(path, 'unix:///run/ninepd.sock') ?? parameterError(parameters, ['group', 'busy-poll']);
  return error ?? { kind: 'unix', path, ...groupIn(parameters), ...pollIn(parameters) };
}

/** Splits at the first `?`, which a path therefore cannot contain. */
function splitParameters(rest: string): [address: string, parameters: URLSearchParams] {
  const [, path = '', query = ''] = /^([^?]*)(?:\?(.*))?$/s.exec(rest) ?? [];
  return [path, new URLSearchParams(query)];
}

function parameterError(parameters: URLSearchParams, known: readonly string[]): string | undefined {
  for (const name of parameters.keys()) {
    if (!known.includes(name)) return `"${name}" is no parameter of it, but ${known.join(', ')}`;
    if (parameters.getAll(name).length > 1) return `${name} is given twice`;
  }
  if (parameters.get('group') === '') return 'group= is the name or number of a group, such as kvm';
  return pollError(parameters.get('busy-poll') ?? '0');
}

function groupIn(parameters: URLSearchParams): { group?: string } {
  const group = parameters.get('group');
  return group === null ? {} : { group };
}

function pollIn(parameters: URLSearchParams): { busyPoll?: number } {
  const microseconds = Number(parameters.get('busy-poll') ?? 0);
  return microseconds === 0 ? {} : { busyPoll: microseconds };
}

function vsockEndpoint(rest: string): Endpoint | string {
  const [text, parameters] = splitParameters(rest);
  const address = vsockAddress(text);
  if (typeof address === 'string') return address;
  return parameterError(parameters, ['busy-poll']) ?? { kind: 'vsock', ...address, ...pollIn(parameters) };
}

function pathError(path: string, example: string): string | undefined {
  if (!path.startsWith('/')) return `the path must be absolute, with three slashes, as in ${example}`;
  if (path.endsWith('/') || path.includes('\0')) return `the path must be that of a file, as in ${example}`;
  if (Buffer.byteLength(path) > socketPathBytesMax) {
    return `the path is longer than a socket's can be (${socketPathBytesMax} bytes): choose a shorter one`;
  }
  return undefined;
}

function vhostUserEndpoint(rest: string): Endpoint | string {
  const [path, parameters] = splitParameters(rest);
  const tag = parameters.get('tag') ?? '';
  const error =
    pathError(path, 'vhost-user:///run/vm1.sock?tag=share') ??
    parameterError(parameters, ['tag', 'export', 'busy-poll', 'group']) ??
    tagError(tag);
  const exportName = parameters.get('export') ?? undefined;
  const more = { ...pollIn(parameters), ...groupIn(parameters) };
  return error ?? { kind: 'vhost-user', path, tag, exportName, ...more };
}

function pollError(text: string): string | undefined {
  if (/^[0-9]{1,5}$/.test(text) && Number(text) <= busyPollMax) return undefined;
  return `busy-poll=${text}: a number of microseconds up to ${busyPollMax} is needed, such as 50`;
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

/** The endpoint as configured, also for a socket that was bound earlier. */
export function purposeOf(endpoint: Endpoint): Exclude<Endpoint, BoundEndpoint> {
  return endpoint.kind === 'bound' ? endpoint.as : endpoint;
}

export function uriOf(endpoint: Endpoint): string {
  switch (endpoint.kind) {
    case 'tcp': {
      const host = endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host;
      return `tcp://${host}:${endpoint.port}${parametersOf(endpoint)}`;
    }
    case 'unix':
      return `unix://${endpoint.path}${parametersOf(endpoint)}`;
    case 'vsock':
      return vsockUri(endpoint) + parametersOf(endpoint);
    case 'vhost-user':
      return `vhost-user://${endpoint.path}${parametersOf(endpoint)}`;
    case 'fd':
      return `fd://${endpoint.fd}`;
    case 'named-fd':
      return `fd://${endpoint.name}`;
    case 'bound':
      return endpoint.uri;
  }
}

interface Parameters {
  readonly tag?: string;
  readonly exportName?: string | undefined;
  readonly busyPoll?: number;
  readonly group?: string;
}

function parametersOf({ tag, exportName, busyPoll, group }: Parameters): string {
  const given = Object.entries({ tag, export: exportName, 'busy-poll': busyPoll, group });
  const query = given.filter(([, value]) => value !== undefined);
  if (query.length === 0) return '';
  return `?${query.map(([name, value]) => `${name}=${encodeURIComponent(value!)}`).join('&')}`;
}
