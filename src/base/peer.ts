/** Where a connection comes from, as the kernel says. Numbers of a Unix peer are those at the time it connected. */
export type Origin =
  | { readonly kind: 'tcp'; readonly address: string; readonly port: number }
  | { readonly kind: 'unix'; readonly uid: number; readonly gid: number }
  /** Which machine it is; no guest can forge that. */
  | { readonly kind: 'vsock'; readonly cid: number; readonly port: number };

/** What a transport tells a session of its peer. */
export interface Peer {
  /** As in logs: `tcp 127.0.0.1:51234`, `unix pid 4711 uid 1000`, `vsock cid 5 port 1030`. */
  readonly label: string;
  /** For access rules; undefined when it could not be learnt, as of a peer that is gone already. */
  readonly origin?: Origin;
}

/**
 * The machine, address or user that a connection is of, as in logs: connections with the same are one peer's. Of an IPv6 address
 * the network counts, since the rest is whatever a machine makes up.
 */
export function peerKey(origin: Origin | undefined): string {
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
