import { msizeBytesDefault } from '#quota/limits.ts';
import { type Endpoint, endpointOf } from '#transport/endpoint.ts';
import { guestHint, monitorHint } from '#transport/vhost-user/tag.ts';
import { anyCid, hostCid, localCid, vsockPortDefault } from '#transport/vsock-address.ts';

/** The part of an export that a mount command needs. */
interface Mountable {
  readonly name: string;
}

/** The host's address for a guest of QEMU with user networking (-nic user). */
const userNetworkHost = '10.0.2.2';
const reachedByUserNetwork = new Set(['127.0.0.1', 'localhost', '0.0.0.0', '::', '::1']);

/** The guest's command to mount an export through the listener at `uri`; undefined if there is none. */
export function mountHint(uri: string, one: Mountable, msizeMax: number): string | undefined {
  const endpoint = endpointOf(uri);
  if (typeof endpoint === 'string') return undefined;
  // Linux limits msize over TCP and Unix sockets to 1 MiB, and logs a line for a larger one.
  const msize = Math.min(msizeMax, msizeBytesDefault);
  // Only the first export can have a name with a comma, and it needs no aname.
  const aname = one.name.includes(',') ? [] : [`aname=${one.name}`];
  const mount = (transport: readonly string[], device: string) => {
    const options = [...transport, 'version=9p2000.L', `msize=${msize}`, ...aname, 'access=client'];
    return `mount -t 9p -o ${quoted(options.join(','))} ${quoted(device)} /mnt`;
  };
  const vsock = vsockOf(endpoint);
  if (vsock) {
    const { where, device, msizeMax: limit = msize } = vsock;
    const options = [`msize=${Math.min(msize, limit)}`, ...aname, 'access=client'].join(',');
    // mount.9pvsock adds the transport and the version.
    return `${where}: mount -t 9pvsock -o ${quoted(options)} ${device} /mnt`;
  }
  if (endpoint.kind === 'unix') return `on this machine: ${mount(['trans=unix'], endpoint.path)}`;
  if (endpoint.kind !== 'tcp') return undefined;
  const user = reachedByUserNetwork.has(endpoint.host);
  // The kernel's client accepts only IPv4 addresses in dotted form.
  if (!user && !/^[0-9]+(\.[0-9]+){3}$/.test(endpoint.host)) return undefined;
  const command = mount(['trans=tcp', `port=${endpoint.port}`], user ? userNetworkHost : endpoint.host);
  return user ? `in a guest with QEMU's user networking: ${command}` : `in a guest: ${command}`;
}

/** Some vsock devices of monitors lose larger messages of newer guest kernels: docs/transports.md. */
const hybridMsizeMax = 32_768;

/** The guest's name for a listener that it reaches by vsock; undefined for others. */
function vsockOf(endpoint: Endpoint): { where: string; device: string; msizeMax?: number } | undefined {
  const device = (cid: number, port: number) => (port === vsockPortDefault ? `${cid}` : `${cid}:${port}`);
  if (endpoint.kind === 'vsock') {
    const { cid, port } = endpoint;
    const where = cid === localCid ? 'on this machine' : 'in a guest with vsock';
    return { where, device: device(cid === anyCid ? hostCid : cid, port) };
  }
  const port = endpoint.kind === 'unix' && /_([0-9]{1,10})$/.exec(endpoint.path)?.[1];
  if (!port) return undefined;
  const where = 'in the guest with this vsock';
  return { where, device: device(hostCid, Number(port)), msizeMax: hybridMsizeMax };
}

/** The commands for both sides of a vhost-user device; none for other listeners. */
export function deviceHints(uri: string): string[] {
  const endpoint = endpointOf(uri);
  if (typeof endpoint === 'string' || endpoint.kind !== 'vhost-user') return [];
  return [monitorHint(endpoint.path, endpoint.tag), guestHint(endpoint.tag)];
}

/** Quotes a word for a shell. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
