import { lstatSync, readFileSync, readlinkSync } from 'node:fs';
import type { AddressInfo, Server } from 'node:net';
import { vsockName } from '#host/vsock.ts';
import { localCid } from './vsock-address.ts';

/** Who can connect to a listener that is for more than its own user or machine; undefined where nobody else can. */
export type Audience =
  | 'other machines'
  | 'every virtual machine of this host'
  | 'every user of this host'
  | undefined;

export function tcpAudience({ address }: AddressInfo): Audience {
  return /^(127\.|::1$|::ffff:127\.)/i.test(address) ? undefined : 'other machines';
}

export function vsockAudience(cid: number): Audience {
  return cid === localCid ? undefined : 'every virtual machine of this host';
}

/** Of a socket that the program was started with; for what Node listens on, with its server. */
export function inheritedAudience(fd: number, server?: Server): Audience {
  const vsock = vsockName(fd);
  if (vsock) return vsockAudience(vsock.cid);
  const address = server?.address();
  return address && typeof address === 'object' ? tcpAudience(address) : unixReach(unixName(fd));
}

/** connect(2) asks for the right to write; an abstract socket knows no rights. */
function unixReach(path: string | undefined): Audience {
  if (path === undefined) return undefined;
  const open =
    path.startsWith('@') || ((lstatSync(path, { throwIfNoEntry: false })?.mode ?? 0) & 0o002) !== 0;
  return open ? 'every user of this host' : undefined;
}

/** Its name in /proc/net/unix, proc_net(5); undefined where it has none. */
function unixName(fd: number): string | undefined {
  const inode = /\[(\d+)\]/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
  const lines = readFileSync('/proc/net/unix', 'latin1').split('\n');
  const fields = lines.map(line => /^(?:\S+\s+){6}(\d+) (.+)$/.exec(line));
  const name = fields.find(found => found?.[1] === inode)?.[2];
  return name === undefined ? undefined : Buffer.from(name, 'latin1').toString();
}
