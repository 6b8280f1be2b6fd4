import type { Origin } from './session/door.ts';

/**
 * The machine, address or user that a connection is of, as in logs: connections with the same are one peer's. Of an IPv6 address
 * the network counts, since the rest is whatever a machine makes up.
 */
export function partyOf(origin: Origin | undefined): string {
  switch (origin?.kind) {
    case 'tcp':
      return `tcp ${networkOf(origin.address)}`;
    case 'unix':
      return `unix uid ${origin.uid}`;
    case 'vsock':
      return `vsock cid ${origin.cid}`;
    default:
      return 'peers that were gone at once';
  }
}

function networkOf(address: string): string {
  if (!address.includes(':') || address.includes('.')) return address;
  const [before = '', after] = address.split('::');
  const groups = before === '' ? [] : before.split(':');
  const last = after === undefined || after === '' ? [] : after.split(':');
  const between = Array<string>(Math.max(0, 8 - groups.length - last.length)).fill('0');
  return `${[...groups, ...between, ...last].slice(0, 4).join(':')}::/64`;
}
