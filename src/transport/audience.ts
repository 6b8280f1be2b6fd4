import { lstatSync, readFileSync, readlinkSync } from 'node:fs';
import type { AddressInfo, Server } from 'node:net';
import { vsockName } from '#host/vsock.ts';
import { localCid } from './vsock-address.ts';

/** Who can connect to a listener that is open beyond its own user and the group named; undefined otherwise. */
export type Audience =
  | 'other machines'
  | 'every virtual machine of this host'
  | 'every user of this host'
  | undefined;

export function isLoopback(address: string): boolean {
  return /^(127\.|::1$|::ffff:127\.)/i.test(address);
}

export function tcpAudience({ address }: AddressInfo): Audience {
  return isLoopback(address) ? 'every user of this host' : 'other machines';
}

export function vsockAudience(cid: number): Audience {
  return cid === localCid ? 'every user of this host' : 'every virtual machine of this host';
}

/** Audience of an inherited listening socket. `server` is Node's, for the socket families that Node knows. */
export function inheritedAudience(fd: number, server?: Server): Audience {
  const vsock = vsockName(fd);
  if (vsock) return vsockAudience(vsock.cid);
  const address = server?.address();
  return address && typeof address === 'object' ? tcpAudience(address) : unixAudience(unixName(fd));
}

/** connect(2) needs write permission on the socket file; an abstract socket has no permissions: unix(7). */
function unixAudience(path: string | undefined): Audience {
  if (path === undefined) return undefined;
  const open =
    path.startsWith('@') || ((lstatSync(path, { throwIfNoEntry: false })?.mode ?? 0) & 0o002) !== 0;
  return open ? 'every user of this host' : undefined;
}

/** The socket's name in /proc/net/unix (proc_net(5)); undefined if it has none. */
function unixName(fd: number): string | undefined {
  const inode = /\[(\d+)\]/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
  const lines = readFileSync('/proc/net/unix', 'latin1').split('\n');
  const fields = lines.map(line => /^(?:\S+\s+){6}(\d+) (.+)$/.exec(line));
  const name = fields.find(found => found?.[1] === inode)?.[2];
  return name === undefined ? undefined : Buffer.from(name, 'latin1').toString();
}
